/** Statements of the database broker that fail, hang, are repeated, or meet a database that has changed meanwhile. */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { after, suite, test } from 'node:test'
import { DatabaseBroker } from '../../../lib/brokers/database/database-broker.ts'
import { Recorder } from '../../../lib/testing/recorder.ts'
import { poll } from '../../support/broker.ts'
import { intercepted, type Intercept } from './intercept.ts'
import { makeDatabase, openBroker, openClient, settingsOf, skips, type DatabaseName } from './support.ts'

const names: DatabaseName[] = ['SQLite', 'PostgreSQL', 'MariaDB']
const INSERT = /^insert into \S*rohrpost_log\S* /
const isInsert = (sql: string) => INSERT.test(sql)

/** Intercepts the first statement that contains a text. */
function first (text: string | RegExp, intercept: Intercept): Intercept {
  let isOver = false
  return async (sql, run) => {
    if (isOver || !(typeof text === 'string' ? sql.includes(text) : text.test(sql))) return await run()
    isOver = true
    return await intercept(sql, run)
  }
}

for (const name of names) {
  suite(`statements on ${name}`, { skip: skips[name] }, async () => {
    const database = await makeDatabase(name, after)

    test('an INSERT whose answer is lost is not repeated in the log', async (t) => {
      const { settings, hook } = intercepted(database.orm)
      const { broker, recorder } = await openBroker(t, database, settings)
      const group = randomUUID()
      await broker.subscribe(group)
      const sent: string[] = []
      let isLost = false
      hook.intercept = async (sql, run) => {
        if (isInsert(sql)) sent.push(sql)
        const rows = await run()
        if (isLost || !(name === 'MariaDB' ? sql === 'commit' : isInsert(sql))) return rows
        isLost = true
        throw new Error(name === 'SQLite' ? 'database is locked' : 'the connection is lost')
      }

      await broker.publish(group, '{"n":1}')
      await broker.publish(group, '{"n":2}')
      await recorder.until(group, '{"n":2}')

      assert.deepEqual(recorder.payloads(group), ['{"n":1}', '{"n":2}'])
      assert.equal(sent.length, 3)
    })

    test('a connector and its connections can be closed at any time', async () => {
      await settingsOf(database.orm).dialect.connector().close()
      const connector = settingsOf(database.orm).dialect.connector()
      const connection = await connector.connect({ onLost () {}, onNotification () {} })
      connection.destroy()
      connection.destroy()
      await connector.close()
    })

    test('messages are written to tables that were cleared', async (t) => {
      const { broker, recorder } = await openBroker(t, database, { pollInterval: 60_000 })
      const group = randomUUID()
      await broker.subscribe(group)

      await database.run('delete from rohrpost_log_state')
      await broker.publish(group, '{"n":1}')
      await broker.subscribe(group)
      await broker.publish(group, '{"n":2}')

      await recorder.until(group, '{"n":2}')
    })
  })
}

suite('statements', async () => {
  const database = await makeDatabase('SQLite', after)
  await database.run('pragma journal_mode = wal')

  test('health shows a connection that is being made, and refused or hanging writes', async (t) => {
    const { settings, hook } = intercepted(database.orm)
    const broker = new DatabaseBroker({ ...settings, limits: { messages: 10, bytes: 1000, timeout: 400 } })
    const recorder = new Recorder()
    t.after(() => broker.close())
    const opening = broker.open(recorder)
    assert.deepEqual(broker.health(), { ok: false, detail: 'no connection to SQLite: it is being made' })
    await opening

    hook.intercept = first(INSERT, async () => { throw new Error('no space') })
    await assert.rejects(async () => broker.publish('g', '{}'), { code: 'RP_ERR_NOT_PUBLISHED', message: /no space/ })
    assert.deepEqual(broker.health(), { ok: false, detail: 'SQLite refuses to write: no space' })
    await broker.publish('g', '{}')

    const answer = Promise.withResolvers<void>()
    hook.intercept = first(INSERT, async (_sql, run) => {
      await answer.promise
      return await run()
    })
    const published = broker.publish('g', '{}')
    await poll(() => /^SQLite has not answered for \d+ ms$/.test(String(broker.health().detail)))
    answer.resolve()
    await published
    assert.deepEqual(broker.health(), { ok: true })
  })

  test('an INSERT that can succeed later is reported after a second', async (t) => {
    const { settings, hook } = intercepted(database.orm)
    const { broker, recorder } = await openBroker(t, database, settings)
    hook.intercept = async (sql, run) => {
      if (isInsert(sql) && recorder.errors.length === 0) throw new Error('database is locked')
      return await run()
    }

    await broker.publish('g', '{}')

    assert.deepEqual(recorder.errors.map(({ message }) => message), ['database is locked'])
  })

  test('messages that wait too long in the turn in which they were published are rejected', async (t) => {
    const { broker } = await openBroker(t, database, { limits: { messages: 10, bytes: 1000, timeout: 20 } })
    await new Promise(setImmediate)

    const rejected = assert.rejects(async () => broker.publish('g', '{}'), { code: 'RP_ERR_NOT_PUBLISHED', message: /within 20 ms/ })
    for (const end = performance.now() + 40; performance.now() < end;);

    await rejected
  })

  test('reports reads that fail repeatedly, and that they succeed again', async (t) => {
    const { settings, hook } = intercepted(database.orm)
    const { broker, recorder } = await openBroker(t, database, { ...settings, pollInterval: 5 })
    const group = randomUUID()
    await broker.subscribe(group)
    hook.intercept = async (sql, run) => {
      if (sql.includes('left join') && recorder.errors.length === 0) throw new Error('database is locked')
      return await run()
    }

    await broker.publish(group, '{"n":1}')
    await recorder.until(group, '{"n":1}')

    assert.deepEqual(recorder.errors.map(({ message }) => message), ['database is locked'])
    await recorder.when('notice', () => recorder.notices.some(({ text }) => text === 'SQLite can be read again'))
  })

  test('refuses to open when the database refuses the tables or has no epoch', async () => {
    const { settings, hook } = intercepted(database.orm)
    hook.intercept = first('where 1 = 0', async () => { throw new Error('not authorized') })
    await assert.rejects(async () => new DatabaseBroker(settings).open(new Recorder()), { code: 'RP_ERR_BROKER_UNAVAILABLE', message: /SQLite refuses it \(not authorized\)/ })

    hook.intercept = async (sql, run) => sql.includes('left join') ? [{ source: null }] : await run()
    const broker = new DatabaseBroker({ ...settings, limits: { messages: 10, bytes: 1000, timeout: 100 } })
    await assert.rejects(async () => broker.open(new Recorder()), { code: 'RP_ERR_BROKER_UNAVAILABLE', message: /did not answer within 100 ms \(SQLite does not tell the epoch of the log\)/ })
  })

  test('messages that are deleted while history is read are gone', async (t) => {
    const { settings, hook } = intercepted(database.orm)
    const { broker } = await openBroker(t, database, settings)
    const group = randomUUID()
    const top = await broker.subscribe(group) ?? assert.fail()
    broker.unsubscribe(group)
    await broker.publish(group, '{}')

    hook.intercept = first('payload is not null', async () => [])

    assert.equal(await broker.history(group, top, 100), undefined)
  })

  test('a payload that is missing when it is read is read again', async (t) => {
    const { settings, hook } = intercepted(database.orm)
    const { broker, recorder } = await openBroker(t, database, settings)
    const group = randomUUID()
    await broker.subscribe(group)
    hook.intercept = first('payload is not null', async () => [])

    await broker.publish(group, '{"n":1}')
    await recorder.until(group, '{"n":1}')

    assert.deepEqual(recorder.payloads(group), ['{"n":1}'])
  })

  test('large messages are read in portions', async (t) => {
    const { settings, hook } = intercepted(database.orm)
    const { broker, recorder } = await openBroker(t, database, settings)
    const group = randomUUID()
    await broker.subscribe(group)
    let reads = 0
    hook.intercept = (sql, run) => {
      if (sql.includes('payload is not null')) reads++
      return run()
    }
    const payload = (n: number) => JSON.stringify({ n, text: 'x'.repeat(600_000) })

    await database.run('insert into rohrpost_log (group_name, payload, created_at) values (?, ?, ?), (?, ?, ?)', [
      group, payload(1), Date.now(), group, payload(2), Date.now()
    ])
    await recorder.until(group, payload(2))

    assert.equal(recorder.payloads(group).length, 2)
    assert.equal(reads, 2)
  })

  test('an epoch that begins while a position is read is that of the position', async (t) => {
    const { settings, hook } = intercepted(database.orm)
    const { broker, recorder } = await openBroker(t, database, { ...settings, pollInterval: 5 })
    const [one, two] = [randomUUID(), randomUUID()]
    await broker.subscribe(one)
    hook.intercept = first('as place', async (_sql, run) => {
      await database.run("update rohrpost_log_state set value = 'another' where name = 'epoch'")
      await recorder.when('word of the loss', () => recorder.of(one).some(({ kind }) => kind === 'lost'))
      return await run()
    })

    const top = await broker.subscribe(two)

    assert.equal(top?.epoch, recorder.of(one)[0]?.position?.epoch)
  })

  test('a log that is emptied while it is opened begins a new epoch', async (t) => {
    const { settings, hook } = intercepted(database.orm)
    const writer = await openBroker(t, database)
    await writer.broker.publish('g', '{}')
    await writer.broker.close()
    hook.intercept = first(/^select max\(id\) as top/, async (_sql, run) => {
      const rows = await run()
      await database.run('delete from rohrpost_log')
      return rows
    })

    const { broker, recorder } = await openBroker(t, database, settings)

    // the row that was the newest one is missing, as after a TRUNCATE, which lets ids begin again
    assert.equal((await broker.subscribe(randomUUID()))?.offset, 0)
    await broker.subscribe('g')
    await broker.publish('g', '{"n":1}')
    await recorder.until('g', '{"n":1}')
  })

  test('a reader that is late goes on after rows that were deleted because of their age', async (t) => {
    const { broker, recorder } = await openBroker(t, database, { pollInterval: 60_000 })
    const group = randomUUID()
    const client = await openClient(t, database)
    const insert = (n: number) => client.run(`insert into rohrpost_log (group_name, payload, created_at) values ('${group}', '{"n":${n}}', ${Date.now()})`)
    const top = await broker.subscribe(group) ?? assert.fail()
    await insert(1)
    await broker.history(group, top, 100)
    const epoch = recorder.positions(group)[0]?.epoch
    for (const n of [2, 3]) await insert(n)
    const [, second] = await database.run('select id from rohrpost_log where group_name = ? order by id', [group])
    await database.run("delete from rohrpost_log_state where name = 'thinned'")
    await database.run("insert into rohrpost_log_state values ('thinned', ?)", [`${epoch}/${String(second?.id)}`])
    await database.run("delete from rohrpost_log where payload = '{\"n\":1}' and group_name = ?", [group])

    await broker.history(group, top, 100)

    assert.deepEqual(recorder.payloads(group), ['{"n":1}', '{"n":2}', '{"n":3}'])
    assert.deepEqual(recorder.of(group).filter(({ kind }) => kind === 'lost'), [])
  })

  test('members of a log without history are told that it was emptied', async (t) => {
    const { broker, recorder } = await openBroker(t, database, { history: undefined, pollInterval: 5 })
    await broker.subscribe('g')
    await broker.publish('g', '{}')
    await recorder.until('g', '{}')

    await database.orm.schema.clear({ truncate: true })

    await recorder.when('word of the loss', () => recorder.of('g').some(({ kind }) => kind === 'lost'))
    assert.equal(recorder.of('g')[1]?.position, undefined)
  })
})
