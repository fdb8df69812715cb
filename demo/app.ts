/** The demo as a Fastify app: a to-do list that stays current in every browser window. */
import { join } from 'node:path'
import sensible from '@fastify/sensible'
import staticFiles from '@fastify/static'
import { build } from 'esbuild'
import Fastify, { type FastifyInstance } from 'fastify'
import { databaseBroker } from '../lib/brokers/database/index.ts'
import rohrpost from '../lib/index.ts'
import { notifyOnChange, rohrpostMikroOrm } from '../lib/mikro-orm/index.ts'
import { openDatabase } from './database.ts'
import { addHandlers } from './handlers.ts'
import { Todo } from './todo.ts'

/** Builds the app on a SQLite file, which several processes can share; the caller lets it listen. */
export async function buildDemo (file: string): Promise<FastifyInstance> {
  const orm = await openDatabase(file)
  // browsers keep spare connections open, which `close` must not wait for
  const app = Fastify({ logger: { level: 'warn' }, forceCloseConnections: true })
  app.addHook('onClose', () => orm.close())
  await app.register(sensible)
  await app.register(staticFiles, {
    root: join(import.meta.dirname, 'public'),
    setHeaders: (reply) => reply.header('content-security-policy', "default-src 'self'")
  })
  const client = await bundleClient()
  app.get('/rohrpost.js', (_request, reply) => reply.type('text/javascript').send(client))

  await app.register(rohrpost, { broker: databaseBroker({ orm, history: { size: 1000, ttl: 60_000 } }) })
  await app.register(rohrpostMikroOrm, {
    orm,
    notify: [notifyOnChange(Todo, { group: 'todos', data: ['id', 'title', 'done'] })]
  })
  addHandlers(app, orm)
  return app
}

/** Bundles the client into one file for the page; an application uses its own bundler. */
async function bundleClient (): Promise<string> {
  const { outputFiles: [file] } = await build({
    entryPoints: [join(import.meta.dirname, '../lib/client/index.ts')],
    bundle: true,
    format: 'esm',
    write: false
  })
  return file?.text ?? ''
}
