/** Server of the to-do list: an embedded SQLite, the page as one bundle, the calls. Commits announce the changes. */
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { MikroORM, NodeSqliteDialect, SqliteDriver } from '@mikro-orm/sql'
import { build } from 'esbuild'
import Fastify from 'fastify'
import rohrpost from 'fastify-rohrpost'
import { notifyOnChange, rohrpostMikroOrm } from 'fastify-rohrpost/mikro-orm'
import { api } from './contract.ts'
import { Todo } from './todo.ts'

const orm = await MikroORM.init({
  driver: SqliteDriver,
  driverOptions: new NodeSqliteDialect(':memory:'),
  dbName: ':memory:',
  entities: [Todo]
})
await orm.schema.create()
await orm.em.fork().insertMany(Todo, [
  { title: 'Open this page in a second window', done: false },
  { title: 'Start the server', done: true }
])

const { outputFiles: [bundle] } = await build({
  entryPoints: [join(import.meta.dirname, 'todos.tsx')],
  bundle: true,
  format: 'esm',
  write: false
})
const page = `<!doctype html>
  <html lang="en">
  <meta charset="utf-8">
  <title>To-dos</title>
  <div id="root"></div>
  <script type="module" src="/todos.js"></script>
  </html>`

// browsers keep spare connections open, which `close` must not wait for
const app = Fastify({ logger: { level: 'warn' }, forceCloseConnections: true })
app.addHook('onClose', () => orm.close())
app.get('/', (_request, reply) => reply.type('text/html').send(page))
app.get('/todos.js', (_request, reply) => reply.type('text/javascript').send(bundle?.text))

await app.register(rohrpost)
await app.register(rohrpostMikroOrm, {
  orm,
  notify: [notifyOnChange(Todo, { group: 'todos', data: ['id', 'title', 'done'] })]
})

app.rohrpost.implement(api, {
  groups: {
    todos: { authorize: () => true }
  },
  calls: {
    'todo.list': () => orm.em.findAll(Todo, { orderBy: { id: 'asc' } }),

    'todo.add': async ({ data }) => {
      orm.em.create(Todo, data)
      await orm.em.flush()
    },

    'todo.update': async ({ data }) => {
      const todo = await orm.em.findOneOrFail(Todo, data.id)
      todo.done = data.done
      await orm.em.flush()
    }
  }
})

await app.listen({ port: Number(process.env.PORT ?? 3000) })
console.log(`The list is at http://localhost:${(app.server.address() as AddressInfo).port}/ (Ctrl-C stops it)`)
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => app.close())
