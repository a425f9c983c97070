#!lua
-- Reads a whole book in one moment.
-- KEYS: bucket, book, entries, and the usage of each week. ARGV: epoch
-- Answers {LOST} | {OK, head fields, entries, all reservations of the bucket, usage rows}
local call = redis.call
if call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return {'LOST'} end
local usage = {}
for i = 4, #KEYS do
  for _, text in ipairs(call('HGETALL', KEYS[i])) do usage[#usage + 1] = text end
end
return {'OK', call('HGETALL', KEYS[2]), call('HGETALL', KEYS[3]), call('HGETALL', KEYS[1]), usage}
