/** A to-do list in memory, without an ORM: the handler publishes each change itself. */
import type { AddressInfo } from 'node:net'
import Fastify from 'fastify'
import rohrpost from 'fastify-rohrpost'
import { api } from './contract.ts'

const todos = [{ id: 1, title: 'Follow the list', done: false }]

const app = Fastify({ logger: { level: 'warn' } })
await app.register(rohrpost)

app.rohrpost.implement(api, {
  groups: {
    todos: { authorize: () => true }
  },
  calls: {
    'todo.list': () => todos,

    'todo.add': async ({ data }) => {
      const object = { id: todos.length + 1, title: data.title, done: false }
      todos.push(object)
      await app.rohrpost.sendToGroup('todos', {
        type: 'subscription-update',
        data: { group: 'todos', type: 'create', object }
      })
      return { id: object.id }
    }
  }
})

await app.listen({ port: Number(process.env.PORT ?? 3000) })
console.log(`The list is at ws://localhost:${(app.server.address() as AddressInfo).port}/ws/rohrpost (Ctrl-C stops it)`)
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => app.close())
