/**
 * The part of the publish script that leaves out messages which a newer one replaces (see `Stamp`).
 *
 * The string `state:GROUP KEY` is the record of a row: the clock of its stamps, then each part with its last value. It
 * expires
 * when no process can have an older message any more. A message is published on any doubt.
 */
export const STAMPS = `
local function isOutdated (record, part, clock, value)
  if string.match(record, '^%S+') ~= clock then return false end
  if part == 'all' then
    for last in string.gmatch(record, ' (%d+)') do
      if value < last then return true end
    end
    return false
  end
  local last, left = string.match(record, ' ' .. part .. ' (%d+)'), string.match(record, ' all (%d+)')
  return (part ~= 'some' and last and value < last) or (left and value < left)
end

-- returns the record after a message that is not outdated
local function update (record, part, clock, value)
  if part == 'all' or string.match(record, '^%S+') ~= clock then return clock .. ' ' .. part .. ' ' .. value end
  local last = string.match(record, ' ' .. part .. ' (%d+)')
  if not last then return record .. ' ' .. part .. ' ' .. value end
  if value <= last then return record end
  return (string.gsub(record, ' ' .. part .. ' %d+', ' ' .. part .. ' ' .. value))
end

-- removes the outdated messages of a batch; returns the lengths of the others, the index of the last one, and the new records by key
local function leaveOut (group, lengths, first, to, stamps)
  local base, records, outdated, isAny = prefix .. 'state:' .. group .. ' ', {}, {}, false
  for n = to + 1, to + 2 * stamps, 2 do
    local part, clock, value = string.match(ARGV[n], '^(%w+) (%S+) (%d+)$')
    local head = value and clock .. ' ' .. part .. ' '
    for index, row in string.gmatch(value and ARGV[n + 1] or '', '(%d+) ([^\\n]+)') do
      local key, isOld = base .. row, false
      local record = records[key] or redis.pcall('GET', key)
      if type(record) ~= 'string' then
        record = head .. value
      elseif part ~= 'some' and #record == #head + #value and string.sub(record, 1, #head) == head then
        -- most rows have one part
        isOld = value < string.sub(record, #head + 1)
        record = head .. value
      else
        isOld = isOutdated(record, part, clock, value)
        record = isOld or update(record, part, clock, value)
      end
      if isOld then outdated[first + index], isAny = true, true else records[key] = record end
    end
  end
  if not isAny then return lengths, to, records end

  local rest, last, n = {}, first - 1, first
  for length in string.gmatch(lengths, '%d+') do
    if not outdated[n] then
      last = last + 1
      ARGV[last] = ARGV[n]
      rest[#rest + 1] = length
    end
    n = n + 1
  end
  return table.concat(rest, ','), last, records
end
`
