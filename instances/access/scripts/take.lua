-- Count one in each counter, unless one of them is full.
-- Returns the last counter's value; or, negative, the seconds until the full one expires.
-- keys: counters...
-- args: limits_and_seconds...

-- A damaged counter is deleted. A counter that would live too long, without an end or after a clock was set back, gets
-- its end.
for i, counter in ipairs(counters) do
  local seconds = limits_and_seconds[2 * i]
  if not whole(get(counter)) then
    redis.call('DEL', counter)
  elseif not is_held(counter, seconds * 1000) then
    redis.call('EXPIRE', counter, seconds)
  end
end
for i, counter in ipairs(counters) do
  local limit = tonumber(limits_and_seconds[2 * i - 1])
  if (whole(get(counter)) or 0) >= limit then return -math.max(1, redis.call('TTL', counter)) end
end
local value = 0
for i, counter in ipairs(counters) do
  value = redis.call('INCR', counter)
  if value == 1 then redis.call('EXPIRE', counter, limits_and_seconds[2 * i]) end
end
return value
