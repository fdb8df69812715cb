/** Two copies of the package in one process, which package managers may install without a warning. */
import assert from 'node:assert/strict'
import { cpSync, mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath, pathToFileURL } from 'node:url'
import websocket from '@fastify/websocket'
import { defineEntity, p } from '@mikro-orm/core'
import { memoryBroker } from '../lib/index.ts'
import { ChangeSubscriber, notifyOnChange, rohrpostMikroOrm } from '../lib/mikro-orm/index.ts'
import { TestClient } from '../lib/testing/index.ts'
import { openSqlite } from './mikro-orm/support.ts'
import { createApp, start } from './support/server.ts'

// outside of node_modules, where Node.js does not strip types
const root = fileURLToPath(new URL('..', import.meta.url))
const copy = mkdtempSync(join(root, 'coverage-copy-'))
after(() => rmSync(copy, { recursive: true }))
for (const folder of ['lib', 'types']) cpSync(join(root, folder), join(copy, folder), { recursive: true })
const second = <Module>(path: string): Promise<Module> => import(pathToFileURL(join(copy, path)).href)
const other = await second<typeof import('../lib/index.ts')>('lib/index.ts')
const orms = await second<typeof import('../lib/mikro-orm/index.ts')>('lib/mikro-orm/index.ts')

const Todo = defineEntity({ name: 'Todo', properties: { id: p.integer().primary(), title: p.string() } })
const rule = { group: 'todo-{id}', data: ['id' as const, 'title' as const] }

test('are two copies', () => {
  assert.notEqual(other.memoryBroker, memoryBroker)
  assert.notEqual(orms.ChangeSubscriber, ChangeSubscriber)
})

const history = { size: 10, ttl: 60_000 }
const parts: [string, (orm: Awaited<ReturnType<typeof openSqlite>>) => [typeof rohrpostMikroOrm, object]][] = [
  ['the MikroORM plugin', (orm) => [orms.rohrpostMikroOrm, { orm, notify: [orms.notifyOnChange(Todo, rule)] }]],
  ['the subscriber', (orm) => [rohrpostMikroOrm, { orm, subscriber: new orms.ChangeSubscriber({ notify: [orms.notifyOnChange(Todo, rule)] }) }]],
  ['the rules', (orm) => [rohrpostMikroOrm, { orm, notify: [orms.notifyOnChange(Todo, rule)] }]]
]
for (const [name, plugin] of parts) {
  test(`a change reaches its group when ${name} and the broker are of another copy`, async (t) => {
    const orm = await openSqlite(t, [Todo])
    const server = await start(t, {
      broker: other.memoryBroker({ history }),
      async with (app) {
        const [mikroOrm, options] = plugin(orm)
        await app.register(mikroOrm, options as never)
        app.rohrpost.group('todo', { authorize: () => true })
      }
    })
    const client = await server.connect()
    await client.call('subscribe', { type: 'todo', id: 1 })

    const em = orm.em.fork()
    em.create(Todo, { title: 'first' })
    await em.flush()

    assert.deepEqual((await client.next()).data, { group: 'todo-1', type: 'create', object: { id: 1, title: 'first' } })
  })
}

test('one ORM is registered once', async (t) => {
  const orm = await openSqlite(t, [Todo])
  const app = createApp()
  t.after(() => app.close())
  await app.register(other.rohrpost)
  await app.register(orms.rohrpostMikroOrm, { orm, notify: [] })

  await assert.rejects(async () => { await app.register(rohrpostMikroOrm, { orm, notify: [notifyOnChange(Todo, rule)] }) }, { code: 'RP_ERR_ORM_ALREADY_REGISTERED' })
})

test('a second registration is refused', async (t) => {
  const app = createApp()
  t.after(() => app.close())
  await app.register(other.rohrpost)

  await assert.rejects(async () => { await app.register((await import('../lib/index.ts')).rohrpost) }, { code: 'RP_ERR_ALREADY_REGISTERED' })
})

test('an error of another copy is shown to the client as its own', async (t) => {
  const { errors } = await second<typeof import('../lib/errors.ts')>('lib/errors.ts')
  const server = await start(t, {
    with: (app) => app.rohrpost
      .handle('join', () => { throw new errors.RP_ERR_UNAVAILABLE('todo-1') })
      .handle('deny', () => { throw new errors.RP_ERR_ACCESS_DENIED() })
      .handle('future', () => { throw Object.assign(new Error('Not so.'), { statusCode: 409, code: 'RP_ERR_NEW' }) })
  })
  const client = await server.connect()
  const fields = async (type: string) => {
    const { error, code, retry } = await client.call(type)
    return { error, code, retry }
  }

  assert.deepEqual(await fields('join'), { error: "Can't join 'todo-1' now", code: 'unavailable', retry: true })
  assert.deepEqual(await fields('deny'), { error: 'ACCESS_DENIED', code: 'access_denied', retry: undefined })
  assert.deepEqual(await fields('future'), { error: 'Not so.', code: 'conflict', retry: undefined })
})

test('their servers in one app stop at the same time', async (t) => {
  const app = createApp()
  t.after(() => app.close())
  const [started, release] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  await app.register(websocket)
  await app.register(async (child) => {
    await child.register(other.rohrpost, '/busy')
    child.rohrpost.handle('work', async () => {
      started.resolve()
      await release.promise
    })
  })
  await app.register(async (child) => { await child.register((await import('../lib/index.ts')).rohrpost, '/idle') })
  const address = (await app.listen({ port: 0, host: '127.0.0.1' })).replace('http', 'ws')
  const [busy, idle] = [await TestClient.connect(`${address}/busy`), await TestClient.connect(`${address}/idle`)]
  t.after(() => [busy, idle].forEach(({ socket }) => socket.close()))
  busy.send({ id: 1, type: 'work' })
  await started.promise

  const closing = app.close()

  assert.equal((await idle.closed).code, 1012)
  release.resolve()
  assert.equal((await busy.next()).id, 1)
  await closing
})
