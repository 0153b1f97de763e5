-- Note that a complete synchronization found no difference from a generation.
-- Returns 1; -1 when the lease is lost; -2 when the generation is no longer the current one.
-- include: inventory
-- keys: LEASE
-- args: token fence as_of trigger generation moving...

if get(LEASE) ~= token or get(FENCE) ~= fence then return -1 end
if find_inventory() ~= generation then return -2 end
note_success(generation, as_of, trigger, fence, moving)
return 1
