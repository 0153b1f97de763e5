-- What the scripts of the inventory share. `redis_client` describes the keys.
-- keys: CURRENT REVISION SYNC TOUCHED MOVING FENCE GENERATION
-- constants: FORMAT ROWS_AT_ONCE DRAFT_SECONDS

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

-- Return an instance that a synchronization found, with the owner and the project of the stored one. Where the facts are
-- the same, the stored one has the later price, too.
local function merge(found, stored)
  local PARTS = '^(.-)(,"pricePerHour":.-)(,"owner":.*)(,"changedAt":"[^"]*"})$'
  local facts, price, _, ending = string.match(found, PARTS)
  local stored_facts, _, labels = string.match(stored, PARTS)
  if not facts or not stored_facts then return found end
  if facts == stored_facts then return stored end
  return facts .. price .. labels .. ending
end

-- Carry over what was written to the current generation since a tick: it is newer than what the synchronization found.
-- With half a tick, only price, owner and project are.
-- `new` is the generation that was written aside, or nil if the old one stays. Returns how many instances were carried
-- over, and the tick from which to go on when there are more.
local function carry_over(old, new, fence, since)
  expect('zset', TOUCHED)
  expect('set', MOVING)
  local draft = MOVING .. ':' .. fence
  local touched = redis.call('ZRANGEBYSCORE', TOUCHED, since, '+inf', 'WITHSCORES', 'LIMIT', 0, ROWS_AT_ONCE)
  for i = 1, #touched, 2 do
    local id = touched[i]
    local value = new and redis.call('HGET', old, id)
    if tonumber(touched[i + 1]) % 1 ~= 0 then
      local found = new and redis.call('HGET', new, id)
      if value and found then redis.call('HSET', new, id, merge(found, value)) end
    else
      if value then redis.call('HSET', new, id, value) elseif new then redis.call('HDEL', new, id) end
      redis.call(redis.call('SISMEMBER', MOVING, id) == 1 and 'SADD' or 'SREM', draft, id)
    end
  end
  redis.call('EXPIRE', draft, DRAFT_SECONDS)
  local count = #touched / 2
  return count, count == ROWS_AT_ONCE and touched[#touched] or nil
end

-- Note a complete synchronization. The ids of the moving instances were written aside.
local function note_success(number, as_of, trigger, fence)
  local draft = MOVING .. ':' .. fence
  redis.call('UNLINK', MOVING)
  if redis.call('EXISTS', draft) == 1 then redis.call('RENAME', draft, MOVING) end
  local now, not_modified = text_of(now_ms()), get_note('not_modified') or 0
  redis.call('DEL', SYNC)
  redis.call('HSET', SYNC, 'as_of', as_of, 'attempt_at', now, 'completed_at', now, 'failures', 0, 'error', '',
    'code', '', 'trigger', trigger, 'not_modified', text_of(not_modified))
  keep(number)
end
