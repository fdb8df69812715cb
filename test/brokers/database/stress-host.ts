/** A process that writes to the log in transactions and follows it: `stress-host.ts NAME DATABASE PROCESS [naive]`. */
import { setTimeout as wait } from 'node:timers/promises'
import { MikroORM, NodeSqliteDialect, SqliteDriver, type Options } from '@mikro-orm/sql'
import { serve } from '../../../bench/lib/remote.ts'
import { DatabaseBroker } from '../../../lib/brokers/database/database-broker.ts'
import type { DatabaseConnection } from '../../../lib/brokers/database/dialect.ts'
import { logEntities } from '../../../lib/brokers/database/index.ts'
import { Recorder } from '../../../lib/testing/recorder.ts'
import { servers, settingsOf, type DatabaseName } from './support.ts'

const [, , name = '', dbName = '', processName = '', mode] = process.argv
const GROUP = 'counters'
/** The event loop is blocked for so many milliseconds after every so many transactions. */
const BLOCKED = 4
const CALM = 7

const options = name === 'SQLite'
  ? { driver: SqliteDriver, dbName, driverOptions: new NodeSqliteDialect(dbName) }
  : { driver: servers[name as 'MariaDB'].driver, clientUrl: servers[name as 'MariaDB'].url, dbName }
const orm = await MikroORM.init({ ...options, entities: logEntities } as Options)
const settings = settingsOf(orm, { history: { size: 100_000, ttl: 60_000 } })
const { dialect } = settings
// without a watch the reader takes each visible row, like a cursor with `id > last`
if (mode === 'naive') Object.defineProperty(dialect, 'watchHole', { value: undefined })
const recorder = new Recorder()
const broker = new DatabaseBroker(settings)
await broker.open(recorder)
await broker.subscribe(GROUP)

const committed: string[] = []
let [count, rolledBack, retried] = [0, 0, 0]

/** Statements of a transaction that changes a row; `change` returns the new value of the row. */
const statements: Record<DatabaseName, {
  begin (connection: DatabaseConnection, isolation: string): Promise<unknown>
  change (connection: DatabaseConnection, row: number): Promise<unknown>
}> = {
  PostgreSQL: {
    begin: (connection, isolation) => connection.query(`begin isolation level ${isolation}`),
    change: async (connection, row) => {
      return (await connection.query('update counter set n = n + 1 where id = ? returning n', [row]))[0]?.n
    }
  },
  MariaDB: {
    begin: async (connection, isolation) => {
      await connection.query(`set session transaction isolation level ${isolation}`)
      await connection.query('start transaction')
    },
    change: async (connection, row) => {
      await connection.query('update counter set n = n + 1 where id = ?', [row])
      const [found] = await connection.query('select n from counter where id = ?', [row])
      await connection.query("select value from rohrpost_log_state where name = 'turn' lock in share mode")
      return found?.n
    }
  },
  SQLite: {
    begin: (connection) => connection.query('begin immediate'),
    change: async (connection, row) => {
      return (await connection.query('update counter set n = n + 1 where id = ? returning n', [row]))[0]?.n
    }
  }
}

/** One transaction: mostly committed, sometimes rolled back, with random pauses before and after the INSERT. */
async function transact (connection: DatabaseConnection, isolation: string): Promise<void> {
  const { begin, change } = statements[name as DatabaseName]
  const key = `${processName}/${++count}`
  const row = 1 + Math.floor(5 * Math.random())
  try {
    await begin(connection, isolation)
  } catch {
    // SQLite: another connection writes
    retried++
    return await wait(1)
  }
  try {
    const n = await change(connection, row)
    if (Math.random() < 0.1) await wait(10 * Math.random())
    const payload = JSON.stringify({ key, row, n: Number(n) })
    await connection.query(`insert into rohrpost_log (group_name, payload, created_at) values ('${GROUP}', ?, ?)`, [payload, Date.now()])
    if (Math.random() < 0.2) await wait(8 * Math.random())
    if (Math.random() < 0.1) {
      rolledBack++
      await connection.query('rollback')
      return
    }
    await connection.query('commit')
    committed.push(key)
  } catch {
    // a deadlock, or a conflict of serializable transactions
    retried++
    await connection.query('rollback')
  }
}

const host = {
  /** Runs transactions on several connections, and publishes messages through the broker. */
  async run ({ transactions, writers, isolation }: { transactions: number, writers: number, isolation: string }) {
    const connector = dialect.connector()
    let left = transactions
    let done = 0
    const publishes: Promise<void>[] = []
    await Promise.all(Array.from({ length: writers }, async () => {
      const connection = await connector.connect({ onLost () {}, onNotification () {} })
      while (left > 0) {
        const before = committed.length
        await transact(connection, isolation)
        left -= committed.length > before ? 1 : 0
        if (++done % 3 === 0) {
          const key = `${processName}/published/${done}`
          publishes.push(broker.publish(GROUP, JSON.stringify({ key })).then(() => { committed.push(key) }))
        }
        // writers of SQLite would otherwise hold the lock of the file all the time
        if (name === 'SQLite') await wait(2 + 4 * Math.random())
        if (done % CALM !== 0) continue
        for (const end = performance.now() + BLOCKED; performance.now() < end;);
      }
      connection.destroy()
    }))
    await Promise.all(publishes)
    await connector.close()
    return { committed: committed.splice(0), rolledBack, retried }
  },

  /** Publishes the last message. */
  end: (text: string) => broker.publish(GROUP, text),

  /** Everything that this process has received, as soon as the last messages are there. */
  async received (last: string[]) {
    for (const text of last) await recorder.until(GROUP, text)
    const events = recorder.of(GROUP)
    recorder.events.length = 0
    return { events, errors: recorder.errors.map(String) }
  },

  async close () {
    await broker.close()
    await orm.close(true)
  }
}

export type StressHost = typeof host

serve(host)
