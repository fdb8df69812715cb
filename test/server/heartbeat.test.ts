import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Heartbeat } from '../../lib/server/heartbeat.ts'
import { start } from '../support/server.ts'

test('calls each connection once in an interval, spread over many turns', (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] })
  const heartbeat = new Heartbeat(30_000)
  t.after(() => heartbeat.stop())
  const calls = new Map<object, number>()
  let inThisTurn = 0
  const connections = Array.from({ length: 10_000 }, () => ({
    beat () {
      calls.set(this, (calls.get(this) ?? 0) + 1)
      inThisTurn++
    }
  }))
  for (const connection of connections) heartbeat.add(connection)

  let most = 0
  for (let round = 1; round <= 3; round++) {
    for (let at = 0; at < 30_000; at += 100) {
      inThisTurn = 0
      t.mock.timers.tick(100)
      most = Math.max(most, inThisTurn)
    }
    assert.ok(connections.every((connection) => calls.get(connection) === round))
  }
  assert.ok(most < 200, `${most} at once`)

  for (const connection of connections.slice(1)) heartbeat.delete(connection)
  t.mock.timers.tick(30_000)
  assert.deepEqual(connections.slice(0, 2).map((connection) => calls.get(connection)), [4, 3])
})

test('pings silent clients, but no client that has just sent a message', async (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] })
  const server = await start(t, { heartbeatInterval: 100 })
  const client = await server.connect(undefined, { autoPong: false })
  let pings = 0
  client.socket.on('ping', () => pings++)
  const beat = () => t.mock.timers.tick(100)

  beat()
  await client.call('ping')
  assert.equal(pings, 1, 'it had said nothing')
  beat()
  await client.call('ping')
  assert.equal(pings, 1, 'it had just sent a message')
  beat()
  beat()
  await client.call('ping')
  assert.equal(pings, 2, 'it had said nothing in the second interval')

  for (let n = 0; n < 3; n++) beat()
  assert.equal((await client.closed).code, 1006)
})
