/**
 * A client that applies all notifications has the rows of the database: random transaction trees run, and the replica of each
 * group, received over a WebSocket, is compared with the table after every tree.
 */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { defineEntity, p, UniqueConstraintViolationException, type EntityManager } from '@mikro-orm/core'
import { NodeSqliteDialect, type MikroORM, type Options } from '@mikro-orm/sql'
import Fastify from 'fastify'
import fc from 'fast-check'
import { databaseBroker, logEntities } from '../../lib/brokers/database/index.ts'
import rohrpost, { memoryBroker, type Broker } from '../../lib/index.ts'
import { notifyOnChange, rohrpostMikroOrm } from '../../lib/mikro-orm/index.ts'
import { fuzz } from '../property/support/check.ts'
import { openServer, openSqlite } from './support.ts'

const LISTS = ['a', 'b', 'c']
const TREES = Number(process.env['TREES'] ?? (fuzz > 1 ? 10_000 : 300))

const TodoSchema = defineEntity({
  name: 'Todo',
  properties: { id: p.integer().primary(), list: p.string().nullable(), title: p.string(), code: p.integer().nullable().unique() }
})
class Todo extends TodoSchema.class {}
TodoSchema.setClass(Todo)

type Step =
  | { do: 'create', list: string | null, title: string }
  | { do: 'change', which: number, title: string }
  | { do: 'move', which: number, list: string | null }
  | { do: 'delete', which: number }
  | { do: 'flush' }
  | { do: 'nest', steps: Step[], fails: boolean }
  | { do: 'fork', branches: Branch[] }
  | { do: 'break', which: number | null, list: string | null, title: string }

/** One of two parallel savepoints. */
interface Branch {
  titles: string[]
  fails: boolean
}

interface Tree {
  begun: 'transactional' | 'begin' | 'implicit'
  steps: Step[]
  fails: boolean
}

const list = fc.option(fc.constantFrom(...LISTS))
const title = fc.string({ maxLength: 3 })
const which = fc.nat(7)
const single: Array<fc.Arbitrary<Step>> = [
  fc.record({ do: fc.constant('create'), list, title }),
  fc.record({ do: fc.constant('change'), which, title }),
  fc.record({ do: fc.constant('move'), which, list }),
  fc.record({ do: fc.constant('delete'), which }),
  fc.constant({ do: 'flush' })
]
const branch = fc.record({ titles: fc.array(title, { maxLength: 3 }), fails: fc.boolean() })
const fork: fc.Arbitrary<Step> = fc.record({ do: fc.constant('fork'), branches: fc.tuple(branch, branch) })
/** A flush that fails at one of its rows, and whose error is swallowed. */
const breaking: fc.Arbitrary<Step> = fc.record({ do: fc.constant('break'), which: fc.option(which, { nil: null }), list, title })

/** @param above parts that occur outside of savepoints only */
function treeOf (more: Array<fc.Arbitrary<Step>>, above: Array<fc.Arbitrary<Step>>): fc.Arbitrary<Tree> {
  const { steps } = fc.letrec<{ inside: Step[], nest: Step, steps: Step[] }>((tie) => ({
    inside: fc.array(fc.oneof({ maxDepth: 3 }, ...single, ...more, tie('nest')), { maxLength: 8 }),
    nest: fc.record({ do: fc.constant('nest'), steps: tie('inside'), fails: fc.boolean() }),
    steps: fc.array(fc.oneof(...single, ...more, ...above, tie('nest')), { maxLength: 8 })
  }))
  return fc.record({ begun: fc.constantFrom('transactional', 'begin', 'implicit'), steps, fails: fc.boolean() })
}

class Rollback extends Error {}

/** Runs a part that may fail on purpose; any other error fails the test. */
async function undoing (fails: boolean, work: Promise<unknown>): Promise<void> {
  if (!fails) await work
  else await assert.rejects(work, Rollback)
}

async function take (step: Step, em: EntityManager, todos: Todo[]): Promise<void> {
  const todo = 'which' in step && step.which !== null ? todos[step.which % Math.max(todos.length, 1)] : undefined
  if (step.do === 'create') todos.push(em.create(Todo, { list: step.list, title: step.title }))
  if (step.do === 'change' && todo) todo.title = step.title
  if (step.do === 'move' && todo) todo.list = step.list
  if (step.do === 'flush') await em.flush()
  if (step.do === 'delete' && todo) {
    todos.splice(todos.indexOf(todo), 1)
    em.remove(todo)
  }
  if (step.do === 'nest') {
    // MikroORM would write UPDATEs for an entity whose INSERT is rolled back, so it is forgotten
    await em.flush()
    const inside = [...todos]
    await undoing(step.fails, em.transactional((em) => takeAll(step, em, inside)))
    // entities that were created in a rolled back part are forgotten; all others are used on, also deleted ones
    if (!step.fails) todos.splice(0, Infinity, ...inside)
  }
  if (step.do === 'break') {
    if (step.which === null) em.create(Todo, { list: step.list, title: step.title, code: 1 })
    else if (todo) todo.code = 1
    await em.flush().catch((error: unknown) => assert(error instanceof UniqueConstraintViolationException))
    // after that, the identity map is invalid
    em.clear()
    todos.splice(0, Infinity, ...await em.find(Todo, {}, { orderBy: { id: 'asc' } }))
  }
  if (step.do === 'fork') {
    // both would flush pending changes
    await em.flush()
    await Promise.allSettled(step.branches.map(({ titles, fails }) => em.transactional(async (em) => {
      for (const title of titles) {
        em.create(Todo, { list: 'a', title })
        await em.flush()
      }
      if (fails) throw new Rollback()
    }, { clear: true })))
  }
}

async function takeAll ({ steps, fails }: { steps: Step[], fails: boolean }, em: EntityManager, todos: Todo[]): Promise<void> {
  for (const step of steps) await take(step, em, todos)
  if (!fails) return
  await em.flush()
  throw new Rollback()
}

async function grow (tree: Tree, em: EntityManager): Promise<void> {
  const todos = await em.find(Todo, {}, { orderBy: { id: 'asc' } })
  if (tree.begun === 'transactional') return undoing(tree.fails, em.transactional((em) => takeAll(tree, em, todos)))
  if (tree.begun === 'implicit') {
    // without savepoints, each nested part is a transaction of its own
    for (const step of tree.steps) await take(step, em, todos)
    return em.flush()
  }

  await em.begin()
  await undoing(tree.fails, takeAll(tree, em, todos))
  if (tree.fails) await em.rollback()
  else await em.commit()
}

/** Replica of each group, as a client keeps it. It checks each message against its state. */
class Replicas {
  readonly groups = new Map<string, Map<number, string>>()

  apply ({ group, type, object: { id, title } }: { group: string, type: string, object: { id: number, title: string } }): void {
    const rows = this.groups.get(group) ?? new Map<number, string>()
    this.groups.set(group, rows)
    assert.equal(rows.has(id), type !== 'create', `${type} of ${id} in ${group}`)
    if (type === 'delete') assert.equal(rows.get(id), title, `delete of ${id} in ${group} says what was known`)

    if (type === 'delete') rows.delete(id)
    else rows.set(id, title)
  }

  rows (): Array<{ group: string, id: number, title: string }> {
    return [...this.groups].flatMap(([group, rows]) => [...rows].map(([id, title]) => ({ group, id, title }))).sort(byId)
  }
}

const byId = (a: { id: number }, b: { id: number }) => a.id - b.id

async function follow (t: TestContext, orm: MikroORM, broker: Broker) {
  const app = Fastify()
  t.after(() => app.close())
  app.register(rohrpost, { broker })
  app.register(rohrpostMikroOrm, { orm, notify: [notifyOnChange(Todo, { group: 'list-{list}', data: ['id', 'title'] })] })
  app.after(() => { app.rohrpost.handle('join', ({ data }, connection) => connection.join(String(data))) })
  await app.ready()
  const socket = await app.injectWS('/ws/rohrpost')
  t.after(() => socket.terminate())

  let replicas = new Replicas()
  let received = Promise.withResolvers<Replicas>()
  socket.on('message', (data: Buffer) => {
    const frame = JSON.parse(data.toString())
    try {
      if (frame.type === 'subscription-update') replicas.apply(frame.data)
      if (frame.type === 'received') received.resolve(replicas)
    } catch (error) {
      received.reject(error)
    }
  })
  for (const group of ['received', ...LISTS.map((list) => `list-${list}`)]) {
    const reply = once(socket, 'message')
    socket.send(JSON.stringify({ id: 1, type: 'join', data: group }))
    await reply
  }

  return {
    forget: () => { replicas = new Replicas() },
    /** Returns the replicas when all notifications have arrived. */
    async known () {
      app.rohrpost.sendToGroup('received', { type: 'received' })
      const { promise } = received
      const replicas = await promise.finally(() => { received = Promise.withResolvers() })
      return replicas.rows()
    }
  }
}

/** Makes a file for a database of SQLite, which the log of a broker needs. */
function sqliteFile (t: TestContext): Partial<Options> {
  const folder = mkdtempSync(join(tmpdir(), 'rohrpost-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  const dbName = join(folder, 'test.db')
  return { dbName, driverOptions: new NodeSqliteDialect(dbName) }
}

const RUNS = [
  ['memoryBroker', 'sqlite', TREES], ['memoryBroker', 'postgresql', TREES], ['memoryBroker', 'mariadb', TREES],
  ['databaseBroker', 'sqlite', TREES / 4], ['databaseBroker', 'postgresql', TREES / 4], ['databaseBroker', 'mariadb', TREES / 4]
] as const

for (const [broker, server, numRuns] of RUNS) {
  test(`${server} with ${broker}: a replica of each group equals the table after every transaction tree`, async (t) => {
    // a flush may fail between any two of its rows
    const options = server === 'postgresql' ? {} : { batchSize: 1 }
    const entities = broker === 'memoryBroker' ? [Todo] : [Todo, ...logEntities]
    const orm = server === 'sqlite'
      ? await openSqlite(t, entities, { ...options, ...(broker === 'databaseBroker' && sqliteFile(t)) })
      : await openServer(t, server, entities, options)
    if (orm === undefined) return
    const { forget, known } = await follow(t, orm, broker === 'memoryBroker' ? memoryBroker() : databaseBroker({ orm }))

    // SQLite runs statements synchronously, so the order of two savepoints within one turn of the event loop is not known;
    // PostgreSQL refuses all statements after an error
    const tree = treeOf(server === 'sqlite' ? [] : [fork], server === 'postgresql' ? [] : [breaking])
    await fc.assert(fc.asyncProperty(tree, async (tree) => {
      await orm.em.fork().nativeDelete(Todo, {})
      await known()
      forget()
      const em = orm.em.fork()
      for (const list of LISTS) em.create(Todo, { list, title: 'seed' })
      em.create(Todo, { list: null, title: 'has the code', code: 1 })
      await em.flush()

      await grow(tree, orm.em.fork())

      const table = await orm.em.fork().find(Todo, { list: { $ne: null } })
      assert.deepEqual(await known(), table.map(({ id, list, title }) => ({ group: `list-${list}`, id, title })).sort(byId))
    }), { numRuns, endOnFailure: true })
  })
}
