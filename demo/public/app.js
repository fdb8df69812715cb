/** A to-do list that shows what is in the database: it sends what you do, and draws what the server says has changed. */
import { Client } from './client.js'
import { showFrame, showNote } from './frames.js'
import { List } from './list.js'
import { dismiss, notify } from './notice.js'

const STATES = { connecting: 'Connecting', live: 'Live', waiting: 'Reconnecting' }
const NEWS = { create: 'Added', update: 'Changed', delete: 'Deleted' }

const form = document.getElementById('add')
const title = document.getElementById('new-title')
const state = document.getElementById('state')

const list = new List(document.getElementById('todos'), {
  update: (changes) => attempt('todo.update', changes),
  remove: ({ id }) => attempt('todo.remove', { id })
})

/** Changes that came while the list is loaded. */
let early = []

const client = new Client('/ws/rohrpost', {
  // subscribing first: what changes while the list is on its way is not missed, but kept and applied to it
  async open () {
    early = []
    await client.call('subscribe', { type: 'todos' })
    list.replace(await client.call('todo.list'))
    for (const change of early) apply(change)
    early = undefined
    summarize()
  },
  update (change) {
    if (early !== undefined) return early.push(change)
    apply(change)
    summarize()
    list.highlight(change.object.id)
    document.getElementById('news').textContent = `${NEWS[change.type]}: ${change.object.title}`
  },
  state (name, detail) {
    state.dataset.state = name
    state.textContent = STATES[name]
    if (name === 'live') dismiss()
    if (detail !== undefined) showNote(detail)
  },
  frame: showFrame
})

form.addEventListener('submit', async (event) => {
  event.preventDefault()
  const text = title.value
  const worked = await attempt('todo.add', { title: text })
  title.setAttribute('aria-invalid', !worked)
  // who types fast may have begun the next one
  if (worked && title.value === text) title.value = ''
})

title.addEventListener('input', () => {
  title.removeAttribute('aria-invalid')
  dismiss()
})

/** Nothing is drawn here: if it worked, the change comes back as a notification, to this page as to all others. */
async function attempt (type, data) {
  try {
    await client.call(type, data)
    dismiss()
    return true
  } catch (error) {
    notify(error.message)
    return false
  }
}

function apply ({ type, object }) {
  if (type === 'delete') list.remove(object.id)
  else list.put(object)
}

function summarize () {
  const { todos } = list
  document.getElementById('empty').hidden = todos.length > 0
  document.getElementById('count').textContent = todos.length === 0 ? '' : `${todos.filter((todo) => todo.done).length} of ${todos.length} done`
}
