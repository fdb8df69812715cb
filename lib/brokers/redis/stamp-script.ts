/**
 * The part of the publish script that leaves out messages whose states newer ones replace (see `Stamp`), and repeated
 * messages.
 *
 * The string `states:CLOCK` logs the published states whose stamps have that clock, one entry for each call. An entry
 * consists of the lines that the call sent (`encodeStates`), and a last line of fixed length: the largest value before
 * the call, the number of characters of the other lines, and the largest value after the call. Most calls have no value
 * below the largest one, so that nothing newer than their states is published, and they read no more than that value.
 * Other calls read the entries back to the first whose earlier values are not above their own. Where the log does not
 * reach that far, a newer state may be published: the message is published, and a resync of the group follows it. A log
 * that is long is renamed to `states:CLOCK old`, and the next one takes its place.
 */
export const STAMPS = `
-- bytes after which a log is renamed
local MAX_LOG = 262144

-- compares the states of a call with earlier states, and with each other. Adds to 'outcome', by batch, the indexes of
-- messages with a replaced state, those with another state, and whether a newer state may be published
local function compare (section, outcome)
  local log, low, width = section.log, section.low, #section.top
  local footer = 2 * width + 14

  -- returns the end of a log from the first entry with values that may be above 'low', and the largest value before it
  local function readEnd (name)
    local size = 4096
    while true do
      local text = redis.call('GETRANGE', name, -size, -1)
      local at, before = #text, nil
      while at >= footer do
        local line = at - footer + 1
        local start = line - tonumber(string.sub(text, line + width + 2, line + width + 11))
        if start < 1 then break end
        at, before = start - 1, string.sub(text, line + 1, line + width)
        if before <= low then break end
      end
      if (before and before <= low) or #text < size then return string.sub(text, at + 1), before end
      size = size * 8
    end
  end

  -- calls 'visit' for each state in the lines of entries
  local function each (lines, visit)
    local batch, group, value
    for line in string.gmatch(lines, '[^\\n]+') do
      local kind = string.byte(line)
      if kind == 61 then
        batch, group = string.match(line, '^=(%d+) (.*)$')
      elseif kind == 64 then
        value = string.sub(line, 2)
      elseif kind ~= 35 then
        local index, part, id, key = string.match(line, '^(%d+) (%w+) (%S+) (.*)$')
        visit(group .. ' ' .. key, part, value, id ~= '-' and group .. ' ' .. id, batch, tonumber(index), line)
      end
    end
  end

  local function isReplaced (row, part, value)
    if part ~= 'all' then
      local last, left = row[part], row.all
      return (part ~= 'some' and last and value < last) or (left and value < left)
    end
    for _, last in pairs(row) do
      if value < last then return true end
    end
    return false
  end

  local earlier, floor = readEnd(log)
  if floor and floor > low then
    local older, itsFloor = readEnd(log .. ' old')
    earlier, floor = older .. earlier, itsFloor or floor
  end

  local rows, ids, own, kept = {}, {}, {}, {}
  local function learn (key, part, value, id)
    local row = rows[key] or {}
    rows[key] = row
    if not row[part] or row[part] < value then row[part] = value end
    if id then ids[id] = true end
  end
  each(earlier, learn)
  each(section.lines, function (key, part, value, id, batch, index, line)
    local found = outcome[batch] or { replaced = {}, current = {} }
    outcome[batch] = found
    -- the states of one message have one id
    if (id and ids[id] and own[id] ~= index) or isReplaced(rows[key] or {}, part, value) then
      found.replaced[index] = true
      return
    end
    found.current[index] = true
    if floor and value < floor then found.isUncertain = true end
    learn(key, part, value, id)
    if id then own[id] = index end
    kept[#kept + 1] = '=' .. batch .. ' ' .. string.match(key, '^%S+') .. '\\n@' .. value .. '\\n' .. line .. '\\n'
  end)
  section.lines = table.concat(kept)
end

-- reads the logs for the states of a call; returns the outcome of the batches that can have older states, and the
-- sections
local function readStates (from, to)
  local outcome, sections = {}, {}
  for n = from, to, 4 do
    local section = { log = prefix .. 'states:' .. ARGV[n], low = ARGV[n + 1], top = ARGV[n + 2], lines = ARGV[n + 3] }
    local before = redis.pcall('GETRANGE', section.log, -#section.top - 1, -2)
    -- a key of another type is left alone
    if type(before) == 'string' then
      sections[#sections + 1] = section
      if section.low < before or section.low == '' then compare(section, outcome) end
      -- nothing is known to be older than the first call
      section.before = before ~= '' and before or section.low ~= '' and section.low or section.top
      if section.top < before then section.top = before end
    end
  end
  return outcome, sections
end

local function writeStates (sections, failed)
  for _, section in ipairs(sections) do
    local log, lines, top = section.log, section.lines, section.top
    if next(failed) then
      local kept, isKept = {}, true
      for line in string.gmatch(lines, '[^\\n]+') do
        local group = string.match(line, '^=%d+ (.*)$')
        if group then isKept = not failed[group] end
        if isKept then kept[#kept + 1] = line .. '\\n' end
      end
      lines = table.concat(kept)
    end
    local entry = lines .. '#' .. section.before .. ' ' .. string.format('%10d', #lines) .. ' ' .. top .. '\\n'
    local length = redis.call('APPEND', log, entry)
    -- once for each kilobyte, since a command takes a third of the time of a message
    if length % 1024 <= #entry then redis.call('PEXPIRE', log, integer(remembered)) end
    if length > MAX_LOG then
      redis.call('RENAME', log, log .. ' old')
      local first = '#' .. top .. ' ' .. string.format('%10d', 0) .. ' ' .. top .. '\\n'
      redis.call('SET', log, first, 'PX', integer(remembered))
    end
  end
end

-- returns the lengths of the messages of a batch, and the messages, without the replaced ones, and with a resync if one
-- is needed
local function leaveOut (group, lengths, first, found)
  local rest, messages, n, isUncertain = {}, {}, 0, found.isUncertain
  for length in string.gmatch(lengths, '%d+') do
    local isReplaced, isCurrent = found.replaced[n], found.current[n]
    if not isReplaced or isCurrent then
      messages[#messages + 1] = ARGV[first + n]
      rest[#rest + 1] = length
      isUncertain = isUncertain or isReplaced
    end
    n = n + 1
  end
  if isUncertain then
    local name = string.gsub(group, '["\\\\]', '\\\\%0')
    local resync = '{"type":"subscription-update","data":{"type":"resync","group":"' .. name .. '"}}'
    messages[#messages + 1] = resync
    rest[#rest + 1] = #resync
  end
  return table.concat(rest, ','), messages
end
`
