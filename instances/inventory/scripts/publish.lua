-- Make the generation that was written aside the current one. Its number is the fence of the lease.
-- Returns 1; -1 when the lease is lost; -2 when the generation is incomplete.
-- `size` counts the instances and the format's field. The generation before it expires after `grace_seconds`, for
-- readers that have its number already. `moving` are the ids of the instances that are moving.
-- include: inventory
-- keys: LEASE BODY
-- args: token fence as_of trigger size grace_seconds moving...

if get(LEASE) ~= token or get(FENCE) ~= fence then return -1 end
local new = GENERATION .. fence
if redis.pcall('HLEN', new) ~= tonumber(size) then return -2 end
local number, revision = find_inventory()
if number then
  local old = GENERATION .. number
  expect('zset', TOUCHED)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', TOUCHED, fence, '+inf')) do
    local value = redis.call('HGET', old, id)
    if value then redis.call('HSET', new, id, value) else redis.call('HDEL', new, id) end
  end
  redis.call('EXPIRE', old, grace_seconds)
  redis.call('DEL', BODY .. number .. ':' .. revision)
else
  -- The touched instances belonged to an inventory that is lost.
  redis.call('DEL', TOUCHED)
end
redis.call('SET', CURRENT, fence)
next_number(REVISION)
note_success(fence, as_of, trigger, fence, moving)
return 1
