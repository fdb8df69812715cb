/** Adds a to-do: `npm run add -- 'Buy milk'`. A second argument is the address of another server. */
import { RohrpostClient } from 'fastify-rohrpost/client'
import type { api } from './contract.ts'

const [title = 'Buy milk', url = 'ws://localhost:3000/ws/rohrpost'] = process.argv.slice(2)

const client = new RohrpostClient<typeof api>(url)
const { id } = await client.call('todo.add', { title }, { wait: true, timeout: 10_000 })
console.log(`${title} has the id ${id}`)
client.close()
