import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { createInterface } from 'node:readline'
import { test, type TestContext } from 'node:test'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { RohrpostClient } from '../../lib/client/index.ts'
import { poll } from '../support/broker.ts'
import { newFile } from '../support/demo.ts'
import { privateRedis, redisServer } from '../support/redis.ts'

const use = new URL('../../scripts/use-sources.ts', import.meta.url).href
const start = fileURLToPath(new URL('../../examples/processes/start.ts', import.meta.url))

const title = 'examples/processes: what is said in one process shows in both, also to a page that was away'

test(`${title}, through the database`, { timeout: 120_000 }, (t) => talk(t, {}))

test(`${title}, through Redis`, { skip: redisServer.skip, timeout: 120_000 }, async (t) => {
  const redis = await privateRedis(t)
  await talk(t, { REDIS_URL: `redis://127.0.0.1:${redis.port}` })
})

test('examples/processes: says which port is taken, and ends', { timeout: 120_000 }, async (t) => {
  const taken = createServer().listen(0)
  t.after(() => taken.close())
  await once(taken, 'listening')
  const { port } = taken.address() as AddressInfo

  const child = run(t, { PORT: String(port), DATABASE: newFile(t) })
  const [errors, [code]] = await Promise.all([text(child.stderr), once(child, 'exit')])

  assert.equal(code, 1)
  assert.match(errors, new RegExp(`It can't listen on port ${port}, see above. PORT names the first of two other ports.`))
})

test('examples/processes: says what to do about a file that it can not use', { timeout: 120_000 }, async (t) => {
  const file = newFile(t)
  writeFileSync(file, 'no database')

  const child = run(t, { DATABASE: file })
  const [errors, [code]] = await Promise.all([text(child.stderr), once(child, 'exit')])

  assert.equal(code, 1)
  assert.equal(errors, `The database ${file} can't be used: file is not a database
Delete the file to begin with a new one, or name another one in DATABASE.
`)
})

function run (t: TestContext, env: NodeJS.ProcessEnv) {
  const child = spawn(process.execPath, ['--import', use, start], {
    env: { ...process.env, REDIS_URL: '', PORT: '0', ...env }, stdio: ['ignore', 'pipe', 'pipe']
  })
  t.after(() => child.kill('SIGTERM'))
  return child
}

/** Has two clients talk to a process each; one process is killed meanwhile. */
async function talk (t: TestContext, env: NodeJS.ProcessEnv): Promise<void> {
  const child = run(t, { ...env, DATABASE: newFile(t) })
  child.stderr.pipe(process.stderr)
  const started = new Map<string, { pid: number, url: string }>()
  createInterface(child.stdout).on('line', (line) => {
    const [, number = '', pid, url] = /^Process (\d) \((\d+)\) is at (.*)$/.exec(line) ?? []
    if (url !== undefined) started.set(number, { pid: Number(pid), url })
  })
  await poll(() => started.size === 2)

  const heard: string[][] = []
  const clients = await Promise.all(['1', '2'].map(async (number, index) => {
    const { url } = started.get(number) ?? assert.fail()
    const client = new RohrpostClient(`${url.replace('http', 'ws')}ws/rohrpost`, { backoff: { min: 20, max: 200 } })
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
  const page = await (await fetch(started.get('1')?.url ?? '')).text()
  assert.match(page, /One board, two processes/)

  await say(0, 'one')
  await say(1, 'two')
  await poll(() => heard.every((texts) => texts.includes('two')))
  const killed = started.get('2')?.pid ?? assert.fail()
  process.kill(killed, 'SIGKILL')
  await say(0, 'while one was away')
  await poll(() => started.get('2')?.pid !== killed)
  await say(1, 'three')
  await poll(() => heard.every((texts) => texts.includes('three')))

  for (const texts of heard) assert.deepEqual(texts, ['one', 'two', 'while one was away', 'three'])
  const posts = await clients[1]?.call('posts') as { text: string }[]
  assert.deepEqual(posts.map(({ text }) => text), ['one', 'two', 'while one was away', 'three'])
}
