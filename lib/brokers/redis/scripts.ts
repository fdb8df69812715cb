/** The Lua scripts of the Redis broker. Redis runs each call as one step that no other command interrupts. */
import { createHash } from 'node:crypto'
import { STAMPS } from './stamp-script.ts'

/** A Lua script and its SHA1 digest, the name by which EVALSHA runs it. */
export interface Script {
  lua: string
  sha: string
}

/**
 * The beginning of every script: finds the log of a group. A log consists of the hash `meta:GROUP` (`epoch`, `offset`,
 * `server`) and the stream `log:GROUP`, whose entries have the id `offset-milliseconds`. The first script arguments are
 * a fresh epoch, key prefix, history size, history ttl and meta ttl.
 *
 * The string `epochs` provides the epochs, also for groups without a log, so that reading a position writes nothing. It
 * has a header (the server that wrote it, a base name that was never used before, and the history options) and a table
 * of one-byte counters. The next epoch of a group is the base name, the index of a counter (from the hash of the
 * group's name), and the value of that counter. A new log increments its counter, so that the group never gets the same
 * epoch again, even if its keys expire or are deleted. Two groups with the same counter change each other's next epoch;
 * clients that wait for the first message of such a group have to load again.
 *
 * A log or an `epochs` string of another server (`master_replid`) counts as missing: a Redis that was restored from
 * older data must not use an offset twice.
 */
const LOG = `
local HEADER = 128
local fresh, prefix, size, ttl, remembered = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local epochs = prefix .. 'epochs'
local server, base, others = '', nil, false

local function integer (number)
  return string.format('%.0f', number)
end

local function reason (problem)
  return type(problem) == 'table' and problem.err or tostring(problem)
end

local function identify ()
  local header = redis.pcall('GETRANGE', epochs, 0, HEADER - 1)
  if type(header) ~= 'string' then header = '' end
  -- without history in any process no log is kept
  if size == 0 and header == '' then return end
  local info = redis.pcall('INFO', 'replication')
  if type(info) == 'string' then server = string.match(info, 'master_replid:(%w+)') or '' end
  local author, name, keptSize, keptTtl = string.match(header, '^(%S+) (%S+) (%d+) (%d+) *$')
  if author ~= server then return end
  base = name
  if size == 0 then size, ttl, others = tonumber(keptSize), tonumber(keptTtl), true end
end
identify()

local function beginEpochs ()
  base = fresh
  local header = server .. ' ' .. base .. ' ' .. integer(size) .. ' ' .. integer(ttl)
  redis.call('SET', epochs, header .. string.rep(' ', HEADER - #header), 'PX', integer(ttl + remembered))
end

-- returns the next epoch of a group, and the index and value of its counter
local function nextEpoch (group)
  local place = string.sub(redis.sha1hex(group), 1, 5)
  local at = HEADER + tonumber(place, 16)
  local count = string.byte(redis.call('GETRANGE', epochs, at, at)) or 0
  return base .. '.' .. place .. count, at, count
end

-- returns the epoch and offset of a group, and whether its log is missing; nil if the string of epochs is missing too
local function find (group)
  local found = redis.call('HMGET', prefix .. 'meta:' .. group, 'epoch', 'offset', 'server')
  if found[1] and found[3] == server then return found[1], tonumber(found[2]), false end
  if not base then return end
  return nextEpoch(group), 0, true
end
`

/** Writes the string `epochs` if it is missing. */
const BEGIN = `
if not base then beginEpochs() end
return 1
`

/**
 * Publishes batches of messages. Arguments: the number of the call, the milliseconds for which Redis keeps that number,
 * the prefix of channels, and the number of clocks; then for each clock its name, a value that no state of the call is
 * below (empty if the call has an older state after a newer one), the largest value, and the states (`encodeStates`);
 * then for each batch its group, the lengths of its messages, their count, and the messages.
 *
 * Each process numbers its calls, so that Redis skips a call that is repeated after a lost connection. A failed batch
 * does not affect other groups. The reply is `1` if this process keeps history only because others do, else `0`; then
 * each failed group with the reason.
 */
const PUBLISH = `
local FIXED = 9
local now = 0
local answer, failed = { others and '1' or '0' }, {}

local last = redis.call('GET', KEYS[1])
if last then
  local number, groups = string.match(last, '^(%d+)(.*)$')
  if tonumber(number) >= tonumber(ARGV[6]) then
    for group in string.gmatch(groups, '\\n([^\\n]+)') do
      answer[#answer + 1] = group
      answer[#answer + 1] = 'Redis refused it'
    end
    return answer
  end
end
redis.call('SET', KEYS[1], ARGV[6], 'PX', ARGV[7])
if size > 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
  -- processes without history do not extend the life of the epochs
  if not others then redis.call('PEXPIRE', epochs, integer(ttl + remembered)) end
end

-- starts a new log with the next epoch of the group
local function begin (group)
  if not base then beginEpochs() end
  local epoch, at, count = nextEpoch(group)
  if count == 255 then
    beginEpochs()
    epoch, at, count = nextEpoch(group)
  end
  redis.call('SETRANGE', epochs, at, string.char(count + 1))
  redis.call('UNLINK', prefix .. 'log:' .. group)
  return epoch
end

local function keep (group, messages, first, to)
  local epoch, offset, isNew = find(group)
  local meta, log = prefix .. 'meta:' .. group, prefix .. 'log:' .. group
  if isNew ~= false then epoch, offset = begin(group), 0 end
  for n = first, to do
    redis.call('XADD', log, 'MAXLEN', size, integer(offset + 1 + n - first) .. '-' .. integer(now), 'p', messages[n])
  end
  redis.call('PEXPIRE', log, ttl)
  redis.call('HSET', meta, 'epoch', epoch, 'server', server, 'offset', integer(offset + 1 + to - first))
  redis.call('PEXPIRE', meta, integer(ttl + remembered))
  return integer(offset + 1) .. ' ' .. epoch
end

-- a process without history may publish any text, but a log contains JSON objects only
local function areObjects (messages, first, to)
  for n = first, to do
    local isObject = string.find(messages[n], '^%s*{') and string.find(string.sub(messages[n], -100), '}%s*$')
    if not isObject then return false end
  end
  return true
end

-- ends a log in which a message is missing, so that its positions can't be recovered
local function forget (group)
  begin(group)
  redis.call('UNLINK', prefix .. 'meta:' .. group)
end

local function publish (group, lengths, messages, first, to)
  if to < first then return end

  local position = '0 -'
  if size > 0 and not others then
    position = keep(group, messages, first, to)
  elseif others then
    local isKept, place = false, nil
    if areObjects(messages, first, to) then isKept, place = pcall(keep, group, messages, first, to) end
    if isKept then position = place else pcall(forget, group) end
  end
  redis.call('PUBLISH', ARGV[8] .. group, position .. ' ' .. lengths .. ' ' .. table.concat(messages, '', first, to))
end

local i = FIXED + 1 + 4 * ARGV[FIXED]
local outcome, sections = readStates(FIXED + 1, i - 1)
local memory, batch = ARGV[6], 0
while i < #ARGV do
  local group, lengths, messages, first, to = ARGV[i], ARGV[i + 1], ARGV, i + 3, i + 2 + ARGV[i + 2]
  local last = to
  local found = outcome[tostring(batch)]
  if found then
    lengths, messages = leaveOut(group, lengths, first, found)
    first, last = 1, #messages
  end
  if not failed[group] then
    local isPublished, problem = pcall(publish, group, lengths, messages, first, last)
    if not isPublished then
      failed[group] = true
      answer[#answer + 1] = group
      answer[#answer + 1] = reason(problem)
      memory = memory .. '\\n' .. group
    end
  end
  i, batch = to + 1, batch + 1
end
pcall(writeStates, sections, failed)
if #answer > 1 then redis.call('SET', KEYS[1], memory, 'PX', ARGV[7]) end
return answer
`

/**
 * Reads positions and messages, and writes nothing. Arguments: the approximate bytes and the messages of a portion, and
 * the bytes that all messages may not exceed; then for each group its name, an epoch, an offset and a limit. A limit of
 * 0 reads the position alone.
 *
 * The reply for each group: its epoch, its last offset, a state, and the messages after the offset. The state is
 * `complete` (all messages), `more` (the first ones), `gone` (a message is missing, or the epoch has changed) or
 * `failed` (followed by the reason). The reply `0` means that the string `epochs` is missing.
 */
const READ = `
local bytes, messages, cap = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local time = redis.call('TIME')
local oldest = time[1] * 1000 + math.floor(time[2] / 1000) - ttl
local given, isMissing = 0, false

local function collect (answer, log, after, top, limit)
  local at, step = after + 1, 1
  while at <= top do
    step = math.min(step, limit - #answer + 3, messages - given)
    if step <= 0 or (given > 0 and bytes <= 0) then return 'more' end
    local entries = redis.call('XRANGE', log, integer(at), '+', 'COUNT', step)
    if not entries[1] then return 'gone' end
    local first, written = string.match(entries[1][1], '^(%d+)-(%d+)$')
    local last = string.match(entries[#entries][1], '^%d+')
    local isWhole = tonumber(first) == at and tonumber(last) == at + #entries - 1
    if not isWhole or (at == after + 1 and tonumber(written) <= oldest) then return 'gone' end
    for n = 1, #entries do
      local payload = entries[n][2][2]
      local size = #payload
      -- a portion has at least one message, so that reading in portions makes progress
      if size > cap or (given > 0 and size > bytes) then return 'more' end
      bytes, cap, given, at = bytes - size, cap - size, given + 1, at + 1
      answer[#answer + 1] = payload
    end
    step = math.min(step * 2, 16)
  end
  return 'complete'
end

local function readGroup (group, asked, after, limit)
  local epoch, top = find(group)
  if not epoch then
    isMissing = true
    return {}
  end
  local answer = { epoch, integer(top), 'gone' }
  if epoch ~= asked or after > top then return answer end
  local log = prefix .. 'log:' .. group
  answer[3] = after == top and 'complete' or limit == 0 and 'more' or collect(answer, log, after, top, limit)
  return answer
end

local answers = {}
for i = 9, #ARGV, 4 do
  local isRead, answer = pcall(readGroup, ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3]))
  answers[#answers + 1] = isRead and answer or { '', '0', 'failed', reason(answer) }
end
if isMissing then return 0 end
return answers
`

/** Publishes messages, and appends them to the logs of groups with history. */
export const publish = script(LOG + STAMPS + PUBLISH)

/** Reads positions and messages. */
export const read = script(LOG + READ)

/** Prepares the epochs of groups. */
export const begin = script(LOG + BEGIN)

function script (lua: string): Script {
  return { lua, sha: createHash('sha1').update(lua).digest('hex') }
}
