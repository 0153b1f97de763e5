-- Read the inventory. `what` is "body" (the rendered answer with the `fields`), "rows" (all instances) or "some". `asked`
-- has the ids of some instances, or the revisions that the readers of the rendered answer have.
-- Returns {now}, or {now, generation, revision, as_of} and what was read: unless the calling process knows the revision,
-- or every reader has it. In place of too many rows it is the tick of this moment and the server's history: the reader
-- scans the generation, then calls `read_changes`.
-- include: inventory
-- keys: BODY
-- args: known_revision what fields asked...

local now = text_of(now_ms())
local number, revision, as_of = find_inventory()
if not number then return {now} end
local answer = {now, number, revision, as_of}
local not_modified = 0
if what == 'body' then
  for _, known in ipairs(asked) do
    if known == revision then not_modified = not_modified + 1 end
  end
  -- A replica, or a Redis that is full, can be read all the same.
  if not_modified > 0 then redis.pcall('HINCRBY', SYNC, 'not_modified', not_modified) end
end
if known_revision == revision or (what == 'body' and not_modified == #asked) then
  return answer
elseif what == 'body' then
  local body = redis.pcall('HGET', BODY .. number .. ':' .. revision, fields)
  answer[5] = type(body) == 'string' and body or ''
elseif what == 'some' then
  answer[5] = redis.call('HMGET', GENERATION .. number, unpack(asked))
elseif redis.call('HLEN', GENERATION .. number) > ROWS_AT_ONCE then
  answer[5] = text_of(next_tick(TOUCHED, FENCE)) .. ' ' .. history()
else
  answer[5] = redis.call('HGETALL', GENERATION .. number)
end
return answer
