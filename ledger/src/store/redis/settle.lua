#!lua
-- Ends reservations: what was used is spent, the rest returns. Entries do not disturb each other.
-- KEYS: for each entry: bucket, book, usage, answer
-- ARGV: epoch, week; for each entry: entry (<payer>:<reservation>), route, spent. A release is '', '0'
-- Answers a list, for each entry {name, at, seq, number?}: SETTLED available | EXPIRED | RANGE | WEEK;
-- {SLOW} alone: the machine must decide; {LOST} alone.
-- WEEK: nothing was written, the usage key is not the one for this `at`; repeat with week = floor(at / 604800000).
local call, number, format, match = redis.call, tonumber, string.format, string.match
local KEYS, ARGV = KEYS, ARGV
local MAX = 9007199254740991
local count = #KEYS / 4
local week, epoch = number(ARGV[2]), ARGV[1]

-- Scripts do not roll back: arguments are judged before the first write.
if not week or format('%d', week) ~= ARGV[2] or #ARGV ~= 2 + 3 * count then
  return redis.error_reply('ERR settle: arguments')
end
local totals = {}
for i = 1, count do
  local text = ARGV[3 * i + 2]
  local spent = number(text)
  if not spent or format('%d', spent) ~= text then
    return redis.error_reply('ERR settle: not a canonical integer')
  end
  totals[i] = spent
end

local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function settle(i)
  local k = 4 * i - 3
  local bucket, book, entry, spent = KEYS[k], KEYS[k + 1], ARGV[3 * i], totals[i]
  local found = call('HMGET', bucket, 'epoch', entry)
  if found[1] ~= epoch then return {'LOST'} end

  local open = found[2]
  if not open then
    local stored = call('GET', KEYS[k + 3])
    if stored then
      local a, at, seq = match(stored, '^(%S+) (%S+) (%S+)$')
      if not a then return {'SLOW'} end -- the machine did it
      return {'SETTLED', number(at), number(seq), number(a)}
    end
    local head = call('HMGET', book, 'q', 'l')
    local last = number(head[2] or 0)
    return {'EXPIRED', last > now and last or now, number(head[1] or 0)}
  end

  if string.byte(open) == 123 then return {'SLOW'} end
  local cur, amount, due, credential = match(open, '^(%S+) (%S+) (%S+) %S+ (%S+)$')
  amount = number(amount)
  local A, R, S = cur .. '.a', cur .. '.r', cur .. '.s'
  local issued, head
  if credential ~= '-' then
    issued = 'c' .. credential
    head = call('HMGET', book, 'q', 'l', A, R, S, issued .. '.r', issued .. '.s', issued .. '.l')
    if not head[8] then issued = nil end
  else
    head = call('HMGET', book, 'q', 'l', A, R, S)
  end
  local seq, at = number(head[1] or 0), now
  if head[2] then
    local last = number(head[2])
    if last > at then at = last end
  end

  local late = at >= number(due)
  if late then spent = 0 end
  local back = amount - spent
  local available, held, total = number(head[3] or 0) + back, number(head[4] or 0) - amount, number(head[5] or 0) + spent
  if spent < 0 or back < 0 or available > MAX or held < -MAX or total > MAX then
    return {'RANGE', at, seq}
  end
  if spent > 0 and math.floor(at / 604800000) ~= week then return {'WEEK', at, seq} end

  -- First what can fail: scripts do not roll back.
  if not late and spent > 0 then
    local usage = KEYS[k + 2]
    local field = format('%d|%s|%s', math.floor(at / 3600000), cur, ARGV[3 * i + 1])
    if call('HINCRBY', usage, field, ARGV[3 * i + 2]) == spent then call('EXPIRE', usage, 8467200) end
  end

  -- Text made here ('%d' is exact within MAX): a number given to call is formatted as a double, which costs more.
  seq = seq + 1
  if issued then
    local aside, gone = number(head[6] or 0) - amount, number(head[7] or 0) + spent
    call('HSET', book, 'q', format('%d', seq), 'l', format('%d', at), A, format('%d', available), R, format('%d', held), S, format('%d', total), issued .. '.r', format('%d', aside), issued .. '.s', format('%d', gone))
  else
    call('HSET', book, 'q', format('%d', seq), 'l', format('%d', at), A, format('%d', available), R, format('%d', held), S, format('%d', total))
  end
  call('HDEL', bucket, entry)
  if late then return {'EXPIRED', at, seq} end
  call('SET', KEYS[k + 3], format('%d %d %d', available, at, seq), 'PX', 60000)
  return {'SETTLED', at, seq, available}
end

local answers = {}
for i = 1, count do answers[i] = settle(i) end
return answers
