/** The Redis broker with Redis Sentinel, which promotes a replica when the master fails. */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { Redis } from 'ioredis'
import type { Position } from '../../../lib/index.ts'
import { openBroker, poll } from '../../support/broker.ts'
import { privateRedis, redisServer, startSentinel } from '../../support/redis.ts'

test('follows Sentinel to the promoted replica, in a new epoch', { skip: redisServer.skip, timeout: 60_000 }, async (t) => {
  const [master, replica] = await Promise.all([privateRedis(t), privateRedis(t)])
  const promoted = replica.client()
  await promoted.replicaof('127.0.0.1', master.port)
  await poll(async () => (await promoted.info('replication')).includes('master_link_status:up'))
  const config = join(replica.folder, 'sentinel.conf')
  writeFileSync(config, [
    `sentinel monitor main 127.0.0.1 ${master.port} 1`, 'sentinel down-after-milliseconds main 300', 'sentinel failover-timeout main 3000'
  ].join('\n'))
  const port = await startSentinel(t, config)
  const sentinel = new Redis({ host: '127.0.0.1', port })
  t.after(() => sentinel.disconnect())
  await poll(async () => String(await sentinel.call('SENTINEL', 'replicas', 'main')).includes(String(replica.port)))

  const client = new Redis({ sentinels: [{ host: '127.0.0.1', port }], name: 'main', retryStrategy: () => 20, sentinelRetryStrategy: () => 20 })
  client.on('error', () => {})
  t.after(() => client.disconnect())
  const { broker, recorder } = await openBroker(t, { client, history: { size: 100, ttl: 60_000 }, queue: { timeout: 30_000 } })
  const top = await broker.subscribe('a') as Position
  await broker.publish('a', '{"n":1}')
  await recorder.until('a', '{"n":1}')

  await master.kill()
  await broker.publish('a', '{"n":2}')
  await poll(() => recorder.events.some(({ kind }) => kind === 'lost'))
  await broker.publish('a', '{"n":3}')
  await recorder.until('a', '{"n":3}')

  assert.match(await promoted.info('replication'), /role:master/)
  assert.notEqual(recorder.events.at(-1)?.position?.epoch, top.epoch)
  assert.equal(await broker.history('a', top, 10), undefined)
})
