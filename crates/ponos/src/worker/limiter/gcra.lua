-- The generic cell rate algorithm, as `ponos_core::policy::Gcra` has it, on the server's clock.
--
-- KEYS[1]  the limit; holds "due part": when the next start is due, in µs and in units of 1 µs ÷ count
-- ARGV     period in µs, count, burst, and how many starts are wanted
-- Returns how many are granted, and in how many µs the next one may be.
--
-- Units of 1 µs ÷ count make the interval between two starts, period ÷ count, a whole number.
local period, count, burst, want = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local full = burst * period
local lead = 0
local kept = redis.call('GET', KEYS[1])
if kept then
  local due, part = string.match(kept, '^(%d+) (%d+)$')
  if not due then
    return redis.error_reply('ERR the key ' .. KEYS[1] .. ' holds something else: delete it')
  end
  lead = math.max((due - now) * count + math.min(part, count - 1), 0)
end
-- Less than nothing cannot be saved up; more than this is a clock that was set back.
lead = math.min(lead, full)
local granted = math.min(want, math.floor((full - lead) / period))
lead = lead + granted * period
local micros = math.floor(lead / count)
-- The format: a number made into text loses all after 14 digits. Written also when nothing is granted, so that a server
-- that cannot write is not taken for one that works.
local due = string.format('%.0f %.0f', now + micros, lead - micros * count)
redis.call('SET', KEYS[1], due, 'PX', string.format('%.0f', math.ceil(micros / 1000) + 1))
return { granted, math.ceil(math.max(lead + period - full, 0) / count) }
