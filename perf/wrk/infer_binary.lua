-- POST of a V2 infer request with binary tensors: the JSON part's length is the second argument.
--     wrk ... -s perf/wrk/infer_binary.lua URL -- BODY_FILE JSON_BYTES
local common = dofile((debug.getinfo(1, "S").source:match("^@(.*/)") or "./") .. "common.lua")

function init(args)
   wrk.method = "POST"
   wrk.headers["Content-Type"] = "application/octet-stream"
   wrk.headers["Inference-Header-Content-Length"] = args[2]
   wrk.body = common.read_file(args[1])
end

done = common.done
