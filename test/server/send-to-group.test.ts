import assert from 'node:assert/strict'
import { test } from 'node:test'
import { memoryBroker } from '../../lib/index.ts'
import { start } from '../support/server.ts'

test('reaches each member once, and no other connection', async (t) => {
  const server = await start(t, { with: (app) => app.rohrpost.handle('join', ({ data }, connection) => connection.join(String(data))) })
  const [ada, bob, eve] = await Promise.all([server.connect(), server.connect(), server.connect()])
  await Promise.all([ada.call('join', 'a'), bob.call('join', 'a'), eve.call('join', 'e')])
  await ada.call('join', 'a')

  await server.app.rohrpost.sendToGroup('a', { n: 1 })

  assert.deepEqual(await ada.untilPong(), [{ n: 1 }])
  assert.deepEqual(await bob.untilPong(), [{ n: 1 }])
  assert.deepEqual(await eve.untilPong(), [])
})

test('sends strings unchanged, no empty string, and any JSON value', async (t) => {
  const server = await start(t, { onConnect: (connection) => connection.join('a') })
  const { rohrpost } = server.app
  const client = await server.connect()
  await client.call('ping')

  for (const message of ['{ "ä" :1}', 'not JSON', '', 5, true, null, [], {}, { at: new Date(0) }]) await rohrpost.sendToGroup('a', message)
  await rohrpost.sendToGroup('a', 'end')

  const heard: string[] = []
  for (let text = await client.nextText(); text !== 'end'; text = await client.nextText()) heard.push(text)
  assert.deepEqual(heard, ['{ "ä" :1}', 'not JSON', '5', 'true', 'null', '[]', '{}', '{"at":"1970-01-01T00:00:00.000Z"}'])
})

test('rejects other values than objects if the broker keeps history', async (t) => {
  const server = await start(t, { broker: memoryBroker({ history: { size: 10, ttl: 60_000 } }), onConnect: (connection) => connection.join('a') })
  const { rohrpost } = server.app
  const client = await server.connect()
  await client.call('ping')

  for (const message of ['not JSON', '5', '"}"', '[{}]', 'null', '{"a":1', '{"a":1}}', 5, true, null, [], new Date(0), { toJSON: () => 1 }]) {
    await assert.rejects(rohrpost.sendToGroup('a', message), { code: 'RP_ERR_NOT_AN_OBJECT', message: /^Can't send .* to a group/ })
  }
  for (const message of ['', ' {"ä" :1}\n', '{}', {}, { toJSON: () => ({ b: 2 }) }, new Map([['c', 3]])]) await rohrpost.sendToGroup('a', message)

  const heard: string[] = []
  for (let n = 0; n < 5; n++) heard.push(await client.nextText())
  assert.deepEqual(heard, [' {"ä" :1}\n', '{}', '{}', '{"b":2}', '{"c":3}'])
})

test('delivers in the same order to all members', async (t) => {
  const server = await start(t, { onConnect: (connection) => connection.join('a') })
  const clients = await Promise.all([server.connect(), server.connect()])
  await Promise.all(clients.map((client) => client.call('ping')))

  for (let n = 0; n < 100; n++) server.app.rohrpost.sendToGroup('a', { n })

  for (const client of clients) assert.deepEqual((await client.untilPong()).map(({ n }) => n), [...Array(100).keys()])
})

test("rejects and logs messages that can't be sent, without an unhandled rejection", async (t) => {
  const server = await start(t, {
    broker: { ...memoryBroker(), publish: async () => { throw new Error('broker away') } }
  })
  const { rohrpost } = server.app

  await assert.rejects(rohrpost.sendToGroup('a b', 1), { code: 'RP_ERR_INVALID_GROUP' })
  await assert.rejects(rohrpost.sendToGroup('a', undefined), { code: 'RP_ERR_NOT_ENCODABLE', message: /Can't send undefined/ })
  await assert.rejects(rohrpost.sendToGroup('a', 1), /broker away/)
  // this call is not awaited: an unhandled rejection would fail the test
  rohrpost.sendToGroup('b', 1)
  await new Promise(setImmediate)

  const failed = server.logs.filter(({ level }) => level === 50)
  assert.deepEqual(failed.map(({ group }) => group), ['a b', 'a', 'a', 'b'])
})

test('treats any synchronous result of the broker as success', async (t) => {
  const server = await start(t, { broker: { ...memoryBroker(), publish: () => null as unknown as undefined } })

  await server.app.rohrpost.sendToGroup('a', 1)
})

test("answers with an error when the client's group name is invalid", async (t) => {
  const server = await start(t, {
    with: (app) => app.rohrpost.handle('tell', ({ data }) => app.rohrpost.sendToGroup(String(data), { n: 1 }))
  })
  const client = await server.connect()

  const { error, code } = await client.call('tell', 'no spaces')

  assert.equal(code, 'invalid_group')
  assert.match(String(error), /"no spaces"/)
})
