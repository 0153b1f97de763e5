-- Keep the rendered answer of a revision with some fields. Returns 1; 0 when that revision is no longer the current one,
-- or has KEPT_BODIES already.
-- include: inventory
-- keys: BODY
-- args: rendered_revision fields body seconds
-- constants: KEPT_BODIES

local number, revision = find_inventory()
if revision ~= rendered_revision then return 0 end
local key = BODY .. number .. ':' .. revision
expect('hash', key)
if redis.call('HLEN', key) >= KEPT_BODIES and not redis.call('HGET', key, fields) then return 0 end
redis.call('HSET', key, fields, body)
redis.call('EXPIRE', key, seconds)
return 1
