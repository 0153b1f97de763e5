-- Take one off each counter that counts anything.
-- keys: counters...

for _, counter in ipairs(counters) do
  if (whole(get(counter)) or 0) > 0 then redis.call('DECR', counter) end
end
