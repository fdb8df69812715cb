/** Parts of the database broker with fakes in place of a server. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { MariaDbDriver } from '@mikro-orm/mariadb'
import { PostgreSqlDriver } from '@mikro-orm/postgresql'
import { MikroORM, type Options } from '@mikro-orm/sql'
import type { DatabaseBrokerSettings } from '../../../lib/brokers/database/broker-settings.ts'
import type { Connector, DatabaseConnection, Dialect, ResultRow } from '../../../lib/brokers/database/dialect.ts'
import { logEntities } from '../../../lib/brokers/database/index.ts'
import { LogCleaner } from '../../../lib/brokers/database/log-cleaner.ts'
import { MariadbDialect } from '../../../lib/brokers/database/mariadb-dialect.ts'
import { healthOf, type HealthSources } from '../../../lib/brokers/database/log-health.ts'
import { LogSession } from '../../../lib/brokers/database/log-session.ts'
import { LogStatements } from '../../../lib/brokers/database/log-statements.ts'
import { retryWhilePassing } from '../../../lib/brokers/database/retry.ts'
import { openFileView } from '../../../lib/brokers/database/snapshot-view.ts'
import { Outage } from '../../../lib/util/outage.ts'
import { settingsOf } from './support.ts'

/** Settings of a server that is not there. */
async function settingsFor (driver: unknown): Promise<DatabaseBrokerSettings> {
  return settingsOf(await MikroORM.init({ driver, dbName: 'none', entities: logEntities } as Options))
}

const { dialect: postgresql } = await settingsFor(PostgreSqlDriver)
const { dialect: mariadb, tables } = await settingsFor(MariaDbDriver)

/** A connection that answers statements by their first matching text, and records them. */
function fake (answers: Record<string, ResultRow[]>): DatabaseConnection & { sent: string[] } {
  const sent: string[] = []
  return {
    sent,
    async query (sql) {
      sent.push(sql)
      return Object.entries(answers).find(([text]) => sql.includes(text))?.[1] ?? []
    },
    destroy () {}
  }
}

test('a standby of PostgreSQL, Galera and a replica of MariaDB are refused', async () => {
  const standby = fake({ pg_is_in_recovery: [{ isStandby: true, cache: 1, step: 1 }] })
  await assert.rejects(postgresql.prepare(standby, 'reader'), { code: 'RP_ERR_BROKER_UNAVAILABLE', message: /standby/ })

  const galera = fake({ wsrep_on: [{ Variable_name: 'wsrep_on' }] })
  await assert.rejects(mariadb.prepare(galera, 'reader'), { code: 'RP_ERR_BROKER_UNAVAILABLE', message: /Galera/ })

  const replica = fake({ read_only: [{ Variable_name: 'read_only' }] })
  await assert.rejects(mariadb.prepare(replica, 'reader'), { code: 'RP_ERR_BROKER_UNAVAILABLE', message: /read-only, as a replica/ })
})

test('passed ids are kept as long as a prepared transaction is open', async () => {
  const connection = fake({ pg_locks: [{ holder: '-1/5' }] })
  await postgresql.sweep?.(connection)
  assert.equal(connection.sent.filter((sql) => sql.startsWith('delete')).length, 0)

  const other = fake({ pg_locks: [{ holder: '3/5' }], 'select first_id': [{ first_id: '7', holders: '3/4' }] })
  await postgresql.sweep?.(other)
  assert.equal(other.sent.filter((sql) => sql.startsWith('delete')).length, 1)
})

test('a hole of PostgreSQL is decided when no holder is left, and a transaction that was prepared is one', async () => {
  const answers = { pg_locks: [{ holder: '3/5' }, { holder: '4/9' }] }
  const hole = await postgresql.watchHole?.(fake(answers)) ?? assert.fail()
  assert.equal(hole.holders, '3/5 4/9')

  answers.pg_locks = [{ holder: '-1/7' }, { holder: '5/1' }]
  assert.equal(await hole.isDecided(), false)
  assert.equal(hole.holders, '-1/7')

  answers.pg_locks = [{ holder: '5/1' }]
  assert.equal(await hole.isDecided(), true)
})

test('errors of servers tell whether a statement can be repeated', () => {
  const ofPostgresql = (code: string, severity = 'ERROR') => postgresql.failureOf(Object.assign(new Error(), { code, severity }))
  assert.deepEqual(['08006', '57P01', '25006', '23505', '42P01', '40001', '55P03', '57014', '42601'].map((code) => ofPostgresql(code)), [
    'lost', 'lost', 'lost', 'repeated', 'missing', 'passing', 'passing', 'passing', 'refused'
  ])
  assert.equal(ofPostgresql('53300', 'FATAL'), 'lost')
  assert.equal(postgresql.failureOf(Object.assign(new Error(), { code: 'ECONNRESET' })), 'lost')

  const ofMariadb = (errno: number) => mariadb.failureOf(Object.assign(new Error(), { errno, sqlState: 'HY000' }))
  assert.deepEqual([1290, 1062, 1146, 1205, 1213, 1064].map(ofMariadb), ['lost', 'repeated', 'missing', 'passing', 'passing', 'refused'])
  assert.equal(mariadb.failureOf(Object.assign(new Error(), { errno: 1064, sqlState: '42000', fatal: true })), 'lost')
})

/** A session on a connector that the test answers. */
function sessionOf (connect: Connector['connect']) {
  const failures: Error[] = []
  const dialect = {
    ...mariadb,
    name: 'Fake',
    connector: () => ({ connect, async close () {} }),
    async prepare () {},
    failureOf: () => 'refused'
  } satisfies Partial<Dialect>
  const session = new LogSession({
    dialect: dialect as never, role: 'writer', patience: 5000, onReady () {}, onFailure: (error) => failures.push(error)
  })
  return { session, failures }
}

test('a session that is closed while it connects uses no connection and tries no other', async () => {
  let destroyed = 0
  for (const outcome of ['connects', 'fails']) {
    const answer = Promise.withResolvers<DatabaseConnection>()
    let attempts = 0
    const { session, failures } = sessionOf(() => {
      attempts++
      return answer.promise
    })
    const opening = session.open()
    await session.close()
    if (outcome === 'fails') answer.reject(new Error('refused'))
    else answer.resolve({ query: async () => [], destroy: () => { destroyed++ } })
    await opening

    assert.equal(session.isReady, false)
    assert.equal(attempts, 1)
    assert.deepEqual(failures, [])
  }
  assert.equal(destroyed, 1)
})

test('a session without a connection refuses statements', async () => {
  const { session } = sessionOf(async () => assert.fail())

  await assert.rejects(session.query('select 1'), { message: 'no connection to Fake: it is being made' })
})

/** A cleaner whose right to clean is decided by the test. */
function cleanerOf (take: () => Promise<boolean>, isReady = true, statements: object = {}) {
  const failures: Error[] = []
  const cleaner: LogCleaner = new LogCleaner({
    dialect: { failureOf: ({ message }: Error) => message === 'busy' ? 'passing' : 'refused' } as never,
    session: { isReady } as never,
    statements: { ...statements, takeCleaning: take } as never,
    id: 'test',
    keep: 1,
    keepNewest: 1,
    interval: 2,
    cleaning: new Outage({ began: (error) => failures.push(error), ended () {} })
  })
  return { cleaner, failures }
}

test('a cleaner cleans again and again until it is closed', async () => {
  let times = 0
  const closed = Promise.withResolvers<void>()
  const { cleaner } = cleanerOf(async () => {
    if (++times < 3) return false
    cleaner.close()
    closed.resolve()
    return true
  })

  cleaner.start()
  // the timer of a cleaner does not keep the process running
  const alive = setInterval(() => {}, 1000)
  await closed.promise
  clearInterval(alive)

  assert.equal(times, 3)
})

test('a cleaner reports a failure, and waits for a connection', async () => {
  const { cleaner, failures } = cleanerOf(async () => { throw new Error('refused') })
  await cleaner.clean()
  assert.deepEqual(failures.map(({ message }) => message), ['refused'])

  const { cleaner: other } = cleanerOf(() => assert.fail(), false)
  await other.clean()
})

test('a cleaner reports a lock of another process when it has met one four times in a row', async () => {
  let isBusy = true
  const { cleaner, failures } = cleanerOf(async () => {
    if (isBusy) throw new Error('busy')
    return true
  }, true, oldLog(0, String).statements)
  const clean = async (times: number) => { for (let n = 0; n < times; n++) await cleaner.clean() }

  await clean(3)
  isBusy = false
  await clean(1)
  isBusy = true
  await clean(3)
  assert.deepEqual(failures, [])

  await clean(1)
  assert.deepEqual(failures.map(({ message }) => message), ['busy'])
})

/** Statements on a log in memory: all of its rows but the last one are old. */
function oldLog (count: number, groupOf: (id: number) => string) {
  const rows = Array.from({ length: count }, (_, index) => index + 1).map((id) => {
    return { id, group: groupOf(id), createdAt: id === count ? 1000 : 0 }
  })
  const marks = { thinned: 0, forgotten: 0 }
  const deleted: number[] = []
  const statements = {
    async readFrom (_session: unknown, from: number, limit: number) {
      return { epoch: 'a', now: 1000, ...marks, rows: rows.filter(({ id }) => id >= from).slice(0, limit) }
    },
    async readTops (_session: unknown, groups: string[], last: number) {
      return new Map(rows.filter(({ id, group }) => id <= last && groups.includes(group)).map(({ id, group }) => [group, id]))
    },
    async mark (_session: unknown, name: 'thinned' | 'forgotten', _epoch: string, id: number) {
      marks[name] = id
    },
    async delete (_session: unknown, ids: number[]) {
      deleted.push(ids.length)
      for (const id of ids) rows.splice(rows.findIndex((row) => row.id === id), 1)
    }
  }
  return { statements, deleted, rest: () => rows.map(({ id }) => id) }
}

test('a cleaner deletes the old rows of one group in portions, and the newest of them last', async () => {
  const { statements, deleted, rest } = oldLog(2500, () => 'g')

  await cleanerOf(async () => true, true, statements).cleaner.clean()

  assert.deepEqual(deleted, [999, 1000, 499, 1])
  assert.deepEqual(rest(), [2500])
})

test('a cleaner deletes the newest old rows of many groups in portions', async () => {
  const { statements, deleted, rest } = oldLog(2500, (id) => `g${id}`)

  await cleanerOf(async () => true, true, statements).cleaner.clean()

  assert.deepEqual(deleted, [0, 0, 0, 1000, 1000, 499])
  assert.deepEqual(rest(), [2500])
})

test('one process at a time has the right to clean', async () => {
  const statements = new LogStatements(mariadb, tables)

  assert.equal(await statements.takeCleaning(fake({}), 'one', 1000), false, 'the tables were cleared')
  assert.equal(await statements.takeCleaning(fake({ clock: [{ value: '2000/two', clock: 1000 }] }), 'one', 1000), false)
  const free = fake({ clock: [{ value: '500/two', clock: 1000 }], 'select value from': [{ value: '2000/one' }] })
  assert.equal(await statements.takeCleaning(free, 'one', 1000), true)
})

test('a reader that has not read for a second and three polls makes the broker unhealthy', () => {
  const health = (silence: number) => healthOf({
    name: 'Fake',
    reading: { isReady: true },
    writing: { isReady: true },
    reader: { stats: { silence }, pollInterval: 100, waiting: undefined },
    writer: { age: 0 },
    outages: { publishing: {}, reading: {} },
    patience: { usual: 10_000, opening: 2000, frozen: 200 },
    late: 1000
  } as unknown as HealthSources)

  assert.deepEqual(health(1300), { ok: true })
  assert.deepEqual(health(1301), { ok: false, detail: 'the log has not been read for 1301 ms' })
})

test('the transactions at a hole are named as far as the server shows them', async () => {
  const connection = fake({ 'select distinct virtualtransaction': [{ holder: '3/5' }, { holder: '4/9' }] })
  const hole = await postgresql.watchHole?.(connection) ?? assert.fail()
  assert.equal(await hole.describe(), '3/5 4/9')

  const shares = 'a transaction that shares the turn'
  for (const [rows, expected] of [
    [[], shares],
    [[{ id: 7, age: 3 }, { id: 9, age: 1 }], `${shares}, probably of connection 7 (open for 3 s) or 9 (open for 1 s)`]
  ] as const) {
    const turn = await mariadb.watchHole?.(fake({ innodb_trx: [...rows] })) ?? assert.fail()
    assert.equal(await turn.describe(), expected)
  }
  for (const [error, expected] of [
    [{ errno: 1227, sqlState: '42000' }, shares],
    [{ fatal: true, message: 'gone' }, undefined]
  ] as const) {
    const other = fake({})
    other.query = () => Promise.reject(error)
    const turn = await mariadb.watchHole?.(other) ?? assert.fail()
    if (expected === undefined) await assert.rejects(turn.describe(), error)
    else assert.equal(await turn.describe(), expected)
  }
})

test('a connection for a snapshot is closed if it can not be used', async () => {
  let closed = 0
  class Connection {
    async connect () {}
    async execute () { throw new Error('no such file') }
    async close () { closed++ }
  }
  const em = { fork: () => em, getConnection: () => new Connection() }

  await assert.rejects(openFileView({ em } as never), { message: 'no such file' })

  assert.equal(closed, 1)
})

test('the turn of MariaDB tells whether the transaction is alive; MySQL can not tell it so', () => {
  class BaseMySqlPlatform {}
  const { turn } = new MariadbDialect({ em: { getPlatform: () => new BaseMySqlPlatform() } } as never, tables)

  assert.match(turn.take, /^select 1 as alive /)
  assert.match(String(mariadb.turn?.take), /^select @@in_transaction as alive /)
})

test('statements that find a file locked are repeated, until they succeed, fail otherwise, or are not wanted any more', async () => {
  const dialect = { failureOf: (error: unknown) => (error as Error).message === 'locked' ? 'passing' as const : 'refused' as const }
  const failing = (...messages: string[]) => async () => {
    const message = messages.shift()
    if (message !== undefined) throw new Error(message)
    return 'done'
  }

  assert.equal(await retryWhilePassing(dialect, failing('locked', 'locked'), () => false), 'done')
  await assert.rejects(retryWhilePassing(dialect, failing('locked', 'no'), () => false), { message: 'no' })
  await assert.rejects(retryWhilePassing(dialect, failing('locked'), () => true), { message: 'locked' })
})
