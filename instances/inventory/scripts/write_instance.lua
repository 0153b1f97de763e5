-- Write one instance into the current generation, or remove it. Returns 1 for a visible change, otherwise 0.
-- `facts`, `additions` and `ending` are the parts of the instance's JSON (see encoding.py); empty `facts` remove it. Owner and
-- project stay as they are stored, and so does the price when `additions` have none; the cost then is that price, or
-- `other_cost` where the status makes it another one.
-- `read_began` is the tick at which the read began, and empty for an action. A read never replaces a later write.
-- include: inventory
-- keys: BODY
-- args: id facts additions other_cost ending read_began is_moving touched_seconds

local PRICE = ',"pricePerHour":([^,]*),"costPerHour":([^,]*),"priceSource":([^,]*),"prepaid":([^,]*)'
local LABELS = '(,"owner":.*)'

-- Return the additions to store, with what the stored ones have and the new ones lack.
local function complete(new, old)
  local price, cost, source, prepaid, labels = string.match(new, PRICE .. LABELS .. '$')
  local old_price, _, old_source, _, old_labels = string.match(old, PRICE .. LABELS .. ',"changedAt":"[^"]*"}$')
  if not old_price then return new end
  if price == 'null' then
    price, source = old_price, old_source
    cost = other_cost ~= '' and other_cost or price
  end
  return ',"pricePerHour":' .. price .. ',"costPerHour":' .. cost .. ',"priceSource":' .. source
    .. ',"prepaid":' .. prepaid .. old_labels
end

local number, revision = find_inventory()
if not number then return 0 end
expect('zset', TOUCHED)
expect('set', MOVING)
local touched = redis.call('ZSCORE', TOUCHED, id)
if read_began ~= '' and touched and tonumber(touched) >= tonumber(read_began) then return 0 end
local generation = GENERATION .. number
local old = redis.call('HGET', generation, id)
local encoded = facts
if facts ~= '' then encoded = facts .. (old and complete(additions, old) or additions) end
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
