/** Panel that shows the frames of the protocol as they are sent and received. */

const MOST_ENTRIES = 100
const MOST_CHARACTERS = 3000
/** Widths in style.css, in pixels. */
const CHARACTER = 7.3
const PADDING = 32

const log = document.getElementById('frames')
const pause = document.getElementById('pause')
const capsule = document.querySelector('#tube i')
const calm = window.matchMedia('(prefers-reduced-motion: reduce)')
const clock = new Intl.DateTimeFormat([], {
  hour: '2-digit', minute: '2-digit', second: '2-digit', fractionalSecondDigits: 3, hourCycle: 'h23'
})

/** Entries that arrived while the panel is paused; `undefined` when it is not paused. */
let held

pause.addEventListener('click', () => {
  const entries = held ?? []
  held = held === undefined ? [] : undefined
  append(...entries)
  label()
})

document.getElementById('clear').addEventListener('click', () => {
  log.replaceChildren()
  if (held !== undefined) held = []
  label()
})

/** Shows a frame. @param direction `sent` or `received` */
export function showFrame (direction, text) {
  const message = JSON.parse(text)
  const what = message.error === undefined ? direction : 'error'
  const entry = make('li', what)
  entry.append(head(`${direction === 'sent' ? '↑' : '↓'} ${what}`, message.type ?? ''), paint(cut(pretty(message, (log.clientWidth - PADDING) / CHARACTER))))
  add(entry)
  travel(direction)
}

/** Shows a line about the connection. */
export function showNote (text) {
  const entry = make('li', 'note')
  entry.append(head(text, ''))
  add(entry)
}

function add (entry) {
  if (held === undefined) return append(entry)
  held.push(entry)
  held.splice(0, held.length - MOST_ENTRIES)
  label()
}

function append (...entries) {
  // a visitor who has scrolled up to read keeps the place
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 24
  log.append(...entries)
  while (log.children.length > MOST_ENTRIES) log.firstElementChild.remove()
  if (atEnd) log.scrollTop = log.scrollHeight
}

function label () {
  pause.textContent = held === undefined ? 'Pause' : `Resume (${held.length})`
}

function head (what, type) {
  const line = make('p', 'head')
  line.append(make('span', 'what', what), make('b', '', type), make('time', '', clock.format()))
  return line
}

/**
 * Formats JSON for people, in as few lines as the width of the panel allows.
 *
 * @param lead characters before the value on its first line, beyond the indent
 */
function pretty (value, width, indent = 2, lead = 0) {
  // each level of indent may need a closing bracket at the end of the line
  const room = width - 2 * indent
  const line = JSON.stringify(value, null, 1).replaceAll(/\n */g, ' ')
  if (lead + line.length <= room || typeof value !== 'object' || value === null) return line

  const isArray = Array.isArray(value)
  const lines = []
  for (const [key, item] of Object.entries(value)) {
    const name = isArray ? '' : `${JSON.stringify(key)}: `
    const entry = name + pretty(item, width, indent + 2, name.length)
    const longer = `${lines.at(-1)}, ${entry}`
    const fits = longer.length + (lines.length === 1 ? lead : 0) <= room
    if (lines.length > 0 && fits) lines.splice(-1, 1, longer)
    else lines.push(entry)
  }
  const text = lines.join(`,\n${' '.repeat(indent)}`)
  return isArray ? `[ ${text} ]` : `{ ${text} }`
}

function cut (text) {
  const more = text.length - MOST_CHARACTERS
  return more > 0 ? `${text.slice(0, MOST_CHARACTERS)}\n… and ${more} more characters` : text
}

/** Colours keys, strings and other values. All of it becomes text nodes: a frame is never markup. */
function paint (json) {
  const block = make('pre', '')
  for (const [, key, string, other, rest] of json.matchAll(/("(?:\\.|[^"\\])*")(?=:)|("(?:\\.|[^"\\])*")|([\w.+-]+)|([^"\w.+-]+|")/g)) {
    block.append(make('span', key ? 'key' : string ? 'string' : other ? 'value' : '', key ?? string ?? other ?? rest))
  }
  return block
}

/** Animates a capsule for a frame on its way through the tube. */
function travel (direction) {
  if (calm.matches) return
  const way = [{ left: '0%', translate: '-100%', opacity: 1 }, { left: '100%', translate: '0%', opacity: 1 }]
  capsule.dataset.direction = direction
  capsule.animate(direction === 'sent' ? way : way.toReversed(), { duration: 500, easing: 'ease-in-out' })
}

function make (tag, className, text = '') {
  const element = document.createElement(tag)
  if (className !== '') element.className = className
  element.textContent = text
  return element
}
