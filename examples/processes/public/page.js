/* global location */
/** What everybody says, whichever process they are connected to; what was said while the line was down comes when it is back. */
import { RohrpostClient } from './rohrpost.js'

const board = document.getElementById('board')
const state = document.getElementById('state')
const input = document.getElementById('text')
const client = new RohrpostClient(new URL('/ws/rohrpost', location.href.replace('http', 'ws')), { backoff: { max: 2000 } })

client.on('state', async (name) => {
  state.textContent = name === 'open' ? `Connected to process ${await client.call('who')}` : 'Reconnecting …'
})

document.getElementById('say').addEventListener('submit', async (event) => {
  event.preventDefault()
  const text = input.value
  input.value = ''
  try {
    await client.call('say', { text }, { timeout: 10_000 })
  } catch (error) {
    show(`Not sent (${error.message}): ${text}`, 'resync')
  }
})

for await (const { type, object } of client.changes({ type: 'board' }, { resync: true })) {
  if (type === 'resync') show('Something may be missing here.', 'resync')
  else show(object.text, '', `process ${object.process}`)
}

function show (text, className, origin = '') {
  const line = document.createElement('li')
  line.className = className
  const small = document.createElement('small')
  small.textContent = origin
  line.append(text, small)
  board.prepend(line)
}
