/* global location, WebSocket */
/** Page of the to-do list: sends each action of the visitor to the server, and draws the changes that it receives. */
import { showFrame, showNote } from './frames.js'
import { List } from './list.js'
import { dismiss, notify } from './notice.js'
import { RohrpostClient } from './rohrpost.js'

const LABELS = { connecting: 'Connecting', live: 'Live', waiting: 'Reconnecting' }
const NEWS = { create: 'Added', update: 'Changed', delete: 'Deleted' }
const CALL_TIMEOUT = 5000

const form = document.getElementById('add')
const title = document.getElementById('new-title')
const state = document.getElementById('state')

const list = new List(document.getElementById('todos'), {
  update: (changes) => attempt('todo.update', changes),
  remove: ({ id }) => attempt('todo.remove', { id })
})

/** Current WebSocket, for the button that closes it. */
let line

/** @type {import('../../lib/client/index.ts').RohrpostClient<typeof import('../contract.ts').api>} */
const client = new RohrpostClient(new URL('/ws/rohrpost', location.href.replace('http', 'ws')), {
  token: undefined,
  backoff: { max: 8000 },
  WebSocket: class extends WebSocket {
    constructor (url) {
      super(url)
      line = this
    }
  }
})

const todos = client.live({ type: 'todos' }, {
  load: () => client.call('todo.list', undefined, { timeout: CALL_TIMEOUT })
})

todos.subscribe((objects) => {
  if (todos.status === 'loading') return
  list.replace(objects)
  summarize(objects)
  showState()
})

client.on('todos', (error, change) => {
  if (error) return notify(error.message)
  if (todos.status !== 'current') return
  list.highlight(change.object.id)
  document.getElementById('news').textContent = `${NEWS[change.type]}: ${change.object.title}`
})

client.on('state', (_, { state, reason, code, delay }) => {
  showState()
  if (state !== 'waiting') return
  const closed = code === undefined ? '' : ` (${code})`
  showNote(`connection ${reason}${closed}, next attempt in ${(delay / 1000).toFixed(1)} s`)
})

client.on('log', ({ direction, data }) => {
  // pings would hide the other frames
  if (!/"type":"p[io]ng"/.test(data)) showFrame(direction === 'send' ? 'sent' : 'received', data)
})

document.getElementById('cut').addEventListener('click', () => line.close(4000, 'cut by hand'))

form.addEventListener('submit', async (event) => {
  event.preventDefault()
  const text = title.value
  const worked = await attempt('todo.add', { title: text })
  title.setAttribute('aria-invalid', !worked)
  // a fast visitor may have started to type the next title
  if (worked && title.value === text) title.value = ''
})

title.addEventListener('input', () => title.removeAttribute('aria-invalid'))

/** Makes a call. It draws nothing: the change comes back as a notification, to this page as to all others. */
async function attempt (type, data) {
  try {
    await client.call(type, data, { timeout: CALL_TIMEOUT })
    dismiss()
    return true
  } catch (error) {
    const offline = 'No connection to the server right now. Please try again in a moment.'
    notify(error.code === 'offline' ? offline : error.message)
    return false
  }
}

/** Shows the state of the page: it is live when it is connected, and the list is subscribed and loaded. */
function showState () {
  const isLive = client.state === 'open' && todos.status === 'current'
  const name = isLive ? 'live' : client.state === 'waiting' ? 'waiting' : 'connecting'
  if (name === state.dataset.state) return
  state.dataset.state = name
  state.textContent = LABELS[name]
  if (name === 'live') dismiss()
}

function summarize (objects) {
  document.getElementById('empty').hidden = objects.length > 0 || todos.status !== 'current'
  const done = objects.filter((todo) => todo.done).length
  document.getElementById('count').textContent = objects.length === 0 ? '' : `${done} of ${objects.length} done`
}
