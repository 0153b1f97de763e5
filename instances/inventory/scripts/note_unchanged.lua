-- Note that a complete synchronization found no difference from a generation.
-- Returns {outcome, text, carried}, as `publish` does; the outcome is -2 when the generation is no longer the current
-- one.
-- include: inventory
-- keys: LEASE
-- args: token fence lease_history as_of trigger generation since

if get(LEASE) ~= token or get(FENCE) ~= fence or history() ~= lease_history then return {-1, '', 0} end
local number, revision = find_inventory()
if number ~= generation then return {-2, '', 0} end
local count, rest = carry_over(GENERATION .. number, nil, fence, since)
if rest then return {0, rest, count} end
note_success(generation, as_of, trigger, fence)
return {1, revision, count}
