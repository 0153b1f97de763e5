-- Add what a process has counted. A batch is added once, also when it is sent again because the answer was lost.
-- Returns 1; 0 when it was added before.
-- keys: COUNTERS counted
-- args: number amounts...
-- constants: COUNTED_SECONDS

if whole(get(counted)) == tonumber(number) then return 0 end
expect('hash', COUNTERS)
for i = 1, #amounts, 2 do
  if not whole(redis.call('HGET', COUNTERS, amounts[i])) then redis.call('HSET', COUNTERS, amounts[i], '0') end
  redis.call('HINCRBY', COUNTERS, amounts[i], amounts[i + 1])
end
redis.call('EXPIRE', COUNTERS, KEEP_SECONDS)
redis.call('SET', counted, number, 'EX', COUNTED_SECONDS)
return 1
