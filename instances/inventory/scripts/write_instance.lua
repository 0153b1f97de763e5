-- Write one instance into the current generation, or remove it. Returns 1 for a visible change, otherwise 0.
-- `encoded` is the instance's JSON up to `changedAt`, and `ending` the rest; an empty `encoded` removes it.
-- `read_began` is the tick at which the read began, and empty for an action. A read never replaces a later write.
-- include: inventory
-- keys: BODY
-- args: id encoded ending read_began is_moving touched_seconds

local number, revision = find_inventory()
if not number then return 0 end
expect('zset', TOUCHED)
expect('set', MOVING)
local touched = redis.call('ZSCORE', TOUCHED, id)
if read_began ~= '' and touched and tonumber(touched) >= tonumber(read_began) then return 0 end
local generation = GENERATION .. number
local old = redis.call('HGET', generation, id)
local is_same = (encoded == '' and not old) or (encoded ~= '' and old and string.sub(old, 1, #encoded) == encoded)
if is_same and read_began ~= '' then return 0 end
local tick = next_tick(TOUCHED, FENCE)
redis.call('ZREMRANGEBYSCORE', TOUCHED, '-inf', tick - touched_seconds * 1000)
redis.call('ZADD', TOUCHED, text_of(tick), id)
if is_same then return 0 end
if encoded == '' then
  redis.call('HDEL', generation, id)
else
  redis.call('HSET', generation, id, encoded .. ending)
end
redis.call(is_moving == '1' and 'SADD' or 'SREM', MOVING, id)
redis.call('DEL', BODY .. number .. ':' .. revision)
next_number(REVISION)
keep(number)
return 1
