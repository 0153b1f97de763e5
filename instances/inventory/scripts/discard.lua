-- Discard a generation that can't be read. Returns 1; 0 when another generation or revision has taken its place.
-- keys: CURRENT REVISION GENERATION BODY
-- args: generation revision grace_seconds

if get(CURRENT) ~= generation or get(REVISION) ~= revision then return 0 end
redis.call('DEL', CURRENT, BODY .. generation .. ':' .. revision)
redis.call('EXPIRE', GENERATION .. generation, grace_seconds)
return 1
