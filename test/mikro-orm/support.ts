/** Helpers of the MikroORM tests: ORMs in memory and on servers, and a subscriber that collects its messages. */
import type { TestContext } from 'node:test'
import type { EventSubscriber } from '@mikro-orm/core'
import { MariaDbDriver } from '@mikro-orm/mariadb'
import { PostgreSqlDriver } from '@mikro-orm/postgresql'
import { MikroORM, NodeSqliteDialect, SqliteDriver, type Options } from '@mikro-orm/sql'
import { ChangeSubscriber } from '../../lib/mikro-orm/index.ts'
import type { NotifyRule } from '../../lib/mikro-orm/declare/rules.ts'

/** A published notification. */
export interface Told {
  group: string
  type: string
  object: unknown
}

/** A log line. */
export interface Logged {
  level: 'error' | 'warn'
  message: string
  err?: Error
  [field: string]: unknown
}

export type Entities = NonNullable<Options['entities']>

/** Opens an ORM on SQLite in memory, with its tables. */
export async function openSqlite (t: TestContext, entities: Entities, options: Partial<Options> = {}) {
  const orm = await MikroORM.init({
    driver: SqliteDriver,
    dbName: ':memory:',
    driverOptions: new NodeSqliteDialect(':memory:'),
    entities,
    ...options
  })
  t.after(() => orm.close())
  await orm.schema.create()
  return orm
}

const servers = {
  postgresql: { driver: PostgreSqlDriver, clientUrl: process.env['POSTGRESQL_URL'] ?? 'postgresql://postgres@127.0.0.1:5432/postgres' },
  mariadb: { driver: MariaDbDriver, clientUrl: process.env['MARIADB_URL'] ?? 'mysql://root@127.0.0.1:3306/test' }
}

/**
 * Opens an ORM on a database server, in a new database. Without a server the test is skipped, or fails if `CI=true`.
 *
 * @param existing the database of another ORM, to simulate a second process
 */
export async function openServer (t: TestContext, server: keyof typeof servers, entities: Entities, options: Partial<Options> = {}, existing?: string) {
  const dbName = existing ?? `rohrpost_${process.pid}_${Math.random().toString(36).slice(2)}`
  const connect = (options: Partial<Options>) => {
    const { driver, clientUrl } = servers[server]
    return MikroORM.init({ driver: driver as NonNullable<Options['driver']>, clientUrl, ...options })
  }

  if (existing !== undefined) {
    const orm = await connect({ dbName, entities, ...options })
    // `close()` waits forever for a connection that was lost within a transaction
    t.after(() => { orm.close().catch(() => {}) })
    return orm
  }

  const admin = await connect({ entities: [], discovery: { warnWhenNoEntities: false } })
  try {
    await admin.em.getConnection().execute(`create database ${dbName}`)
  } catch (error) {
    await admin.close()
    if (process.env['CI'] === 'true') throw error
    t.skip(`no ${server}: ${String(error)}`)
    return undefined
  }

  const orm = await connect({ dbName, entities, ...options })
  t.after(async () => {
    // `close()` waits forever for a connection that was lost within a transaction
    const closed = orm.close()
    await Promise.race([closed, admin.em.getConnection().execute('select 1')])
    await admin.em.getConnection().execute(`drop database ${dbName}${server === 'postgresql' ? ' with (force)' : ''}`)
    await admin.close()
  })
  await orm.schema.create()
  return orm
}

/**
 * A subscriber that replaces the COMMIT of each transaction, as the ChangeSubscriber sees it.
 *
 * @param replace sends the original COMMIT, or does not
 */
export function replaceCommits (replace: (commit: () => Promise<void>) => Promise<void>): EventSubscriber {
  return {
    afterTransactionStart ({ transaction }) {
      if (transaction === undefined) return
      const commit = transaction.commit.bind(transaction)
      transaction.commit = () => ({ execute: () => replace(() => commit().execute()) }) as never
    }
  }
}

/** A subscriber that holds back the answer to one COMMIT: the next one after `holdNext()`. */
export function holdCommit () {
  const answered = Promise.withResolvers<void>()
  const released = Promise.withResolvers<void>()
  let isNext = false
  const subscriber = replaceCommits(async (commit) => {
    if (!isNext) return await commit()
    isNext = false
    await commit()
    answered.resolve()
    await released.promise
  })
  return {
    subscriber,
    holdNext () { isNext = true },
    /** Resolves when the database has answered. */
    answered: answered.promise,
    release: released.resolve
  }
}

/** Connects a subscriber and collects its notifications and log lines. */
export function listen (orm: MikroORM, notify: NotifyRule[], subscriber = new ChangeSubscriber()) {
  const told: Told[] = []
  const logged: Logged[] = []

  subscriber.connect({
    orm,
    notify,
    publish: (group, payload) => { told.push(...readFrame(group, payload)) },
    log: {
      error: (context, message) => { logged.push({ level: 'error', message, ...context }) },
      warn: (context, message) => { logged.push({ level: 'warn', message, ...context }) }
    }
  })
  return {
    subscriber,
    logged,
    told,
    /** Returns the notifications since the last call, each as `type group object`. */
    take: () => told.splice(0).map(({ group, type, object }) => `${type} ${group} ${JSON.stringify(object)}`)
  }
}

function readFrame (group: string, payload: string): Told[] {
  const frame = JSON.parse(payload)
  if (!Number.isSafeInteger(frame.id) || frame.type !== 'subscription-update' || frame.data.group !== group) {
    throw new Error(`not the frame of a change: ${payload}`)
  }
  return changesOf(payload).map(({ type, object }) => ({ group, type, object }))
}

/** Returns the changes in a message: those of a batch, or a single one. */
export function changesOf (payload: string): Array<{ type: string, object: Record<string, unknown> }> {
  const { data } = JSON.parse(payload)
  return data.type === 'batch' ? data.changes : [data]
}
