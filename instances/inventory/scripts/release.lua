-- Release the lease. Returns 1; 0 when it is no longer this owner's.
-- keys: LEASE
-- args: token

return get(LEASE) == token and redis.call('DEL', LEASE) or 0
