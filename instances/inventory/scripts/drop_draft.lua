-- Delete a generation that was written aside. Returns 0; 1 when it is the current one, and stays: it was published, and
-- only Redis's answer was lost.
-- keys: CURRENT GENERATION MOVING
-- args: fence

if get(CURRENT) == fence then return 1 end
redis.call('UNLINK', GENERATION .. fence, MOVING .. ':' .. fence)
return 0
