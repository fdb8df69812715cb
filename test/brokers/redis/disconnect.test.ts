/** `app.rohrpost.disconnect` on several processes that share a Redis. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { redisBroker } from '../../../lib/brokers/redis/index.ts'
import { privateRedis, redisServer } from '../../support/redis.ts'
import { start } from '../../support/server.ts'

for (const history of [undefined, { size: 100, ttl: 60_000 }]) {
  test(`ends the connections in a group on every process, after what was sent before, ${history ? 'with' : 'without'} history`, { skip: redisServer.skip }, async (t) => {
    const redis = await privateRedis(t)
    const open = () => start(t, {
      broker: redisBroker({ client: redis.client(), ...(history && { history }) }),
      onConnect: (connection) => connection.join((connection.request.query as { group: string }).group)
    })
    const servers = [await open(), await open(), await open()]
    const connect = async (group: string) => Promise.all(servers.map(async (server) => {
      const client = await server.connect(`/ws/rohrpost?group=${group}`)
      await client.untilPong()
      const heard: string[] = []
      client.socket.on('message', (data) => heard.push(String(data)))
      return { client, heard }
    }))
    const [members, others] = [await connect('user:7'), await connect('user:8')]
    const { rohrpost } = servers[0]?.app ?? assert.fail()

    rohrpost.sendToGroup('user:7', { type: 'bye' })
    await rohrpost.disconnect('user:7', 4401, 'signed out')

    for (const { client, heard } of members) {
      assert.deepEqual(await client.closed, { code: 4401, reason: 'signed out' })
      assert.deepEqual(heard, ['{"type":"bye"}'])
    }
    for (const { client } of others) assert.equal((await client.call('ping')).type, 'pong')
  })
}

test('reaches a process also after its connection to Redis was lost', { skip: redisServer.skip }, async (t) => {
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
