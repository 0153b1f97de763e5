-- Exchange stored instances for others with the same facts, where they are still as the caller read them.
-- Returns how many were exchanged. `changes` has an id, the old and the new JSON for each instance.
-- include: inventory
-- keys: BODY
-- args: changes...

local number, revision = find_inventory()
if not number then return 0 end
expect('zset', TOUCHED)
local generation, exchanged = GENERATION .. number, 0
local tick = next_tick(TOUCHED, FENCE)
local sync_began = whole(get(FENCE)) or 0
for i = 1, #changes, 3 do
  local id, old, new = changes[i], changes[i + 1], changes[i + 2]
  if redis.call('HGET', generation, id) == old then
    redis.call('HSET', generation, id, new)
    -- Half a tick says that the facts are no newer than a synchronization that is running.
    local last = tonumber(redis.call('ZSCORE', TOUCHED, id) or '0')
    local is_newer = last % 1 == 0 and last >= sync_began
    redis.call('ZADD', TOUCHED, text_of(tick) .. (is_newer and '' or '.5'), id)
    exchanged = exchanged + 1
  end
end
if exchanged > 0 then
  redis.call('DEL', BODY .. number .. ':' .. revision)
  next_number(REVISION)
  keep(number)
end
return exchanged
