#!lua
-- KEYS: the budget. ARGV: the version that was read, and the sheet that is to follow it.
local version = redis.call('HGET', KEYS[1], 'version') or '0'
if version ~= ARGV[1] then
    return 0
end
redis.call('HINCRBY', KEYS[1], 'version', 1)
redis.call('HSET', KEYS[1], 'sheet', ARGV[2])
return 1
