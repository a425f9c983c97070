#!lua
-- Adds to what was counted in a sliding window, unless the total would be above a limit.
-- KEYS: counter
-- ARGV: seconds of a slot, slots, amount (negative: it is given back), limit
-- Answers {OK, total} | {FULL, total}
local call, number = redis.call, tonumber
local counter, length, slots = KEYS[1], number(ARGV[1]), number(ARGV[2])
local amount, limit = number(ARGV[3]), number(ARGV[4])
local now = math.floor(call('TIME')[1] / length)

local total, over = 0, {}
local fields = call('HGETALL', counter)
for i = 1, #fields, 2 do
  if number(fields[i]) < now - slots then over[#over + 1] = fields[i] else total = total + number(fields[i + 1]) end
end
if amount > 0 and total + amount > limit then return {'FULL', total} end
if amount == 0 then return {'OK', total} end
for _, slot in ipairs(over) do call('HDEL', counter, slot) end
call('HINCRBY', counter, string.format('%d', now), ARGV[3])
call('EXPIRE', counter, string.format('%d', length * (slots + 1)))
return {'OK', total + amount}
