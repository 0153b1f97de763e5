-- Note a failed synchronization. Returns how many have failed in a row.
-- include: inventory
-- args: code error trigger

expect('hash', SYNC)
local now, failures, since = now_ms(), (get_note('failures') or 0) + 1, get_note('failing_since')
redis.call('HSET', SYNC, 'attempt_at', text_of(now), 'code', code, 'error', error, 'trigger', trigger,
  'failures', text_of(failures))
if failures == 1 or not since or since > now then redis.call('HSET', SYNC, 'failing_since', text_of(now)) end
redis.call('EXPIRE', SYNC, KEEP_SECONDS)
return failures
