/** What can't be recovered is refused: on the wire, with a Redis that really forgot. */
import assert from 'node:assert/strict'
import { suite, test, type TestContext } from 'node:test'
import { redisBroker } from '../../lib/brokers/redis/index.ts'
import type { HistoryOptions, Position } from '../../lib/index.ts'
import { privateRedis, redisServer } from '../support/redis.ts'
import { start } from '../support/server.ts'

const todo = { type: 'todo', id: 5 }

/** Somebody who left after the first message, and may come back later. */
async function leave (t: TestContext, history: HistoryOptions) {
  const redis = await privateRedis(t)
  const server = await start(t, {
    broker: redisBroker({ client: redis.client(), history }),
    with: (app) => app.rohrpost.group('todo', { authorize: () => true })
  })
  const publish = (n: number) => server.app.rohrpost.sendToGroup('todo-5', { n })
  const subscribe = async (recover: unknown) => {
    const client = await server.connect()
    const answer = await client.ask({ id: 1, type: 'subscribe', data: todo, recover })
    return { client, answer, position: answer.position as Position }
  }
  const { client, position } = await subscribe(true)
  await publish(1)
  const message = await client.next()
  client.socket.terminate()
  return { redis, server, publish, subscribe, begin: position, position: message.position as Position }
}

suite('a client that comes back to Redis', { skip: redisServer.skip }, () => {
  test('receives the missed messages if Redis still has them', async (t) => {
    const { publish, subscribe, position } = await leave(t, { size: 10, ttl: 60_000 })
    await publish(2)

    const { answer, client } = await subscribe(position)

    assert.equal(answer.recovered, true)
    assert.deepEqual(await client.next(), { n: 2, position: { ...position, offset: 2 } })
  })

  const ways: Record<string, (gone: Awaited<ReturnType<typeof leave>>) => unknown> = {
    'after newer messages took the place of what it missed': async ({ publish }) => {
      for (let n = 2; n <= 20; n++) await publish(n)
    },
    'after the time for which messages are kept': async ({ redis, publish }) => {
      await publish(2)
      const client = redis.client()
      while (await client.exists('rohrpost:log:todo-5') === 1) await new Promise(setImmediate)
    },
    'after FLUSHALL': async ({ redis, publish }) => {
      await redis.client().flushall()
      await publish(2)
    },
    'after a restart': async ({ redis, server, publish }) => {
      await redis.kill()
      await redis.start()
      while (!server.app.rohrpost.health().ok) await new Promise(setImmediate)
      await publish(2)
    },
    'with a position of another epoch': ({ position }) => { Object.assign(position, { epoch: 'another' }) },
    'with a position beyond the last message': ({ position }) => { Object.assign(position, { offset: 7 }) }
  }
  for (const [when, happen] of Object.entries(ways)) {
    test(`is not recovered ${when}, and continues at the top`, async (t) => {
      const gone = await leave(t, { size: 5, ttl: when.includes('time') ? 100 : 60_000 })
      await happen(gone)

      const { answer, position, client } = await gone.subscribe(gone.position)

      assert.equal(answer.recovered, false)
      await gone.publish(100)
      assert.deepEqual(await client.next(), { n: 100, position: { ...position, offset: position.offset + 1 } })
    })
  }
})
