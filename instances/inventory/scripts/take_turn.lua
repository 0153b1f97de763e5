-- Take the turn to read the moving instances. Returns 1; 0 when another process has it.
-- keys: MOVING_TURN
-- constants: TURN_SECONDS
-- args: owner

if is_held(MOVING_TURN, TURN_SECONDS * 1000) then return 0 end
redis.call('SET', MOVING_TURN, owner, 'EX', TURN_SECONDS)
return 1
