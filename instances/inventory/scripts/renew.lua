-- Renew the lease. Returns 1; 0 when it is no longer this owner's.
-- keys: LEASE
-- constants: LEASE_SECONDS
-- args: token

return get(LEASE) == token and redis.call('EXPIRE', LEASE, LEASE_SECONDS) or 0
