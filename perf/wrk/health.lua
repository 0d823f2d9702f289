-- GET without a body; the path is in the URL.
--     wrk ... -s perf/wrk/health.lua URL
local common = dofile((debug.getinfo(1, "S").source:match("^@(.*/)") or "./") .. "common.lua")

done = common.done
