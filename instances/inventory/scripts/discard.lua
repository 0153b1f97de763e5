-- Discard a generation that can't be read. Returns 1; 0 when another generation or revision has taken its place.
-- keys: CURRENT REVISION GENERATION BODY
-- args: generation revision

if get(CURRENT) ~= generation or get(REVISION) ~= revision then return 0 end
redis.call('UNLINK', CURRENT, GENERATION .. generation, BODY .. generation .. ':' .. revision)
return 1
