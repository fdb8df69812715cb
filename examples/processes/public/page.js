/* global location */
/** Draws the board: what is posted in any process, also what was posted while this page had no connection. */
import { RohrpostClient } from './rohrpost.js'

const board = document.getElementById('board')
const state = document.getElementById('state')
const failure = document.getElementById('failure')
const input = document.getElementById('text')
const client = new RohrpostClient(new URL('/ws/rohrpost', location.href.replace('http', 'ws')), { backoff: { max: 2000 } })

client.on('state', async (name) => {
  state.textContent = name === 'open' ? `Connected to process ${await client.call('who')}` : 'Reconnecting …'
})

const posts = client.live({ type: 'board' }, { load: () => client.call('posts') })
posts.subscribe((objects) => board.replaceChildren(...objects.map(toItem).reverse()))

document.getElementById('say').addEventListener('submit', async (event) => {
  event.preventDefault()
  const text = input.value
  input.value = failure.textContent = ''
  try {
    await client.call('say', { text }, { timeout: 10_000 })
  } catch (error) {
    failure.textContent = `Not sent (${error.message}): ${text}`
  }
})

function toItem ({ text, process }) {
  const item = document.createElement('li')
  const origin = document.createElement('small')
  origin.textContent = `process ${process}`
  item.append(text, origin)
  return item
}
