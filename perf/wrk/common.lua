-- What the load scripts share: the body file and one line of JSON at the end.
-- wrk builds the request once (no `request` function), so Lua costs nothing per request. Answers with a status above 399
-- are counted by wrk itself; `not_200` is that count.

local common = {}

function common.read_file(path)
   local file = assert(io.open(path, "rb"), "cannot open " .. path)
   local content = file:read("*a")
   file:close()
   return content
end

function common.done(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      '{"requests": %d, "seconds": %.6f, "not_200": %d, "connect_errors": %d, "read_errors": %d, "write_errors": %d, ' ..
      '"timeouts": %d, "p50_us": %.1f, "p99_us": %.1f, "max_us": %.1f, "bytes": %d}\n',
      summary.requests, summary.duration / 1e6, errors.status, errors.connect, errors.read, errors.write,
      errors.timeout, latency:percentile(50), latency:percentile(99), latency.max, summary.bytes))
end

return common
