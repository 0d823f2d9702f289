-- POST of a V2 infer request in JSON; its body comes from a file.
--     wrk ... -s perf/wrk/infer_json.lua URL -- BODY_FILE
local common = dofile((debug.getinfo(1, "S").source:match("^@(.*/)") or "./") .. "common.lua")

function init(args)
   wrk.method = "POST"
   wrk.headers["Content-Type"] = "application/json"
   wrk.body = common.read_file(args[1])
end

done = common.done
