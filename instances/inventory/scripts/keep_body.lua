-- Keep the rendered answer of a revision. Returns 1; 0 when that revision is no longer the current one.
-- include: inventory
-- keys: BODY
-- args: rendered_revision body seconds

local number, revision = find_inventory()
if revision ~= rendered_revision then return 0 end
redis.call('SET', BODY .. number .. ':' .. revision, body, 'EX', seconds)
return 1
