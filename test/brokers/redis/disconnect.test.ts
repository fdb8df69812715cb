/** `app.rohrpost.disconnect` on several processes that share a Redis. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { redisBroker } from '../../../lib/brokers/redis/index.ts'
import { privateRedis, redisServer } from '../../support/redis.ts'
import { start } from '../../support/server.ts'

for (const history of [undefined, { size: 100, ttl: 60_000 }]) {
  test(`closes the connections in a group on every process, after earlier messages, ${history ? 'with' : 'without'} history`, { skip: redisServer.skip }, async (t) => {
    const redis = await privateRedis(t)
    const open = () => start(t, {
      broker: redisBroker({ client: redis.client(), ...(history && { history }) }),
      onConnect: (connection) => connection.join((connection.request.query as { group: string }).group)
    })
    const servers = [await open(), await open(), await open()]
    const connect = async (group: string) => Promise.all(servers.map(async (server) => {
      const client = await server.connect(`/ws/rohrpost?group=${group}`)
      await client.untilPong()
      const received: string[] = []
      client.socket.on('message', (data) => received.push(String(data)))
      return { client, received }
    }))
    const [members, others] = [await connect('user:7'), await connect('user:8')]
    const { rohrpost } = servers[0]?.app ?? assert.fail()

    rohrpost.sendToGroup('user:7', { type: 'bye' })
    await rohrpost.disconnect('user:7', 4401, 'signed out')

    for (const { client, received } of members) {
      assert.deepEqual(await client.closed, { code: 4401, reason: 'signed out' })
      assert.deepEqual(received, ['{"type":"bye"}'])
    }
    for (const { client } of others) assert.equal((await client.call('ping')).type, 'pong')
  })
}

test('reaches a process whose connection to Redis was lost before', { skip: redisServer.skip }, async (t) => {
  const redis = await privateRedis(t)
  const open = () => start(t, {
    broker: redisBroker({ client: redis.client(), history: { size: 100, ttl: 60_000 } }),
    onConnect: (connection) => connection.join('user:7')
  })
  const [one, other] = [await open(), await open()]
  const client = await other.connect()
  await client.untilPong()

  await redis.cut()
  while (!one.app.rohrpost.health().ok || !other.app.rohrpost.health().ok) await new Promise(setImmediate)
  await one.app.rohrpost.disconnect('user:7')

  assert.equal((await client.closed).code, 4403)
})
