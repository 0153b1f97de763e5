-- Make the generation that was written aside the current one. Its number is the fence of the lease.
-- Returns {outcome, text, carried}. The outcome is 1 with the new revision; 0 with the tick from which to go on, when
-- more is to be carried over: call again; -1 when the lease is lost, or was given by another server; -2 when the
-- generation is incomplete.
-- `size` counts the instances and the format's field.
-- include: inventory
-- keys: LEASE BODY
-- args: token fence lease_history as_of trigger size since

if get(LEASE) ~= token or get(FENCE) ~= fence or history() ~= lease_history then return {-1, '', 0} end
local new = GENERATION .. fence
if since == fence and redis.pcall('HLEN', new) ~= tonumber(size) then return {-2, '', 0} end
local number, revision = find_inventory()
local count = 0
if number then
  local rest
  count, rest = carry_over(GENERATION .. number, new, fence, since)
  if rest then return {0, rest, count} end
  -- A reader in the middle of the old generation notices, and begins again.
  redis.call('UNLINK', GENERATION .. number, BODY .. number .. ':' .. revision)
else
  -- The touched instances belonged to an inventory that is lost.
  redis.call('DEL', TOUCHED)
end
redis.call('SET', CURRENT, fence)
local new_revision = next_number(REVISION)
note_success(fence, as_of, trigger, fence)
return {1, new_revision, count}
