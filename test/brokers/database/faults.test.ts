/** Faults of private servers of PostgreSQL: a crash, a failover, a restore, and transactions without a session. */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, suite, test, type TestContext } from 'node:test'
import { PostgreSqlDriver } from '@mikro-orm/postgresql'
import { MikroORM } from '@mikro-orm/sql'
import type { DatabaseBroker } from '../../../lib/brokers/database/database-broker.ts'
import { logEntities } from '../../../lib/brokers/database/index.ts'
import type { Recorder } from '../../../lib/testing/recorder.ts'
import { poll } from '../../support/broker.ts'
import { openLine } from '../../support/line.ts'
import { noPostgresql, startPostgresql, type After } from '../../support/private-postgresql.ts'
import { openBroker, openClient, type TestDatabase } from './support.ts'

async function openDatabase (clientUrl: string, after: After): Promise<TestDatabase> {
  const orm = await MikroORM.init({ driver: PostgreSqlDriver, clientUrl, entities: logEntities })
  after(() => orm.close(true))
  const run = (sql: string, values: unknown[] = []) => orm.em.getConnection().execute(sql, values, 'all')
  return { name: 'PostgreSQL', orm, run, connect: () => assert.fail(), through: () => assert.fail() }
}

/** Opens a broker with a group that has a message. */
async function setUp (t: TestContext, database: TestDatabase, patience = { usual: 10_000, opening: 2000, frozen: 20 }) {
  const { broker, recorder } = await openBroker(t, database, { patience })
  const group = randomUUID()
  await broker.subscribe(group)
  await broker.publish(group, '{"n":"first"}')
  await recorder.until(group, '{"n":"first"}')
  const [position = assert.fail()] = recorder.positions(group)
  return { broker, recorder, group, position }
}

/** Publishes until members were told that another epoch began, then checks that nothing is lost after that. */
async function checkNewEpoch ({ broker, recorder, group, position }: Awaited<ReturnType<typeof setUp>>): Promise<void> {
  await recorder.when('word of the loss', () => recorder.of(group).some(({ kind }) => kind === 'lost'))
  await publishAll(broker, recorder, group, 'after')
  const events = recorder.of(group)
  const lost = events.findLast(({ kind }) => kind === 'lost')
  assert.notEqual(lost?.position?.epoch, position.epoch)
  assert.equal(recorder.positions(group).at(-1)?.epoch, lost?.position?.epoch)
  assert.equal(await broker.history(group, position, 100), undefined)
}

async function publishAll (broker: DatabaseBroker, recorder: Recorder, group: string, name: string): Promise<void> {
  const payloads = [1, 2, 3].map((n) => `{"n":"${name} ${n}"}`)
  for (const payload of payloads) await broker.publish(group, payload)
  await recorder.until(group, String(payloads.at(-1)))
  assert.deepEqual(recorder.payloads(group).slice(-3), payloads)
}

suite('faults of PostgreSQL', { skip: noPostgresql }, async () => {
  const server = await startPostgresql(after)
  const database = await openDatabase(server.url, after)
  await database.orm.schema.create()

  /** Leaves a prepared transaction with a message, and inserts another one. */
  async function prepare (t: TestContext, group: string, name: string) {
    const [one, two] = [await openClient(t, database), await openClient(t, database)]
    const insert = (n: number) => `insert into rohrpost_log (group_name, payload, created_at) values ('${group}', '{"n":${n}}', ${Date.now()})`
    await one.run('begin')
    await one.run(insert(1))
    await one.run(`prepare transaction '${name}'`)
    await two.run(insert(2))
    return () => two.run(`commit prepared '${name}'`)
  }

  test('a prepared transaction is waited for and named', async (t) => {
    const { broker, recorder, group } = await setUp(t, database)

    const commit = await prepare(t, group, 'short')
    await poll(() => /^the log has been waiting for the prepared transaction 'short' for \d+ ms$/.test(String(broker.health().detail)))
    await commit()
    await recorder.until(group, '{"n":2}')

    assert.deepEqual(recorder.payloads(group).slice(1), ['{"n":1}', '{"n":2}'])
    assert.deepEqual(recorder.errors, [])
    assert.equal(broker.stats()?.givenUp, 0)
  })

  test('a prepared transaction that is left alone is waited for during a bounded time', async (t) => {
    const { broker, recorder, group } = await setUp(t, database, { usual: 200, opening: 200, frozen: 20 })

    const commit = await prepare(t, group, 'long')
    await recorder.until(group, '{"n":2}')
    assert.match(String(recorder.errors[0]), /no longer waits for the prepared transaction 'long'/)
    assert.equal(broker.stats()?.givenUp, 1)
    await commit()
    await recorder.when('word of the loss', () => recorder.of(group).some(({ kind }) => kind === 'lost'))
  })

  test('after a crash a new epoch begins, and what was accepted is delivered or reported', async (t) => {
    const parts = await setUp(t, database)
    const { broker, group } = parts
    const payloads = Array.from({ length: 20 }, (_, n) => `{"n":"crash ${n}"}`)
    const publishing = Promise.allSettled(payloads.map((payload) => broker.publish(group, payload)))

    await server.crash()
    await poll(() => !broker.health().ok)
    await server.start()

    const outcomes = await publishing
    await checkNewEpoch(parts)
    const rows = await database.run('select payload from rohrpost_log where group_name = ? order by id', [group])
    const stored = rows.map(({ payload }) => String(payload)).filter((payload) => payload.includes('crash'))
    assert.equal(new Set(stored).size, stored.length)
    const accepted = payloads.filter((_, index) => outcomes[index]?.status === 'fulfilled')
    assert.deepEqual(accepted.filter((payload) => !stored.includes(payload)), [])
    assert.deepEqual(broker.health(), { ok: true })
  })

  for (const [title, dump, restore] of [
    ['everything', [], ['--clean', '--if-exists']],
    ['the rows', ['--data-only'], ['--data-only']]
  ] as const) {
    test(`after a restore of ${title} from a dump a new epoch begins`, async (t) => {
      const folder = mkdtempSync(join(tmpdir(), 'rohrpost-dump-'))
      t.after(() => rmSync(folder, { recursive: true }))
      chmodSync(folder, 0o777)
      const file = join(folder, 'dump')
      const parts = await setUp(t, database)
      await server.run('pg_dump', '-Fc', ...dump, '-f', file, 'postgres')
      await publishAll(parts.broker, parts.recorder, parts.group, 'before')

      if (dump.length > 0) await database.run('truncate rohrpost_log, rohrpost_log_state, rohrpost_log_passed')
      await server.run('pg_restore', ...restore, '-d', 'postgres', file)

      await checkNewEpoch(parts)
    })
  }

  test('after a failover to a standby a new epoch begins', async (t) => {
    const line = await openLine(t, server.port)
    const through = await openDatabase(Object.assign(new URL(server.url), { port: line.port }).href, (run) => t.after(run))
    const parts = await setUp(t, through)
    const standby = await server.follow((run) => t.after(run))
    await publishAll(parts.broker, parts.recorder, parts.group, 'before')

    // the connections lead to a server that is still read-only
    line.target = standby.port
    line.cut()
    await poll(() => /standby|read-only/.test(String(parts.broker.health().detail)))
    await standby.promote()

    await checkNewEpoch(parts)
  })
})
