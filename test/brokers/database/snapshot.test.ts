/**
 * Snapshots while other connections write: the rows of a snapshot, and the messages after it that it does not contain,
 * make the table. `SNAPSHOT_ROUNDS=10000` repeats it longer.
 */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { after, suite, test, type TestContext } from 'node:test'
import { defineEntity, p, type EntityManager } from '@mikro-orm/core'
import { DatabaseBroker } from '../../../lib/brokers/database/database-broker.ts'
import { databaseBroker, logEntities } from '../../../lib/brokers/database/index.ts'
import { Recorder } from '../../../lib/testing/recorder.ts'
import { makeDatabase, openClient, settingsOf, skips, type Client, type DatabaseName, type TestDatabase } from './support.ts'

const ROUNDS = Number(process.env['SNAPSHOT_ROUNDS'] ?? 50)
const WRITERS = 4
const ROWS = [1, 2, 3]
const names: DatabaseName[] = ['SQLite', 'PostgreSQL', 'MariaDB']

const Counter = defineEntity({
  name: 'Counter', tableName: 'counter', properties: { id: p.integer().primary().autoincrement(false), n: p.integer() }
})

/** The counters, read with one query for each row. */
async function readCounters (em: EntityManager): Promise<number[]> {
  const counters: number[] = []
  for (const id of ROWS) {
    counters.push((await em.findOneOrFail(Counter, id)).n)
    await turn()
  }
  return counters
}

/** Lets others run: statements of SQLite do not give up the event loop. */
const turn = () => new Promise(setImmediate)

/** Moves an amount from one counter to another, and writes messages about both in the same transaction. */
async function move (client: Client, group: string): Promise<void> {
  const from = 1 + Math.floor(3 * Math.random())
  const to = 1 + from % 3
  const amount = 1 + Math.floor(9 * Math.random())
  try {
    await client.run(client.name === 'SQLite' ? 'begin immediate' : 'begin')
  } catch {
    // another connection to the file writes
    return await turn()
  }
  try {
    // always in this order, so that few transactions block each other
    for (const id of [from, to].sort()) {
      await client.run(`update counter set n = n ${id === from ? '-' : '+'} ${amount} where id = ${id}`)
      await turn()
    }
    if (client.name === 'MariaDB') await client.run("select value from rohrpost_log_state where name = 'turn' lock in share mode")
    const values = [[from, -amount], [to, amount]].map(([row, by]) => `('${group}', '{"row":${row},"by":${by}}', ${Date.now()})`)
    await client.run(`insert into rohrpost_log (group_name, payload, created_at) values ${values.join(', ')}`)
    await client.run(Math.random() < 0.1 ? 'rollback' : 'commit')
  } catch {
    await client.run('rollback')
  }
}

async function setUp (t: TestContext, database: TestDatabase) {
  const orm = await database.connect({ entities: [...logEntities, Counter] })
  const recorder = new Recorder()
  const broker = databaseBroker({ orm, history: { size: 1000, ttl: 60_000 } })
  t.after(() => broker.close())
  await broker.open(recorder)
  const group = randomUUID()
  await broker.subscribe(group)
  return { orm, broker, recorder, group }
}

/** Takes snapshots while others write, and compares each one and the messages after it with the table. */
async function compareSnapshots (t: TestContext, database: TestDatabase): Promise<void> {
  const { broker, group, recorder } = await setUp(t, database)
  const clients = await Promise.all(Array.from({ length: WRITERS }, () => openClient(t, database)))
  const over = new AbortController()
  const writers = clients.map(async (client) => {
    while (!over.signal.aborted) {
      await move(client, group)
      await turn()
    }
  })

  const snapshots = []
  for (let round = 0; round < ROUNDS; round++) {
    snapshots.push(await broker.snapshot(group, readCounters))
    await turn()
  }
  over.abort()
  await Promise.all(writers)
  await broker.publish(group, '{"row":0,"by":0}')
  await recorder.until(group, '{"row":0,"by":0}')

  const table = (await database.run('select n from counter order by id')).map(({ n }) => Number(n))
  const messages = recorder.of(group).flatMap((event) => event.kind === 'message' ? [{ ...JSON.parse(event.payload), offset: Number(event.position?.offset) }] : [])
  let contained = 0
  const wrong = snapshots.filter(({ value, position, includes }) => {
    const rows = [...value]
    for (const { row, by, offset } of messages.slice(firstAfter(messages, position.offset))) {
      if (includes(offset)) contained++
      else rows[row - 1] += by
    }
    return !ROWS.every((row) => rows[row - 1] === table[row - 1])
  })
  t.diagnostic(`${snapshots.length} snapshots, ${messages.length} messages, ${contained} contained`)
  assert.equal(wrong.length, 0, `the first one is at ${wrong[0]?.position.offset}`)
  assert.deepEqual(recorder.errors, [])
  assert.deepEqual(recorder.of(group).filter(({ kind }) => kind === 'lost'), [])
  const last = snapshots.at(-1)
  assert.equal(last?.includes(last.position.offset), true)
  assert.equal(last?.includes(Number.MAX_SAFE_INTEGER), false)
}

for (const [name, journal] of [...names.map((name) => [name, 'wal'] as const), ['SQLite', 'delete'] as const]) {
  suite(`snapshots on ${name}${name === 'SQLite' ? ` (${journal})` : ''}`, { skip: skips[name] }, async () => {
    const database = await makeDatabase(name, after)
    if (name === 'SQLite') await database.run(`pragma journal_mode = ${journal}`)
    await database.run('create table counter (id int primary key, n int not null)')
    await database.run('insert into counter values (1, 0), (2, 0), (3, 0)')

    // elsewhere a message can apply twice
    if (journal === 'wal') test('rows and messages make the table', (t) => compareSnapshots(t, database))

    test('an error of the caller ends the transaction and is passed on', async (t) => {
      const { broker, group, orm } = await setUp(t, database)

      await assert.rejects(broker.snapshot(group, async () => { throw new Error('no') }), { message: 'no' })
      await assert.rejects(async () => broker.snapshot(group, async (em) => {
        em.create(Counter, { id: 9, n: 9 })
        if (name === 'SQLite') throw new Error('no')
        await em.flush()
      }))

      assert.equal(await orm.em.fork().count(Counter), 3)
      assert.deepEqual((await broker.snapshot(group, readCounters)).value.length, 3)
    })

    test('rows of a caller who is in a transaction are not read in it', async (t) => {
      const { broker, group, orm } = await setUp(t, database)

      await orm.em.fork().transactional(async (em) => {
        await em.nativeUpdate(Counter, { id: 1 }, { n: 12_345 })
        if (journal === 'delete') return
        assert.notEqual((await broker.snapshot(group, readCounters)).value[0], 12_345)
      })
    })
  })
}

suite('snapshots and epochs', async () => {
  const database = await makeDatabase('SQLite', after)

  test('a snapshot follows the epoch that has begun, and gives up when others follow', async (t) => {
    const settings = settingsOf(database.orm, { history: { size: 10, ttl: 60_000 } })
    const { dialect } = settings
    const broker = new DatabaseBroker({ ...settings, pollInterval: 60_000 })
    t.after(() => broker.close())
    await broker.open(new Recorder())
    const top = await broker.subscribe('g') ?? assert.fail()
    const begin = () => database.run(`update rohrpost_log_state set value = '${randomUUID()}' where name = 'epoch'`)

    await begin()
    const { position } = await broker.snapshot('g', async () => {})
    assert.notEqual(position.epoch, top.epoch)
    assert.equal((await broker.subscribe('g'))?.epoch, position.epoch)

    await begin()
    const openView = dialect.openView.bind(dialect)
    dialect.openView = async () => {
      await begin()
      return await openView()
    }
    await assert.rejects(broker.snapshot('g', async () => assert.fail()), { code: 'RP_ERR_BROKER_UNAVAILABLE', message: /one epoch after another/ })
  })

  test('a snapshot needs an open broker, and the tables', async (t) => {
    await assert.rejects(new DatabaseBroker(settingsOf(database.orm)).snapshot('g', async () => {}), { code: 'RP_ERR_BROKER_UNAVAILABLE' })

    const other = await makeDatabase('SQLite', (run) => t.after(run))
    const broker = new DatabaseBroker(settingsOf(other.orm))
    await broker.open(new Recorder())
    t.after(() => broker.close())
    other.orm.config.set('driverOptions', () => { throw new Error('no more files') })
    await assert.rejects(broker.snapshot('g', async () => {}), { message: 'no more files' })
  })
})

/** The index of the first message after an offset. */
function firstAfter (messages: readonly { offset: number }[], offset: number): number {
  let [low, high] = [0, messages.length]
  while (low < high) {
    const middle = (low + high) >> 1
    if (Number(messages[middle]?.offset) > offset) high = middle
    else low = middle + 1
  }
  return low
}
