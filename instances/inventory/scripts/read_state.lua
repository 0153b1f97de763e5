-- Read what is known of the inventory without its instances.
-- Returns {now, tick, generation or "", revision or "", size, notes, some moving ids, lease or "", its PTTL, has_worker}.
-- include: inventory
-- keys: LEASE worker
-- constants: LEASE_SECONDS WORKER_SECONDS

local number, revision = find_inventory()
local size = number and redis.call('HLEN', GENERATION .. number) - 1 or 0
local notes = redis.pcall('HGETALL', SYNC)
local moving = redis.pcall('SRANDMEMBER', MOVING, ROWS_AT_ONCE)
return {
  text_of(now_ms()),
  text_of(next_tick(TOUCHED, FENCE)),
  number or '',
  revision or '',
  size,
  notes['err'] and {} or notes,
  moving['err'] and {} or moving,
  is_held(LEASE, LEASE_SECONDS * 1000) and get(LEASE) or '',
  redis.call('PTTL', LEASE),
  is_held(worker, WORKER_SECONDS * 1000) and 1 or 0,
}
