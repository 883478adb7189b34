-- wrk's side of the closed loop: sends requests that `bench-load make` has signed, each once, in the order of its file.
--
-- wrk .. URL -- FILES RECORD_BYTES wrap|once OUT
-- Each thread reads its own file, FILES.1, FILES.2, ..; every request has RECORD_BYTES bytes. At its end a thread stops and
-- says so ("once"), or begins again ("wrap"). The figures go to OUT as JSON.

local threads = {}

function setup(thread)
  table.insert(threads, thread)
  thread:set("part", #threads)
end

local file, record_bytes, wrap
exhausted = 0

function init(args)
  record_bytes = tonumber(args[2])
  wrap = args[3] == "wrap"
  out = args[4]
  local why
  file, why = io.open(args[1] .. "." .. part, "rb")
  if not file then error(why) end
  file:setvbuf("full", 1048576)
end

local last

function request()
  local record = file:read(record_bytes)
  if not record or #record < record_bytes then
    if wrap then
      file:seek("set", 0)
      record = file:read(record_bytes)
    else
      exhausted = 1
      wrk.thread:stop()
      return last
    end
  end
  last = record
  return record
end

function done(summary, latency)
  local used_up = 0
  for _, thread in ipairs(threads) do used_up = used_up + thread:get("exhausted") end
  local file = assert(io.open(threads[1]:get("out"), "w"))
  file:write(string.format(
    '{"seconds":%.6f,"requests":%d,"p50_us":%d,"p99_us":%d,"p999_us":%d,"max_us":%d,"non_2xx":%d,' ..
    '"connect_errors":%d,"read_errors":%d,"write_errors":%d,"timeouts":%d,"exhausted":%d}\n',
    summary.duration / 1e6, summary.requests, latency:percentile(50), latency:percentile(99), latency:percentile(99.9),
    latency.max, summary.errors.status, summary.errors.connect, summary.errors.read, summary.errors.write,
    summary.errors.timeout, used_up))
  file:close()
end
