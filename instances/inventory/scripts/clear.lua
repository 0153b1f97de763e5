-- Delete the inventory and every damaged value. Returns how many instances the inventory had.
-- The time of the last synchronization stays, and so does the revision, which must only grow. A lease in force stays: a
-- synchronization is running.
-- include: inventory
-- keys: LEASE MOVING_TURN BODY worker
-- constants: LEASE_SECONDS TURN_SECONDS WORKER_SECONDS

local number, revision, as_of = get(CURRENT), get(REVISION), get_note('as_of')
local cleared = 0
if number then
  local generation = GENERATION .. number
  local size = redis.pcall('HLEN', generation)
  if type(size) == 'number' and size > 0 then cleared = size - 1 end
  redis.call('UNLINK', generation, BODY .. number .. ':' .. (revision or ''))
end
redis.call('DEL', CURRENT, SYNC, TOUCHED, MOVING)
for _, key in ipairs({REVISION, FENCE}) do
  if not whole(get(key)) then redis.call('DEL', key) end
end
for key, seconds in pairs({[LEASE] = LEASE_SECONDS, [MOVING_TURN] = TURN_SECONDS, [worker] = WORKER_SECONDS}) do
  if not is_held(key, seconds * 1000) then redis.call('DEL', key) end
end
redis.call('HSET', SYNC, 'cleared_at', text_of(now_ms()))
if as_of then redis.call('HSET', SYNC, 'as_of', text_of(as_of)) end
redis.call('EXPIRE', SYNC, KEEP_SECONDS)
return cleared
