-- What the scripts of the inventory share. `redis_client` describes the keys.
-- keys: CURRENT REVISION SYNC TOUCHED MOVING FENCE GENERATION
-- constants: FORMAT

local function get_note(field) return whole(redis.pcall('HGET', SYNC, field)) end

local function keep(number)
  for _, key in ipairs({CURRENT, REVISION, SYNC, TOUCHED, MOVING, FENCE, GENERATION .. number}) do
    redis.pcall('EXPIRE', key, KEEP_SECONDS)
  end
end

-- Return the generation, the revision and the time of the read; nothing where a part is missing, damaged or of another
-- format.
local function find_inventory()
  local number, revision = get(CURRENT), get(REVISION)
  if not whole(number) or not whole(revision) or not get_note('as_of') then return nil end
  if redis.pcall('HGET', GENERATION .. number, '') ~= tostring(FORMAT) then return nil end
  -- An inventory that is only read is kept, too, without a write for each read.
  if redis.call('TTL', CURRENT) < KEEP_SECONDS / 2 then keep(number) end
  return number, revision, redis.call('HGET', SYNC, 'as_of')
end

-- Note a complete synchronization. An instance that an action touched since then is newer than what the synchronization
-- found.
local function note_success(number, as_of, trigger, fence, moving)
  expect('zset', TOUCHED)
  expect('set', MOVING)
  local touched = {}
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', TOUCHED, fence, '+inf')) do
    touched[id] = redis.call('SISMEMBER', MOVING, id)
  end
  redis.call('DEL', MOVING)
  for _, id in ipairs(moving) do redis.call('SADD', MOVING, id) end
  for id, is_moving in pairs(touched) do redis.call(is_moving == 1 and 'SADD' or 'SREM', MOVING, id) end
  local now, not_modified = text_of(now_ms()), get_note('not_modified') or 0
  redis.call('DEL', SYNC)
  redis.call('HSET', SYNC, 'as_of', as_of, 'attempt_at', now, 'completed_at', now, 'failures', 0, 'error', '',
    'code', '', 'trigger', trigger, 'not_modified', text_of(not_modified))
  keep(number)
end
