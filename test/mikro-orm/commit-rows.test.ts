/** The statements that insert rows as part of a COMMIT, with transactions that only record them. */
import assert from 'node:assert/strict'
import test from 'node:test'
import type { EntityManager, Transaction } from '@mikro-orm/core'
import { BaseMySqlPlatform, BasePostgreSqlPlatform, SqlitePlatform } from '@mikro-orm/sql'
import { insertWithCommit, insertText, removeInserted } from '../../lib/mikro-orm/capture/commit-rows.ts'

type Answer = (sql: string) => object[]

/** Makes a transaction. @param answer returns the rows of a statement, or throws its error */
function open (platform: object, answer: Answer = () => []) {
  const statements: unknown[] = []
  const executeQuery = async ({ sql, parameters }: { sql: string, parameters: unknown[] }) => {
    statements.push(parameters.length === 0 ? sql : [sql, parameters])
    return { rows: answer(sql) }
  }
  const em = { getPlatform: () => platform } as unknown as EntityManager
  const transaction = { getExecutor: () => ({ provideConnection: (run: (connection: object) => unknown) => run({ executeQuery }) }) }
  return { em, transaction: transaction as unknown as Transaction, statements }
}

const rows = { table: '"log"', columns: ['a', 'b'], rows: [['1', null], ["\\'", '?']] }
const turn = { take: 'take', create: 'create' }

function fail (fields: object): never {
  throw Object.assign(new Error('refused'), fields)
}

test('a text for PostgreSQL is quoted, whatever its session has set', () => {
  assert.equal(insertText(rows), "insert into \"log\" (a, b) values ('1', null), ( E'\\\\''', '?')")
  assert.equal(
    insertText({ ...rows, rows: [["a'", 'b']], computed: { at: 'now()' } }), "insert into \"log\" (a, b, at) values ('a''', 'b', now())"
  )
  assert.throws(() => insertText({ ...rows, rows: [['a\0b', null]] }), { code: 'RP_ERR_NOT_PUBLISHED' })
})

test('more than 1000 rows, or more than 1 MiB, are several statements', () => {
  const text = 'é'.repeat(300_000)
  assert.equal(insertText({ ...rows, rows: Array.from({ length: 1001 }, () => ['1', '2']) }), undefined)
  assert.equal(insertText({ ...rows, rows: [[text, null], [text, null]] }), undefined)
  assert.notEqual(insertText({ ...rows, rows: Array.from({ length: 1000 }, () => ['1', '2']) }), undefined)
  assert.notEqual(insertText({ ...rows, rows: [[text.repeat(3), null]] }), undefined)
})

test('PostgreSQL limits the time between the INSERT and the COMMIT, and keeps the order', async () => {
  const { em, transaction, statements } = open(new BasePostgreSqlPlatform())

  await insertWithCommit(em, transaction, rows)

  assert.deepEqual(statements.map((sql) => String(sql).replaceAll(/\s+/g, ' ')), [
    "with guard as (select set_config('idle_in_transaction_session_timeout', '5s', true)) insert into \"log\" (a, b) " +
    "select value0, value1 from guard, (values (0, '1', null), (1, E'\\\\''', '?')) as list (place, value0, value1) order by place"
  ])
})

test('MySQL is asked whether it has rolled back the transaction', async () => {
  class MySqlPlatform extends BaseMySqlPlatform {}
  const check = ['savepoint rohrpost_alive', 'release savepoint rohrpost_alive']
  const platform = new MySqlPlatform()

  const alive = open(platform)
  await insertWithCommit(alive.em, alive.transaction, rows)
  assert.deepEqual(alive.statements, [...check, ['insert into "log" (a, b) values (?, ?), (?, ?)', ['1', null, "\\'", '?']]])

  for (const [errno, expected] of [[1305, { code: 'RP_ERR_ROLLED_BACK' }], [1064, /refused/]] as const) {
    const over = open(platform, (sql) => sql.startsWith('release') ? fail({ errno }) : [])
    await assert.rejects(insertWithCommit(over.em, over.transaction, rows), expected)
    assert.deepEqual(over.statements, check)
  }
})

test('a transaction without the turn inserts nothing', async () => {
  for (const answer of [() => [], () => [{ alive: 0 }]]) {
    const { em, transaction, statements } = open({}, answer)
    await assert.rejects(insertWithCommit(em, transaction, { ...rows, turn }), { code: 'RP_ERR_ROLLED_BACK' })
    assert(!statements.some((statement) => String(statement).startsWith('insert')))
  }
})

test('SQLite removes the rows after a refused COMMIT, unless the transaction is over', async () => {
  const running = open(new SqlitePlatform())
  await insertWithCommit(running.em, running.transaction, { ...rows, rows: [] })
  await removeInserted(running.em, running.transaction)
  assert.deepEqual(running.statements, ['savepoint rohrpost_rows', 'rollback to savepoint rohrpost_rows', 'release savepoint rohrpost_rows'])

  const over = open(new SqlitePlatform(), () => fail({}))
  await removeInserted(over.em, over.transaction)
  const other = open(new BasePostgreSqlPlatform())
  await removeInserted(other.em, other.transaction)
  assert.deepEqual([over.statements, other.statements], [['rollback to savepoint rohrpost_rows'], []])
})
