import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import { createInterface } from 'node:readline'
import { test, type TestContext } from 'node:test'

test('npm start prints its address, takes the next port if one is taken, and stops at Ctrl-C', async (t) => {
  const taken = createServer().listen(0, '127.0.0.1')
  t.after(() => taken.close())
  await once(taken, 'listening')
  const { port } = taken.address() as AddressInfo

  const { child, lines } = start(t, { PORT: String(port) })
  const printed: string[] = []
  for await (const line of lines) {
    printed.push(line)
    if (line.includes('http')) break
  }

  assert.equal(printed[0], `Port ${port} is taken, trying ${port + 1} …`)
  const [address] = /http:\/\/localhost:\d+\//.exec(printed.join('\n')) ?? assert.fail(printed.join('\n'))
  const page = await fetch(address)
  assert.match(await page.text(), /<title>To-do/)

  const stopped = once(child, 'exit')
  child.kill('SIGINT')
  assert.deepEqual(await stopped, [0, null])
})

test('npm start says what is wrong with PORT', async () => {
  for (const PORT of ['abc', '-1', '65536', '80.5']) {
    const { status, stdout, stderr } = spawnSync(process.execPath, ['demo/server.ts'], { env: { ...process.env, PORT }, encoding: 'utf8' })

    assert.deepEqual([status, stdout, stderr], [1, '', `PORT is '${PORT}', it must be a whole number from 0 to 65535\n`])
  }
})

function start (t: TestContext, env: NodeJS.ProcessEnv) {
  const child = spawn(process.execPath, ['demo/server.ts'], { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'inherit'] })
  t.after(() => child.kill('SIGKILL'))
  return { child, lines: createInterface(child.stdout) }
}
