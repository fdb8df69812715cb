/** Ids that are missing: readers wait for transactions that may still commit, and never longer than they must. */
import { randomUUID } from 'node:crypto'
import assert from 'node:assert/strict'
import { after, suite, test, type TestContext } from 'node:test'
import { poll } from '../../support/broker.ts'
import { makeDatabase, openBroker, openClient, type Client, type DatabaseName, skips, type TestDatabase } from './support.ts'

/** Inserts a message by hand, as a transaction of an application does. */
async function insert (client: Client, group: string, n: number): Promise<void> {
  if (client.name === 'MariaDB') await client.run("select value from rohrpost_log_state where name = 'turn' lock in share mode")
  await client.run(`insert into rohrpost_log (group_name, payload, created_at) values ('${group}', '{"n":${n}}', ${Date.now()})`)
}

async function setUp (t: TestContext, database: TestDatabase, patience = { usual: 10_000, opening: 2000, frozen: 20 }) {
  const { broker, recorder } = await openBroker(t, database, { patience, pollInterval: 20 })
  const group = randomUUID()
  const top = await broker.subscribe(group)
  assert.ok(top)
  return { broker, recorder, group, top, one: await openClient(t, database), two: await openClient(t, database) }
}

for (const name of ['PostgreSQL', 'MariaDB'] as DatabaseName[]) {
  suite(`holes on ${name}`, { skip: skips[name] }, async () => {
    const database = await makeDatabase(name, after)

    test('a message that commits after one with a larger id is delivered before it', async (t) => {
      const { broker, group, one, recorder, two } = await setUp(t, database)
      await one.run('begin')
      await insert(one, group, 1)
      await two.run('begin')
      await insert(two, group, 2)
      await two.run('commit')

      await poll(() => broker.health().detail?.startsWith('the log has been waiting for'))
      assert.deepEqual(recorder.payloads(group), [])
      await one.run('commit')
      await recorder.until(group, '{"n":2}')

      assert.deepEqual(recorder.payloads(group), ['{"n":1}', '{"n":2}'])
    })

    test('a message that is rolled back leaves an id that is passed', async (t) => {
      const { group, one, recorder, two } = await setUp(t, database)
      await one.run('begin')
      await insert(one, group, 1)
      await two.run('begin')
      await insert(two, group, 2)
      await two.run('commit')

      await one.run('rollback')
      await recorder.until(group, '{"n":2}')
      await one.run('begin')
      await insert(one, group, 3)
      await one.run('rollback')
      await insert(two, group, 4)
      await recorder.until(group, '{"n":4}')

      assert.deepEqual(recorder.payloads(group), ['{"n":2}', '{"n":4}'])
      assert.deepEqual(recorder.errors, [])
    })

    test('a savepoint that is rolled back leaves an id that is passed, its transaction commits', async (t) => {
      const { group, one, recorder, two } = await setUp(t, database)
      await one.run('begin')
      await one.run('savepoint s')
      await insert(one, group, 1)
      await one.run('rollback to savepoint s')
      await insert(two, group, 2)
      await insert(one, group, 3)
      await insert(two, group, 4)
      await one.run('commit')

      await recorder.until(group, '{"n":4}')
      assert.deepEqual(recorder.payloads(group), ['{"n":2}', '{"n":3}', '{"n":4}'])
    })

    test('a frozen transaction stops the groups for a bounded time, and is reported; if it commits after all, members are told', async (t) => {
      const { broker, group, one, recorder, top, two } = await setUp(t, database, { usual: 300, opening: 300, frozen: 50 })
      await one.run('begin')
      await insert(one, group, 1)
      await insert(two, group, 2)

      await recorder.until(group, '{"n":2}')
      assert.equal(recorder.errors.length, 1)
      assert.match(String(recorder.errors[0]), name === 'PostgreSQL' ? /no longer waits for process \d+ \(user '\w+', application '', idle in transaction\), which may have written/ : /no longer waits for a transaction that shares the turn, probably of connection \d+ \(open for \d+ s\)/)
      // a second hole is not waited for again
      await insert(one, group, 5)
      await insert(two, group, 3)
      await recorder.until(group, '{"n":3}')
      assert.equal(recorder.errors.length, 1)

      await one.run('commit')
      await recorder.when('word of the loss', () => recorder.of(group).some(({ kind }) => kind === 'lost'))
      await insert(two, group, 4)
      await recorder.until(group, '{"n":4}')

      assert.deepEqual(recorder.of(group).map((heard) => heard.kind === 'message' ? heard.payload : 'lost'), ['{"n":2}', '{"n":3}', 'lost', '{"n":4}'])
      assert.deepEqual((await database.run('select payload from rohrpost_log where group_name = ? order by id', [group])).map(({ payload }) => payload), ['{"n":2}', '{"n":3}', null, '{"n":4}'])
      assert.equal(await broker.history(group, top, 100), undefined, 'the lost message is among those that are missed')
      assert.deepEqual(await broker.history(group, recorder.positions(group)[2] ?? top, 100), [])
      await poll(async () => (await database.run('select * from rohrpost_log_passed')).length === 0)
    })

    test('a frozen transaction delays the start of a process for a bounded time', async (t) => {
      const { group, one, two } = await setUp(t, database)
      await one.run('begin')
      await insert(one, group, 1)
      await insert(two, group, 2)

      const { broker, recorder } = await openBroker(t, database, { patience: { usual: 10_000, opening: 100, frozen: 50 }, pollInterval: 20 })
      await broker.subscribe(group)
      await insert(two, group, 3)
      await recorder.until(group, '{"n":3}')
      assert.equal(recorder.errors.length, 1)
    })
  })
}

suite('holes on PostgreSQL only', { skip: skips.PostgreSQL }, async () => {
  const database = await makeDatabase('PostgreSQL', after)

  test('an open session of an administrator delays messages for a bounded time, and once', async (t) => {
    const { group, one, recorder, two } = await setUp(t, database, { usual: 100, opening: 100, frozen: 20 })
    const admin = await openClient(t, database)
    await admin.run("set application_name = 'psql'")
    await admin.run('begin')
    await admin.run('delete from rohrpost_log where false')

    for (const n of [1, 2, 3]) {
      await one.run('begin')
      await insert(one, group, 0)
      await one.run('rollback')
      await insert(two, group, n)
      await recorder.until(group, `{"n":${n}}`)
    }

    assert.equal(recorder.errors.length, 1)
    assert.match(String(recorder.errors[0]), /application 'psql', idle in transaction/)
    await admin.run('commit')
    await poll(async () => (await database.run('select * from rohrpost_log_passed')).length === 0)
    assert.deepEqual(recorder.of(group).filter(({ kind }) => kind === 'lost'), [])
  })

  test('a transaction that writes elsewhere is not waited for', async (t) => {
    const { group, one, recorder, two } = await setUp(t, database)
    await database.run('create table other (n int)')
    await one.run('begin')
    await one.run('insert into other values (1)')
    await two.run('begin')
    await insert(two, group, 1)
    await two.run('rollback')
    await insert(two, group, 2)

    await recorder.until(group, '{"n":2}')
  })
})

suite('holes on MariaDB only', { skip: skips.MariaDB }, async () => {
  const database = await makeDatabase('MariaDB', after)

  test('a message that was rolled back is not waited for longer because others write all the time', async (t) => {
    const { group, recorder, one, two } = await setUp(t, database)
    const writers = await Promise.all(Array.from({ length: 6 }, () => openClient(t, database)))
    const over = new AbortController()
    const writing = Promise.all(writers.map(async (writer) => {
      while (!over.signal.aborted) {
        await writer.run('begin')
        await insert(writer, 'others', 0)
        await writer.run('do sleep(0.02)')
        await writer.run('commit')
      }
    }))

    await one.run('begin')
    await insert(one, group, 1)
    await insert(two, group, 2)
    await one.run('rollback')
    await recorder.until(group, '{"n":2}')
    over.abort()
    await writing

    assert.deepEqual(recorder.errors, [])
  })
})
