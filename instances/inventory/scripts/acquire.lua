-- Take the lease, unless another process holds it. Returns {fence, now, history}, or {} when it is held. Repeated with the
-- same token it returns the same fence: only Redis's answer was lost.
-- The fence is above every tick so far: a synchronization carries over the instances that were touched since, and no
-- others. A damaged tick is deleted, since the fence could not exceed it.
-- keys: LEASE FENCE TOUCHED
-- constants: LEASE_SECONDS
-- args: token

if get(LEASE) == token then return {get(FENCE) or '0', text_of(now_ms()), history()} end
if is_held(LEASE, LEASE_SECONDS * 1000) then return {} end
expect('zset', TOUCHED)
redis.call('ZREMRANGEBYSCORE', TOUCHED, MAX_NUMBER, '+inf')
local number = next_number(FENCE, next_tick(TOUCHED, FENCE))
redis.call('SET', LEASE, token, 'EX', LEASE_SECONDS)
return {number, text_of(now_ms()), history()}
