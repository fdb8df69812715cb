import assert from 'node:assert/strict'
import { test } from 'node:test'
import { RohrpostClient } from '../../lib/client/index.ts'
import { start } from '../support/server.ts'

const HOUR = 3_600_000
const LIMITED = { error: 'Too many messages.', code: 'rate_limited', retry: true }

test('accepts max messages of any kind at once, and replies rate_limited to the others', async (t) => {
  let calls = 0
  const server = await start(t, {
    rateLimit: { max: 4, interval: HOUR },
    with: (app) => app.rohrpost.handle('count', () => ++calls).group('todo', { authorize: () => true })
  })
  const client = await server.connect()
  for (const message of [{ id: 1, type: 'count' }, { id: 2, type: 'ping' }, 'no JSON', { id: 3, type: 'nope' }]) client.send(message)
  for (const code of [undefined, undefined, 'invalid_json', 'unknown_type']) assert.equal((await client.next()).code, code)

  for (const type of ['count', 'ping', 'subscribe', 'nope']) {
    assert.deepEqual(await client.ask({ id: type, type, data: { type: 'todo', id: 1 } }), { id: type, type, ...LIMITED })
  }

  assert.deepEqual(await client.ask({ id: null, type: '' }), LIMITED)
  assert.equal((await client.ask('still no JSON')).code, 'invalid_json')
  assert.equal(calls, 1)
  assert.deepEqual([...server.app.rohrpost.connections].map(({ groups }) => [...groups]), [[]])
})

test('accepts messages again after some time', async (t) => {
  const server = await start(t, { rateLimit: { max: 1, interval: 50 } })
  const client = await server.connect()
  let limited = 0
  let answered = 0

  while (limited === 0 || answered < 3) {
    const { code } = await client.ask({ id: 1, type: 'ping' })
    if (code === 'rate_limited') limited++
    else answered++
  }
})

test('counts the messages of each connection separately', async (t) => {
  const server = await start(t, { rateLimit: { max: 1, interval: HOUR } })
  const [one, other] = [await server.connect(), await server.connect()]
  await one.call('ping')

  assert.equal((await one.call('ping')).code, 'rate_limited')
  assert.equal((await other.call('ping')).type, 'pong')
})

test('counts the messages that arrive while onConnect is running', async (t) => {
  const admitted = Promise.withResolvers<void>()
  const server = await start(t, { rateLimit: { max: 1, interval: HOUR }, onConnect: () => admitted.promise })
  const client = await server.connect()
  client.send({ id: 1, type: 'ping' })
  client.send({ id: 2, type: 'ping' })
  await client.read()

  admitted.resolve()

  assert.deepEqual(await client.next(), { id: 1, type: 'pong' })
  assert.deepEqual(await client.next(), { id: 2, type: 'ping', ...LIMITED })
})

test('does not count heartbeats', async (t) => {
  const server = await start(t, { rateLimit: { max: 1, interval: HOUR }, heartbeatInterval: 5 })
  const client = await server.connect()
  for (let i = 0; i < 20; i++) await client.read()

  assert.equal((await client.call('ping')).type, 'pong')
})

test('a flood of 20,000 messages runs no handler and logs nothing, and others are served meanwhile', async (t) => {
  let calls = 0
  const server = await start(t, { rateLimit: { max: 10, interval: HOUR }, with: (app) => app.rohrpost.handle('work', () => ++calls) })
  const [flooding, other] = [await server.connect(), await server.connect()]
  const logged = server.logs.length
  for (let id = 0; id < 20_000; id++) flooding.send({ id, type: 'work' })

  assert.equal((await other.call('work')).data, 11)
  for (let id = 0; id < 20_000; id++) assert.equal((await flooding.next()).code, id < 10 ? undefined : 'rate_limited')

  assert.equal(calls, 11)
  assert.equal(server.logs.length, logged)
})

test('RohrpostClient keeps a connection on which one of its pings exceeds the limit', async (t) => {
  const server = await start(t, { rateLimit: { max: 1, interval: HOUR } })
  const client = new RohrpostClient(`${server.http.replace('http', 'ws')}/ws/rohrpost`, { pingInterval: 500 })
  t.after(() => client.close())
  const events: string[] = []
  client.on('error', (text) => events.push(text)).on('state', (state) => events.push(state))
  const refusals = Promise.withResolvers<void>()
  let count = 0
  client.on('message', () => { if (++count === 3) refusals.resolve() })

  await refusals.promise

  assert.deepEqual(events, ['open'])
})
