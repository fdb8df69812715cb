import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { RohrpostClient } from '../../lib/client/index.ts'
import { poll } from '../support/broker.ts'
import { privateRedis, redisServer } from '../support/redis.ts'

test('examples/processes: what is said in one process is heard in all, also by who was away', { skip: redisServer.skip, timeout: 90_000 }, async (t) => {
  const redis = await privateRedis(t)
  const child = spawn(process.execPath, [
    '--import', new URL('../../scripts/use-sources.ts', import.meta.url).href, fileURLToPath(new URL('../../examples/processes/start.ts', import.meta.url))
  ], {
    env: { ...process.env, PORT: '0', REDIS_URL: `redis://127.0.0.1:${redis.port}` }, stdio: ['ignore', 'pipe', 'inherit']
  })
  t.after(() => child.kill('SIGTERM'))
  const started = new Map<string, { pid: number, url: string }>()
  createInterface(child.stdout).on('line', (line) => {
    const [, number = '', pid, address] = /^Process (\d) \((\d+)\) is at (.*)$/.exec(line) ?? []
    if (address !== undefined) started.set(number, { pid: Number(pid), url: `${address.replace('http', 'ws')}ws/rohrpost` })
  })
  await poll(() => started.size === 3)

  const heard: string[][] = []
  const clients = await Promise.all(['1', '2', '3'].map(async (number, index) => {
    const { url } = started.get(number) ?? assert.fail()
    const client = new RohrpostClient(url, { backoff: { min: 20, max: 200 } })
    t.after(() => client.close())
    const texts: string[] = heard[index] = []
    await client.subscribe({ type: 'board' })
    client.on('board', (_, change) => texts.push((change.object as unknown as { text: string }).text))
    client.on('resync', () => texts.push('resync'))
    return client
  }))
  const say = async (index: number, text: string) => {
    await clients[index]?.ready()
    await clients[index]?.call('say', { text })
  }
  const page = await (await fetch(started.get('1')?.url.replace(/^ws(.*)ws\/rohrpost$/, 'http$1') ?? '')).text()
  assert.match(page, /One board, three processes/)

  await say(0, 'one')
  await say(1, 'two')
  await poll(() => heard.every((texts) => texts.includes('two')))
  const killed = started.get('3')?.pid ?? assert.fail()
  process.kill(killed, 'SIGKILL')
  await say(0, 'while one was away')
  await poll(() => started.get('3')?.pid !== killed)
  await say(2, 'three')
  await poll(() => heard.every((texts) => texts.includes('three')))

  for (const texts of heard) assert.deepEqual(texts, ['one', 'two', 'while one was away', 'three'])
})
