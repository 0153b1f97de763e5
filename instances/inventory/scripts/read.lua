-- Read the inventory. `what` is "body" (the rendered answer), "rows" (all instances) or "some" (those of the ids).
-- Returns {now}, or {now, generation, revision, as_of} and what was read: unless the calling process knows the revision,
-- or the reader whom it answers has it. In place of too many rows it is the tick of this moment: the reader scans the
-- generation, then calls `read_changes`.
-- include: inventory
-- keys: BODY
-- args: known_revision reader_revision what ids...

local now = text_of(now_ms())
local number, revision, as_of = find_inventory()
if not number then return {now} end
local answer = {now, number, revision, as_of}
if reader_revision == revision then
  -- A replica, or a Redis that is full, can be read all the same.
  redis.pcall('HINCRBY', SYNC, 'not_modified', 1)
elseif known_revision == revision then
  return answer
elseif what == 'body' then
  answer[5] = get(BODY .. number .. ':' .. revision) or ''
elseif what == 'some' then
  answer[5] = redis.call('HMGET', GENERATION .. number, unpack(ids))
elseif redis.call('HLEN', GENERATION .. number) > ROWS_AT_ONCE then
  answer[5] = text_of(next_tick(TOUCHED, FENCE))
else
  answer[5] = redis.call('HGETALL', GENERATION .. number)
end
return answer
