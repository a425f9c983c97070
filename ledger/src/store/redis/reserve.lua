#!lua
-- Sets money aside, or says why not. Whatever is not RESERVED has written nothing.
-- KEYS: bucket, book, payers
-- ARGV: epoch, entry (<payer>:<reservation>), currency, amount, ttl ms, generation, credential number or -
-- Answers {name, at, seq, number?}: RESERVED available | LIMIT left | SHORT missing | UNAUTHORIZED | CONFLICT |
-- FROZEN | RANGE; {SLOW} alone: the machine must decide; {LOST} alone.
local call, number, format = redis.call, tonumber, string.format
local bucket, book = KEYS[1], KEYS[2]
local entry, cur, credential = ARGV[2], ARGV[3], ARGV[7]
local MAX = 9007199254740991

-- Writing an argument back must give the same text: this admits canonical integers only ('-0', '007', '1e3', 'nan' fail).
local amount, ttl = number(ARGV[4]), number(ARGV[5])
if not amount or not ttl or format('%d', amount) ~= ARGV[4] or format('%d', ttl) ~= ARGV[5]
  or ttl < 0 or ttl > MAX / 2 then
  return redis.error_reply('ERR reserve: not a canonical integer')
end

local found = call('HMGET', bucket, 'epoch', entry)
if found[1] ~= ARGV[1] then return {'LOST'} end

local A, R = cur .. '.a', cur .. '.r'
local issued = credential ~= '-'
local H, head
if issued then
  H = 'c' .. credential .. '.r'
  head = call('HMGET', book, 'q', 'l', 'g', 'z', A, R, 'c' .. credential .. '.l', H, 'c' .. credential .. '.s')
else
  head = call('HMGET', book, 'q', 'l', 'g', 'z', A, R)
end

local time = call('TIME')
local at = time[1] * 1000 + math.floor(time[2] / 1000)
local seq = number(head[1] or 0)
if head[2] then
  local last = number(head[2])
  if last > at then at = last end
end

local limit = head[7]
if (head[3] or '1') ~= ARGV[6] or (issued and not limit) then return {'UNAUTHORIZED', at, seq} end

local available, reserved = number(head[5] or 0), number(head[6] or 0)
local open = found[2]
if open then
  if string.byte(open) == 123 then return {'SLOW'} end
  local c, a, n = string.match(open, '^(%S+) (%S+) %S+ %S+ (%S+)$')
  if c == cur and a == ARGV[4] and n == credential then return {'RESERVED', at, seq, available} end
  return {'CONFLICT', at, seq}
end

if head[4] then return {'FROZEN', at, seq} end

local left, held = available - amount, reserved + amount
if amount < 0 or amount > MAX or left < -MAX or held > MAX then return {'RANGE', at, seq} end

local aside
if issued then
  aside = number(head[8] or 0) + amount
  if amount > 0 and limit ~= '*' then
    local c, most = string.match(limit, '^(.+):(%-?%d+)$')
    if c ~= cur then return {'LIMIT', at, seq, 0} end
    local unused = most - number(head[8] or 0) - number(head[9] or 0)
    if amount > unused then return {'LIMIT', at, seq, unused} end
  end
end

if left < 0 and amount > 0 then return {'SHORT', at, seq, -left} end

-- Text made here ('%d' is exact within MAX): a number given to call is formatted as a double, which costs more.
if seq == 0 then call('SADD', KEYS[3], string.sub(entry, 1, 64)) end
seq = seq + 1
if issued then
  call('HSET', book, 'q', format('%d', seq), 'l', format('%d', at), A, format('%d', left), R, format('%d', held), H, format('%d', aside), 'c' .. credential .. '.d', math.floor(at / 86400000))
else
  call('HSET', book, 'q', format('%d', seq), 'l', format('%d', at), A, format('%d', left), R, format('%d', held))
end
call('HSET', bucket, entry, format('%s %s %d %s %s', cur, ARGV[4], at + ttl, ARGV[5], credential))
return {'RESERVED', at, seq, left}
