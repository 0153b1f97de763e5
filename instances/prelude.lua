-- What every script can use.
-- constants: KEEP_SECONDS MAX_NUMBER
--
-- A key may hold what another program or another version wrote. `get` and `whole` return nil for such a value, and
-- `expect` deletes it where a script is about to write.

-- Redis's own clock: the clocks of the hosts differ, and people see the ages.
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Without an exponent, which Lua writes for large numbers.
local function text_of(number) return string.format('%.0f', number) end

local function get(key)
  local value = redis.pcall('GET', key)
  return type(value) == 'string' and value or nil
end

-- Return the text of a whole number as a number.
local function whole(value)
  if type(value) ~= 'string' or #value > 15 or not string.find(value, '^%d+$') then return nil end
  local number = tonumber(value)
  return number <= MAX_NUMBER and number or nil
end

-- The name of this server's history of writes. A promoted replica has another one, and so has a server that restarted:
-- either may lack the last writes that a client has seen.
local function history()
  local info = redis.pcall('INFO', 'replication')
  return type(info) == 'string' and string.match(info, 'master_replid:(%w+)') or '-'
end

-- Delete a key of another type.
local function expect(kind, key)
  local found = redis.call('TYPE', key)
  found = found['ok'] or found
  if found ~= 'none' and found ~= kind then redis.call('DEL', key) end
end

-- Whether a mark that has to expire is in force. A mark without a time to live would never expire, and a mark with too
-- long a time comes from a clock that was set back: neither counts.
local function is_held(key, max_ms)
  local left = redis.call('PTTL', key)
  return left > 0 and left <= tonumber(max_ms) and get(key) ~= nil
end

-- Count a key up, at least to `least`. It starts from the clock, so that a Redis that was emptied gives no number out
-- twice: an old ETag can't fit a new listing.
local function next_number(key, least)
  local number = math.max((whole(get(key)) or 0) + 1, now_ms(), least or 0)
  local text = text_of(number <= MAX_NUMBER and number or now_ms())
  redis.call('SET', key, text, 'EX', KEEP_SECONDS)
  return text
end

-- The order of writes and reads: later than every write so far and than the last owner of the lease, even where the
-- clock was set back.
local function next_tick(touched, fence)
  local last = redis.pcall('ZREVRANGE', touched, 0, 0, 'WITHSCORES')
  local score = tonumber(last[2]) or 0
  if not (score >= 0 and score < MAX_NUMBER) then score = 0 end
  return math.max(now_ms(), whole(get(fence)) or 0, math.floor(score) + 1)
end
