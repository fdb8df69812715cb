/** The Lua scripts of the Redis broker. Redis runs each call as one step that no other command interrupts. */
import { createHash } from 'node:crypto'

/** A script, and the name by which Redis knows it. */
export interface Script {
  lua: string
  sha: string
}

/**
 * Finding a group's log: the hash `meta:GROUP` (`epoch`, `offset`, `server`) and the stream `log:GROUP` with an entry `offset-milliseconds` for each
 * message. Every script begins with it and takes the arguments of `scriptArguments` first.
 *
 * The string `epochs` makes epochs, for groups without a log too, so that reading a position writes nothing. It has a header (the server that wrote
 * it, a base name that was never used before, and the history options) and a table of counters of one byte. The epoch of the next log of a group is
 * the base name, the place of the counter that the hash of the group's name selects, and the counter. The log that takes this epoch increments the
 * counter, so the same group is never given this epoch again, even when its keys expire or are deleted. Groups that share a counter only change each
 * other's next epoch, which costs clients that wait for the first message a reload.
 *
 * A log or an `epochs` of another server (`master_replid`) counts as missing: a Redis that came back with older data must not give an offset twice.
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
  -- a sender without history has nothing to do where nobody keeps any
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

-- the next epoch of a group, and the place of its counter and what that counts
local function nextEpoch (group)
  local place = string.sub(redis.sha1hex(group), 1, 5)
  local at = HEADER + tonumber(place, 16)
  local count = string.byte(redis.call('GETRANGE', epochs, at, at)) or 0
  return base .. '.' .. place .. count, at, count
end

-- the epoch and offset of a group, and whether it has no log; nothing if there is no base for epochs either
local function find (group)
  local found = redis.call('HMGET', prefix .. 'meta:' .. group, 'epoch', 'offset', 'server')
  if found[1] and found[3] == server then return found[1], tonumber(found[2]), false end
  if not base then return end
  return nextEpoch(group), 0, true
end
`

/** Makes sure that there is a base for epochs. */
const BEGIN = `
if not base then beginEpochs() end
return 1
`

/**
 * Publishes runs of messages. Arguments: the number of the call, how long Redis remembers it, and the prefix of channels; then for each run its
 * group, a head (which tells the messages apart), a count, and the messages.
 *
 * A sender numbers its calls, so that a call that is sent again after a lost connection is published once. A run that fails harms no other group. The
 * answer is `1` if the options of other processes made this one keep history, else `0`; then each group that failed, with the reason.
 */
const PUBLISH = `
local FIXED = 8
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
  -- only processes that keep history themselves keep the epochs
  if not others then redis.call('PEXPIRE', epochs, integer(ttl + remembered)) end
end

-- takes the next epoch of a group for a new log
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

local function keep (group, first, to)
  local epoch, offset, isNew = find(group)
  local meta, log = prefix .. 'meta:' .. group, prefix .. 'log:' .. group
  if isNew ~= false then epoch, offset = begin(group), 0 end
  for n = first, to do
    redis.call('XADD', log, 'MAXLEN', size, integer(offset + 1 + n - first) .. '-' .. integer(now), 'p', ARGV[n])
  end
  redis.call('PEXPIRE', log, ttl)
  redis.call('HSET', meta, 'epoch', epoch, 'server', server, 'offset', integer(offset + 1 + to - first))
  redis.call('PEXPIRE', meta, integer(ttl + remembered))
  return integer(offset + 1) .. ' ' .. epoch
end

-- what a sender without history publishes may be anything, while histories have objects only
local function areObjects (first, to)
  for n = first, to do
    if not (string.find(ARGV[n], '^%s*{') and string.find(string.sub(ARGV[n], -100), '}%s*$')) then return false end
  end
  return true
end

-- ends a log that misses a message: its positions are refused from now on
local function forget (group)
  begin(group)
  redis.call('UNLINK', prefix .. 'meta:' .. group)
end

local function publish (group, head, first, to)
  local position = '0 -'
  if size > 0 and not others then
    position = keep(group, first, to)
  elseif others then
    local isKept, place = false, nil
    if areObjects(first, to) then isKept, place = pcall(keep, group, first, to) end
    if isKept then position = place else pcall(forget, group) end
  end
  redis.call('PUBLISH', ARGV[FIXED] .. group, position .. ' ' .. head .. ' ' .. table.concat(ARGV, '', first, to))
end

local i = FIXED + 1
local memory = ARGV[6]
while i < #ARGV do
  local group, first, to = ARGV[i], i + 3, i + 2 + ARGV[i + 2]
  if not failed[group] then
    local isPublished, problem = pcall(publish, group, ARGV[i + 1], first, to)
    if not isPublished then
      failed[group] = true
      answer[#answer + 1] = group
      answer[#answer + 1] = reason(problem)
      memory = memory .. '\\n' .. group
    end
  end
  i = to + 1
end
if #answer > 1 then redis.call('SET', KEYS[1], memory, 'PX', ARGV[7]) end
return answer
`

/**
 * Reads positions and messages, and writes nothing. Arguments: about how many bytes and how many messages to give, and the bytes that no message may
 * exceed; then for each group its name, an epoch, an offset and a limit. A limit of 0 asks for the position alone.
 *
 * The answer for each group: its epoch, its last offset, a state, and the messages after the offset. The state is `complete` (these are all), `more` (there
 * are more), `gone` (a message is missing, or the epoch is another one) or `failed` (the third field after it is the reason). `0` in place of the answers
 * says that there is no base for epochs.
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
      -- the first message is given in any case, so that whoever reads in portions gets on
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
  answer[3] = after == top and 'complete' or limit == 0 and 'more' or collect(answer, prefix .. 'log:' .. group, after, top, limit)
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

/** Publishes, and keeps what is published where history is kept. */
export const publish = script(LOG + PUBLISH)

/** Reads positions and messages. */
export const read = script(LOG + READ)

/** Makes epochs possible. */
export const begin = script(LOG + BEGIN)

function script (lua: string): Script {
  return { lua, sha: createHash('sha1').update(lua).digest('hex') }
}
