-- One turn of wrk: every request another body, made of the pieces that the file of bodies holds and of a number of its
-- own, or all the same one. Arguments: that file, the number of the first, by how much the next one's is more, the file
-- for the result.
local bodies, count, number, step

function init(args)
    bodies = dofile(args[1])
    count = #bodies
    number = tonumber(args[2])
    step = tonumber(args[3])
    result_file = args[4] -- no local: done() runs in a Lua state of its own, and asks this one for it
end

function request()
    local body = bodies[number % count + 1]
    local content = body[1] .. string.format("%09d", number) .. body[2]
    number = number + step
    return content
end

local only_thread

function setup(thread)
    only_thread = thread
end

function done(summary, latency, requests)
    local errors = summary.errors
    local out = io.open(only_thread:get("result_file"), "w")
    out:write(string.format(
        '{"answers":%d,"for_us":%d,"bytes":%d,"p50_us":%d,"p99_us":%d,"p999_us":%d,' ..
        '"errors":{"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d}}',
        summary.requests, summary.duration, summary.bytes, latency:percentile(50), latency:percentile(99),
        latency:percentile(99.9), errors.connect, errors.read, errors.write, errors.status, errors.timeout))
    out:close()
end
