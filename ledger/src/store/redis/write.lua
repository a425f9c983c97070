#!lua
-- Writes what a command came to, unless what it was decided on is not so any more. Money is
-- written as differences, each result within its bounds, so that requests which spend meanwhile
-- do not stand in the way.
-- KEYS: bucket, book, entries, due, usage, answer, payers
-- ARGV: one JSON document; every integer in it is text
-- Answers {LOST} | {DONE, answer} | {RETRY} | {OK, seq, available}
local call, number, format = redis.call, tonumber, string.format
local bucket, book = KEYS[1], KEYS[2]
local MAX = 9007199254740991
local doc = cjson.decode(ARGV[1])

if call('HGET', bucket, 'epoch') ~= doc.epoch then return {'LOST'} end
local answer = call('GET', KEYS[6])
if answer then return {'DONE', answer} end
if (call('HGET', book, 'v') or '0') ~= doc.version then return {'RETRY'} end
local entry, home = doc.entry, nil
if entry then
  home = entry.home == 'r' and bucket or KEYS[3]
  if (call('HGET', home, entry.field) or '') ~= entry.old then return {'RETRY'} end
end

-- Scripts do not roll back: all sums are judged, and all keys are looked at, before the first write.
for i = 3, 5, 2 do call('HLEN', KEYS[i]) end
call('ZCARD', KEYS[4])
call('SCARD', KEYS[7])
local new = {}
for _, change in ipairs(doc.money) do
  local sum = number(call('HGET', book, change[1]) or '0') + number(change[2])
  if sum > MAX or sum < -MAX then return {'RETRY'} end
  new[change[1]] = sum
end
for _, guard in ipairs(doc.guards) do
  local sum = 0
  for _, field in ipairs(guard.fields) do
    sum = sum + (new[field] or number(call('HGET', book, field) or '0'))
  end
  if sum < number(guard.min) or sum > number(guard.max) then return {'RETRY'} end
end

for _, change in ipairs(doc.money) do call('HINCRBY', book, change[1], change[2]) end
for _, set in ipairs(doc.set) do call('HSET', book, set[1], set[2]) end
for _, field in ipairs(doc.unset) do call('HDEL', book, field) end
if doc.bump then call('HINCRBY', book, 'v', 1) end
if number(doc.at) > number(call('HGET', book, 'l') or '0') then call('HSET', book, 'l', doc.at) end
local seq = call('HINCRBY', book, 'q', doc.steps)
if seq == number(doc.steps) then call('SADD', KEYS[7], doc.payer) end
if entry then
  if entry.new == '' then call('HDEL', home, entry.field) else call('HSET', home, entry.field, entry.new) end
end
for _, due in ipairs(doc.due) do
  if due[2] == '' then call('ZREM', KEYS[4], due[1]) else call('ZADD', KEYS[4], due[2], due[1]) end
end
for _, row in ipairs(doc.usage) do
  call('HINCRBY', KEYS[5], row[1], row[2])
  call('EXPIRE', KEYS[5], 8467200)
end
local available = ''
if doc.account then available = call('HGET', book, doc.account .. '.a') or '0' end
-- A repeat of this operation finds its answer: outcome, at, seq, available.
call('SET', KEYS[6], doc.answer .. '\n' .. doc.at .. '\n' .. format('%d', seq) .. '\n' .. available, 'PX', 600000)
return {'OK', seq, available}
