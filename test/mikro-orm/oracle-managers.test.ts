/**
 * Several EntityManagers of two processes write the same rows, with stale and partly loaded entities, into columns that the
 * database changes. The replica of each group, which applies all notifications, is compared with the table after every run.
 */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { defineEntity, DriverException, p, type EntityManager } from '@mikro-orm/core'
import { MikroORM, NodeSqliteDialect, SqliteDriver } from '@mikro-orm/sql'
import fc from 'fast-check'
import { makeSettings } from '../../lib/brokers/database/broker-settings.ts'
import { DatabaseBroker } from '../../lib/brokers/database/database-broker.ts'
import { logEntities } from '../../lib/brokers/database/index.ts'
import { TRANSACTION_LOG } from '../../lib/brokers/transaction-log.ts'
import { ChangeSubscriber, notifyOnChange } from '../../lib/mikro-orm/index.ts'
import { fuzz } from '../property/support/check.ts'
import { changesOf, openServer, type Entities } from './support.ts'

const LISTS = ['a', 'b', 'c']
const RUNS = Number(process.env['TREES'] ?? (fuzz > 1 ? 10_000 : 30))
const SERVERS = ['sqlite', 'postgresql', 'mariadb'] as const
type Server = typeof SERVERS[number]

const ItemSchema = defineEntity({
  name: 'Item',
  properties: {
    id: p.integer().primary(),
    list: p.string().nullable(),
    title: p.string(),
    // rounded to one digit by the servers
    price: p.decimal().precision(8).scale(1),
    // a generated column that MikroORM does not know: an UPDATE with RETURNING that hits no row would make it fail
    whisper: p.string().nullable(),
    // triggers write both
    shout: p.string().nullable(),
    hits: p.integer().default(0)
  }
})
class Item extends ItemSchema.class {}
ItemSchema.setClass(Item)

const data = ['id', 'title', 'price', 'whisper', 'shout', 'hits'] as const
const rules = [
  notifyOnChange(Item, { group: 'list-{list}', data }),
  notifyOnChange(Item, { group: ({ list, title }) => list === null ? null : `fn-${list}-${title.length % 2}`, data: ({ id, title, price, whisper, shout, hits }) => ({ id, title, price, whisper, shout, hits }) })
]

const GENERATED: Readonly<Record<Server, string>> = {
  sqlite: 'text generated always as (lower(title)) virtual',
  postgresql: 'text generated always as (lower(title)) stored',
  mariadb: 'varchar(255) generated always as (lower(title)) stored'
}
const TRIGGERS: Readonly<Record<Server, string[]>> = {
  sqlite: [
    'create trigger counts after update of title, list, price on item begin update item set hits = hits + 1, shout = upper(new.title) where id = new.id; end',
    'create trigger shouts after insert on item begin update item set shout = upper(new.title) where id = new.id; end'
  ],
  postgresql: [
    `create function counts() returns trigger language plpgsql as $$ begin
      if tg_op = 'UPDATE' then new.hits := old.hits + 1; end if;
      new.shout := upper(new.title);
      return new;
    end $$`,
    'create trigger counts before insert or update on item for each row execute function counts()'
  ],
  mariadb: [
    'create trigger counts before update on item for each row set new.hits = old.hits + 1, new.shout = upper(new.title)',
    'create trigger shouts before insert on item for each row set new.shout = upper(new.title)'
  ]
}

type Write =
  | { do: 'create', list: string | null, title: string, price: string }
  | { do: 'change', which: number, title: string }
  | { do: 'price', which: number, price: string }
  | { do: 'move', which: number, list: string | null }
  | { do: 'delete', which: number }
  | { do: 'reference', which: number, title: string }
  | { do: 'upsert', which: number, title: string, list: string | null }

/** A turn: one EntityManager makes changes and flushes them. */
interface Turn {
  by: number
  loads: 'nothing' | 'all' | 'part'
  writes: Write[]
  how: 'flush' | 'transactional' | 'rollback'
  /** Whether the next turn begins before this one is over. */
  overlaps: boolean
}

const list = fc.option(fc.constantFrom(...LISTS), { nil: null })
const title = fc.string({ unit: fc.constantFrom('a', 'b', 'ß'), minLength: 1, maxLength: 3 })
const price = fc.constantFrom('1', '2.25', '3.149', '10.96')
const which = fc.integer({ min: 1, max: 6 })
const write: fc.Arbitrary<Write> = fc.oneof(
  fc.record({ do: fc.constant('create'), list, title, price }),
  fc.record({ do: fc.constant('change'), which, title }),
  fc.record({ do: fc.constant('price'), which, price }),
  fc.record({ do: fc.constant('move'), which, list }),
  fc.record({ do: fc.constant('delete'), which }),
  fc.record({ do: fc.constant('reference'), which, title }),
  fc.record({ do: fc.constant('upsert'), which, title, list })
)
const turn: fc.Arbitrary<Turn> = fc.record({
  by: fc.nat(2),
  loads: fc.constantFrom('nothing', 'all', 'part'),
  writes: fc.array(write, { minLength: 1, maxLength: 4 }),
  how: fc.constantFrom('flush', 'flush', 'transactional', 'rollback'),
  overlaps: fc.boolean()
})

class Rollback extends Error {}

async function apply (write: Write, em: EntityManager): Promise<void> {
  const known = (id: number) => em.getUnitOfWork().getById<Item>(Item, id as never)
  if (write.do === 'create') em.create(Item, { list: write.list, title: write.title, price: write.price })
  if (write.do === 'reference') em.getReference(Item, write.which).title = write.title
  // upserts run in transactions: without one, the row before is not known
  if (write.do === 'upsert' && em.isInTransaction()) {
    await em.upsert(Item, { id: write.which, title: write.title, list: write.list, price: '1' })
  }
  const item = 'which' in write ? known(write.which) : undefined
  if (item === undefined) return
  if (write.do === 'change') item.title = write.title
  if (write.do === 'price') item.price = write.price
  if (write.do === 'move') item.list = write.list
  if (write.do === 'delete') em.remove(item)
}

async function take ({ loads, writes, how }: Turn, em: EntityManager): Promise<void> {
  if (loads === 'all') await em.find(Item, {}, { orderBy: { id: 'asc' } })
  if (loads === 'part') await em.find(Item, {}, { orderBy: { id: 'asc' }, fields: ['title'] })
  try {
    if (how === 'flush') {
      for (const write of writes) await apply(write, em)
      await em.flush()
    } else {
      await em.transactional(async (em) => {
        for (const write of writes) await apply(write, em)
        await em.flush()
        if (how === 'rollback') throw new Rollback()
      })
    }
  } catch (error) {
    // after an error the identity map is invalid; deadlocks and taken keys are expected errors
    em.clear()
    if (!(error instanceof Rollback) && !(error instanceof DriverException)) throw error
  }
}

/** Replica of each group, as a client keeps it. */
class Replicas {
  readonly #groups = new Map<string, Map<number, unknown>>()
  failure: unknown

  apply (group: string, { type, object: { updated_fields: _, ...object } }: { type: string, object: { id: number, updated_fields?: unknown } }): void {
    const rows = this.#groups.get(group) ?? new Map<number, unknown>()
    this.#groups.set(group, rows)
    try {
      assert.equal(rows.has(object.id), type !== 'create', `${type} of ${object.id} in ${group}`)
      if (type === 'delete') assert.deepEqual(object, rows.get(object.id), `delete of ${object.id} in ${group} says what was known`)
    } catch (error) {
      this.failure ??= error
    }
    if (type === 'delete') rows.delete(object.id)
    else rows.set(object.id, object)
  }

  get rows (): string[] {
    return [...this.#groups].flatMap(([group, rows]) => [...rows.values()].map((row) => `${group} ${JSON.stringify(row)}`)).sort()
  }
}

/** Opens two ORMs on one database, which simulate two processes. */
async function open (t: TestContext, server: Server, entities: Entities): Promise<MikroORM[] | undefined> {
  if (server === 'sqlite') {
    const folder = mkdtempSync(join(tmpdir(), 'rohrpost-'))
    t.after(() => rmSync(folder, { recursive: true }))
    const dbName = join(folder, 'test.db')
    const orms = await Promise.all([1, 2].map(() => MikroORM.init({ driver: SqliteDriver, dbName, driverOptions: new NodeSqliteDialect(dbName), entities })))
    for (const orm of orms) t.after(() => orm.close())
    await orms[0]?.schema.create()
    return orms
  }
  const orm = await openServer(t, server, entities)
  if (orm === undefined) return
  const other = await openServer(t, server, entities, {}, orm.config.get('dbName'))
  return other && [orm, other]
}

/** Connects a subscriber to each ORM, whose notifications go to the replicas at once. @returns waits for nothing */
function connect (t: TestContext, orms: readonly MikroORM[], apply: Apply, log: Logger) {
  for (const orm of orms) {
    const subscriber = new ChangeSubscriber({ notify: rules })
    subscriber.connect({ orm, publish: (group, payload) => applyAll(apply, group, payload), log })
    t.after(() => subscriber.disconnect())
  }
  return async () => {}
}

/**
 * Connects a subscriber to each ORM with a broker of its own. The notifications go through the log, which the first
 * broker reads.
 *
 * @returns waits until everything in the log is delivered
 */
async function connectLogs (t: TestContext, orms: readonly MikroORM[], apply: Apply, log: Logger) {
  let ended = Promise.withResolvers<void>()
  const brokers = await Promise.all(orms.map(async (orm, index) => {
    const broker = new DatabaseBroker(makeSettings({ orm }))
    const subscriber = new ChangeSubscriber({ notify: rules })
    t.after(async () => {
      await subscriber.disconnect()
      await broker.close()
    })
    await broker.open({
      deliver (group, payload) {
        if (group === 'end') ended.resolve()
        else if (index === 0) applyAll(apply, group, payload)
      },
      lost: (group) => log.warn({ group }, 'lost'),
      error: (error) => log.error({ error }, 'the broker failed')
    })
    subscriber.connect({
      orm, log, publish: (group, payload) => broker.publish(group, payload), transactionLog: broker[TRANSACTION_LOG]
    })
    return broker
  }))
  const [broker] = brokers as [DatabaseBroker]
  const groups = LISTS.flatMap((list) => [`list-${list}`, `fn-${list}-0`, `fn-${list}-1`])
  for (const group of ['end', ...groups]) await broker.subscribe(group)
  return async () => {
    await broker.publish('end', '{}')
    await ended.promise
    ended = Promise.withResolvers()
  }
}

type Apply = Replicas['apply']

function applyAll (apply: Apply, group: string, payload: string): void {
  for (const change of changesOf(payload)) apply(group, change as Parameters<Apply>[1])
}

type Logger = Parameters<ChangeSubscriber['connect']>[0]['log']

const KINDS = SERVERS.flatMap((server) => (['no broker', 'databaseBroker'] as const).map((broker) => [server, broker] as const))

for (const [server, broker] of KINDS) {
  test(`${server} with ${broker}: replicas equal the table, whichever EntityManager and process writes it`, async (t) => {
    const hasLog = broker === 'databaseBroker'
    const orms = await open(t, server, hasLog ? [ItemSchema, ...logEntities] : [ItemSchema])
    if (orms === undefined) return
    const [orm] = orms as [MikroORM]
    await orm.em.getConnection().execute('alter table item drop column whisper')
    await orm.em.getConnection().execute(`alter table item add column whisper ${GENERATED[server]}`)
    for (const sql of TRIGGERS[server]) await orm.em.getConnection().execute(sql)

    let replicas = new Replicas()
    const warnings: unknown[] = []
    const log = { error: (...line: unknown[]) => { warnings.push(line) }, warn: (...line: unknown[]) => { warnings.push(line) } }
    const delivered = await (hasLog ? connectLogs : connect)(t, orms, (group, data) => replicas.apply(group, data), log)
    // without a log, only the transactions of one process are published in order
    const isOrdered = (a: Turn, b: Turn) => hasLog ? server !== 'sqlite' || (a.by === 2) === (b.by === 2) : a.by !== 2 && b.by !== 2

    await fc.assert(fc.asyncProperty(fc.array(turn, { minLength: 1, maxLength: 8 }), async (turns) => {
      await orm.em.fork().nativeDelete(Item, {})
      await delivered()
      replicas = new Replicas()
      const seed = orm.em.fork()
      for (let id = 1; id <= 4; id++) seed.create(Item, { id, list: LISTS[id - 1] ?? null, title: 'seed', price: '1' })
      await seed.flush()

      const managers = [orm.em.fork(), orm.em.fork(), (orms[1] as MikroORM).em.fork()] as const
      for (const em of managers) await em.find(Item, {})
      const running: Array<Promise<void>> = []
      for (const [i, turn] of turns.entries()) {
        // turns never overlap with the same EntityManager
        const previous = turns[i - 1]
        if (previous?.overlaps !== true || previous.by === turn.by || !isOrdered(previous, turn) || running.length > 1) await Promise.all(running.splice(0))
        running.push(take(turn, managers[turn.by] as EntityManager))
      }
      await Promise.all(running)
      await delivered()

      if (replicas.failure !== undefined) throw replicas.failure
      assert.deepEqual(warnings.splice(0), [])
      const table = await orm.em.fork().find(Item, { list: { $ne: null } })
      const expected = table.flatMap(({ list, ...item }) => {
        const { id, title, price, whisper, shout, hits } = item
        return [`list-${list}`, `fn-${list}-${title.length % 2}`].map((group) => `${group} ${JSON.stringify({ id, title, price, whisper, shout, hits })}`)
      })
      assert.deepEqual(replicas.rows, expected.sort())
    }), { numRuns: RUNS, endOnFailure: false })
  })
}
