-- Read the instances that were written into a generation since a tick, ROWS_AT_ONCE at most.
-- Returns {} when that generation is not the current one, or the server has another history; otherwise {now, revision,
-- as_of, size, tick, ids, values}: the tick from which to go on, or "" when these were all. `size` counts the instances
-- and the format's field.
-- include: inventory
-- args: generation since read_history

local now = text_of(now_ms())
local number, revision, as_of = find_inventory()
if number ~= generation or history() ~= read_history then return {} end
local touched = redis.pcall('ZRANGEBYSCORE', TOUCHED, since, '+inf', 'WITHSCORES', 'LIMIT', 0, ROWS_AT_ONCE)
local ids, values, rest = {}, {}, ''
for i = 1, #touched, 2 do ids[#ids + 1] = touched[i] end
if #ids > 0 then values = redis.call('HMGET', GENERATION .. number, unpack(ids)) end
if #ids == ROWS_AT_ONCE then rest = touched[#touched] end
return {now, revision, as_of, redis.call('HLEN', GENERATION .. number), rest, ids, values}
