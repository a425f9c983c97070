#!lua
-- Reads what a command is decided on.
-- KEYS: bucket, book, entries, answer
-- ARGV: epoch, where the entry is ('r' bucket, 'e' entries, '' none), its field
-- Answers {LOST} | {DONE, answer}: this operation was written before | {OK, now ms, head fields, entry or ''}
local call = redis.call
if call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return {'LOST'} end
local answer = call('GET', KEYS[4])
if answer then return {'DONE', answer} end
local entry = ''
if ARGV[2] ~= '' then
  entry = call('HGET', ARGV[2] == 'r' and KEYS[1] or KEYS[3], ARGV[3]) or ''
end
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
return {'OK', now, call('HGETALL', KEYS[2]), entry}
