/**
 * Follows the to-do list until Ctrl-C, through restarts of the server: `npm run watch`. An argument is the address of
 * another server.
 */
import { RohrpostClient } from 'fastify-rohrpost/client'
import type { api } from './contract.ts'

const client = new RohrpostClient<typeof api>(process.argv[2] ?? 'ws://localhost:3000/ws/rohrpost')
const controller = new AbortController()
process.once('SIGINT', () => controller.abort()).once('SIGTERM', () => controller.abort())

client.on('state', (state, { reason, delay }) => {
  const next = delay === undefined ? '' : `, next attempt in ${Math.round(delay)} ms`
  console.log(`${state} (${reason})${next}`)
})

const todos = client.live({ type: 'todos' }, { load: () => client.call('todo.list'), signal: controller.signal })
todos.subscribe((objects) => {
  if (todos.status !== 'current') return
  console.log(`${objects.length} to-dos, ${objects.filter(({ done }) => done).length} done`)
})

for await (const { type, object } of client.changes({ type: 'todos' }, { signal: controller.signal })) {
  console.log(`${type}: ${object.title}`)
}
client.close()
