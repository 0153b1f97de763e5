"""The scripts that read and write the copy. Redis runs each of them whole, so that nobody sees a half of what it does.

All of them take the same keys in the same order. `cache` says what they are for.
"""

from typing import Final

from instances import redis_client as keys

# The format of what is stored. Count it up when an older version could not read it; a new field of an instance that
# has a default needs no new number. A copy of another format counts as none.
FORMAT: Final = 2
WORKER_SECONDS: Final = 15

KEYS: Final = [
    keys.CURRENT,
    keys.REVISION,
    keys.SYNC,
    keys.TOUCHED,
    keys.MOVING,
    keys.LEASE,
    keys.FENCE,
    keys.MOVING_TURN,
    keys.WORKER,
    keys.GENERATION,
    keys.BODY,
]

# `find_copy` returns nothing where a part of the copy is missing or damaged. What is damaged in SYNC, TOUCHED or MOVING
# makes room for the next write.
_SHARED: Final = f"""
local CURRENT, REVISION, SYNC, TOUCHED, MOVING, LEASE, FENCE, TURN, WORKER, GENERATION, BODY = unpack(KEYS)
local FORMAT, LEASE_MS = '{FORMAT}', {keys.LEASE_SECONDS * 1000}
local TURN_MS, WORKER_MS = {keys.TURN_SECONDS * 1000}, {WORKER_SECONDS * 1000}
local function get_note(field) return whole(redis.pcall('HGET', SYNC, field)) end
local function keep(number)
  for _, key in ipairs({{CURRENT, REVISION, SYNC, TOUCHED, MOVING, FENCE, GENERATION .. number}}) do
    redis.pcall('EXPIRE', key, KEEP)
  end
end
local function find_copy()
  local number, revision = get(CURRENT), get(REVISION)
  if not whole(number) or not whole(revision) or not get_note('as_of') then return nil end
  if redis.pcall('HGET', GENERATION .. number, '') ~= FORMAT then return nil end
  -- What is only read is kept as well; not written each time.
  if redis.call('TTL', CURRENT) < KEEP / 2 then keep(number) end
  return number, revision, redis.call('HGET', SYNC, 'as_of')
end
-- What a complete sync found; what an action touched since that sync began is newer.
local function note_success(number, as_of, trigger, moving, fence)
  expect('zset', TOUCHED)
  expect('set', MOVING)
  local touched = {{}}
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', TOUCHED, fence, '+inf')) do
    touched[id] = redis.call('SISMEMBER', MOVING, id)
  end
  redis.call('DEL', MOVING)
  for i = moving, #ARGV do redis.call('SADD', MOVING, ARGV[i]) end
  for id, is_moving in pairs(touched) do redis.call(is_moving == 1 and 'SADD' or 'SREM', MOVING, id) end
  local now, not_modified = string.format('%.0f', now_ms()), get_note('not_modified') or 0
  redis.call('DEL', SYNC)
  redis.call('HSET', SYNC, 'as_of', as_of, 'attempt_at', now, 'completed_at', now, 'failures', 0, 'error', '',
    'code', '', 'trigger', trigger, 'not_modified', string.format('%.0f', not_modified))
  keep(number)
end
"""

# → {now}, or {now, generation, revision, as_of, what was asked for}
READ = (
    _SHARED
    + """
local now = string.format('%.0f', now_ms())
local number, revision, as_of = find_copy()
if not number then return {now} end
local answer = {now, number, revision, as_of}
if ARGV[1] == revision then
  -- A replica, or a Redis that is full, must still be read.
  if ARGV[2] == 'body' then redis.pcall('HINCRBY', SYNC, 'not_modified', 1) end
elseif ARGV[2] == 'body' then
  answer[5] = get(BODY .. number .. ':' .. revision) or ''
elseif ARGV[2] == 'rows' then
  answer[5] = redis.call('HGETALL', GENERATION .. number)
else
  answer[5] = redis.call('HMGET', GENERATION .. number, unpack(ARGV, 3))
end
return answer
"""
)

READ_STATE = (
    _SHARED
    + """
local number, revision, as_of = find_copy()
local size = number and redis.call('HLEN', GENERATION .. number) - 1 or 0
local notes = redis.pcall('HGETALL', SYNC)
local moving = redis.pcall('SMEMBERS', MOVING)
return {string.format('%.0f', now_ms()), string.format('%.0f', next_tick(TOUCHED, FENCE)), number or '', revision or '',
  size, notes['err'] and {} or notes, moving['err'] and {} or moving, is_held(LEASE, LEASE_MS) and get(LEASE) or '',
  redis.call('PTTL', LEASE), is_held(WORKER, WORKER_MS) and 1 or 0}
"""
)

KEEP_BODY = (
    _SHARED
    + """
local number, revision = find_copy()
if revision ~= ARGV[1] then return 0 end
redis.call('SET', BODY .. number .. ':' .. revision, ARGV[2], 'EX', ARGV[3])
return 1
"""
)

_IS_OURS = "if get(LEASE) ~= ARGV[1] or get(FENCE) ~= ARGV[2] then return -1 end"

# ARGV: token, fence, as_of, trigger, size with the marker, seconds for the old generation, the ids that move
PUBLISH = (
    _SHARED
    + _IS_OURS
    + """
local new = GENERATION .. ARGV[2]
if redis.pcall('HLEN', new) ~= tonumber(ARGV[5]) then return -2 end
local number, revision = find_copy()
if number then
  local old = GENERATION .. number
  expect('zset', TOUCHED)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', TOUCHED, ARGV[2], '+inf')) do
    local value = redis.call('HGET', old, id)
    if value then redis.call('HSET', new, id, value) else redis.call('HDEL', new, id) end
  end
  redis.call('EXPIRE', old, ARGV[6])
  redis.call('DEL', BODY .. number .. ':' .. revision)
else
  -- What was touched belonged to a copy that is lost.
  redis.call('DEL', TOUCHED)
end
redis.call('SET', CURRENT, ARGV[2])
next_number(REVISION)
note_success(ARGV[2], ARGV[3], ARGV[4], 7, ARGV[2])
return 1
"""
)

# ARGV: token, fence, as_of, trigger, generation, the ids that move
NOTE_UNCHANGED = (
    _SHARED
    + _IS_OURS
    + """
if find_copy() ~= ARGV[5] then return -2 end
note_success(ARGV[5], ARGV[3], ARGV[4], 6, ARGV[2])
return 1
"""
)

NOTE_FAILURE = (
    _SHARED
    + """
expect('hash', SYNC)
local now, failures, since = now_ms(), (get_note('failures') or 0) + 1, get_note('failing_since')
local text = string.format('%.0f', now)
redis.call('HSET', SYNC, 'attempt_at', text, 'code', ARGV[1], 'error', ARGV[2], 'trigger', ARGV[3], 'failures',
  string.format('%.0f', failures))
if failures == 1 or not since or since > now then redis.call('HSET', SYNC, 'failing_since', text) end
redis.call('EXPIRE', SYNC, KEEP)
return failures
"""
)

# ARGV: id, its JSON without the end ('': remove it), the end, when its read began ('': an action), whether it moves,
# seconds for what was touched
WRITE_INSTANCE = (
    _SHARED
    + """
local number, revision = find_copy()
if not number then return 0 end
expect('zset', TOUCHED)
expect('set', MOVING)
local touched = redis.call('ZSCORE', TOUCHED, ARGV[1])
if ARGV[4] ~= '' and touched and tonumber(touched) >= tonumber(ARGV[4]) then return 0 end
local generation = GENERATION .. number
local old = redis.call('HGET', generation, ARGV[1])
local is_same = (ARGV[2] == '' and not old) or (ARGV[2] ~= '' and old and string.sub(old, 1, #ARGV[2]) == ARGV[2])
if is_same and ARGV[4] ~= '' then return 0 end
local tick = next_tick(TOUCHED, FENCE)
redis.call('ZREMRANGEBYSCORE', TOUCHED, '-inf', tick - ARGV[6] * 1000)
redis.call('ZADD', TOUCHED, string.format('%.0f', tick), ARGV[1])
if is_same then return 0 end
if ARGV[2] == '' then
  redis.call('HDEL', generation, ARGV[1])
else
  redis.call('HSET', generation, ARGV[1], ARGV[2] .. ARGV[3])
end
redis.call(ARGV[5] == '1' and 'SADD' or 'SREM', MOVING, ARGV[1])
redis.call('DEL', BODY .. number .. ':' .. revision)
next_number(REVISION)
keep(number)
return 1
"""
)

# Not the current one: the answer of the publishing may have been lost after it was done.
DROP_DRAFT = (
    _SHARED
    + """
if get(CURRENT) == ARGV[1] then return 1 end
redis.call('UNLINK', GENERATION .. ARGV[1])
return 0
"""
)

DISCARD = (
    _SHARED
    + """
if get(CURRENT) ~= ARGV[1] or get(REVISION) ~= ARGV[2] then return 0 end
redis.call('DEL', CURRENT, BODY .. ARGV[1] .. ':' .. ARGV[2])
redis.call('EXPIRE', GENERATION .. ARGV[1], ARGV[3])
return 1
"""
)

# When the last sync was stays known, and so does the revision, so that it counts up. A lock that is held stays: a sync
# is running.
CLEAR = (
    _SHARED
    + """
local number, revision, as_of = get(CURRENT), get(REVISION), get_note('as_of')
local cleared = 0
if number then
  local generation = GENERATION .. number
  local size = redis.pcall('HLEN', generation)
  if type(size) == 'number' and size > 0 then cleared = size - 1 end
  redis.call('DEL', generation, BODY .. number .. ':' .. (revision or ''))
end
redis.call('DEL', CURRENT, SYNC, TOUCHED, MOVING)
for _, key in ipairs({REVISION, FENCE}) do
  if not whole(get(key)) then redis.call('DEL', key) end
end
for key, max_ms in pairs({[LEASE] = LEASE_MS, [TURN] = TURN_MS, [WORKER] = WORKER_MS}) do
  if not is_held(key, max_ms) then redis.call('DEL', key) end
end
redis.call('HSET', SYNC, 'cleared_at', string.format('%.0f', now_ms()))
if as_of then redis.call('HSET', SYNC, 'as_of', string.format('%.0f', as_of)) end
redis.call('EXPIRE', SYNC, KEEP)
return cleared
"""
)
