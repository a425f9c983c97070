#!lua
-- Lists what may be due in a bucket: every open reservation, and the members of `due` whose time is over.
-- KEYS: bucket, due. ARGV: epoch. Answers {LOST} | {OK, now ms, reservations, members}
local call = redis.call
if call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return {'LOST'} end
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
return {'OK', now, call('HGETALL', KEYS[1]), call('ZRANGEBYSCORE', KEYS[2], '-inf', now)}
