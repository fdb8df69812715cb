/** The Lua that runs inside Redis, each time as one step that nothing comes between. */
import { createHash } from 'node:crypto'

/** A script, and the name by which Redis knows it. */
export interface Script {
  lua: string
  sha: string
}

/**
 * A group's log is a hash (`epoch`, `offset`, `server`) and a stream with an entry `offset-milliseconds` for each message. A log that another server
 * wrote, or that lost its hash, is begun anew under another epoch: a Redis that came back older would else give offsets away twice.
 */
const LOG = `
local fresh, prefix, size, ttl, metaTtl = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local server = ''
local info = redis.pcall('INFO', 'replication')
if type(info) == 'string' then server = string.match(info, 'master_replid:(%w+)') or '' end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function open (group)
  local meta, log = prefix .. 'meta:' .. group, prefix .. 'log:' .. group
  local found = redis.call('HMGET', meta, 'epoch', 'offset', 'server')
  if found[1] and found[3] == server then return meta, log, found[1], tonumber(found[2]) end
  redis.call('DEL', log)
  redis.call('HSET', meta, 'epoch', fresh, 'offset', 0, 'server', server)
  return meta, log, fresh, 0
end
`

/**
 * Publishes runs of messages: each a group, a head (what tells the messages apart) and a count, then the messages. A sender counts what it sends, so
 * that what it repeats after a lost connection is published once.
 */
const PUBLISH = (keep: string, position: string) => `
local last = redis.call('GET', KEYS[1])
if last and tonumber(last) >= tonumber(ARGV[6]) then return 0 end
redis.call('SET', KEYS[1], ARGV[6], 'PX', ARGV[7])
local channel, i = ARGV[8], 9
while i < #ARGV do
  local group, head, first, to = ARGV[i], ARGV[i + 1], i + 3, i + 2 + ARGV[i + 2]
  ${keep}
  redis.call('PUBLISH', channel .. group, ${position} .. ' ' .. head .. ' ' .. table.concat(ARGV, '', first, to))
  i = to + 1
end
return 1
`

const KEEP = `
  local meta, log, epoch, offset = open(group)
  for n = first, to do
    redis.call('XADD', log, 'MAXLEN', size, string.format('%.0f-%.0f', offset + 1 + n - first, now), 'p', ARGV[n])
  end
  redis.call('PEXPIRE', log, ttl)
  redis.call('HSET', meta, 'offset', string.format('%.0f', offset + 1 + to - first))
  redis.call('PEXPIRE', meta, metaTtl)
`

/**
 * For each group that is asked for, with an epoch, an offset and a limit: its epoch, its top, 1 if all messages after that offset are there, and these
 * messages. A limit of 0 asks for the top alone.
 */
const READ = `
local answers = {}
for i = 6, #ARGV, 4 do
  local meta, log, epoch, top = open(ARGV[i])
  redis.call('PEXPIRE', meta, metaTtl)
  local after, limit = tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])
  local answer = { epoch, string.format('%.0f', top), '0' }
  if epoch == ARGV[i + 1] and after == top then
    answer[3] = '1'
  elseif epoch == ARGV[i + 1] and after < top and limit > 0 then
    local entries = redis.call('XRANGE', log, string.format('%.0f', after + 1), '+', 'COUNT', limit)
    if entries[1] then
      local offset, written = string.match(entries[1][1], '(%d+)-(%d+)')
      if tonumber(offset) == after + 1 and tonumber(written) > now - ttl then
        answer[3] = '1'
        for n = 1, #entries do answer[3 + n] = entries[n][2][2] end
      end
    end
  end
  answers[#answers + 1] = answer
end
return answers
`

/** Publishes and keeps. */
export const publishAndKeep = script(LOG + PUBLISH(KEEP, "string.format('%.0f', offset + 1) .. ' ' .. epoch"))

/** Publishes without a trace. */
export const publishOnly = script(PUBLISH('', "'0 -'"))

/** Reads positions and what was missed. */
export const read = script(LOG + READ)

function script (lua: string): Script {
  return { lua, sha: createHash('sha1').update(lua).digest('hex') }
}
