import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { buildDemo } from '../../demo/app.ts'
import { RohrpostClient } from '../../lib/client/index.ts'
import { newFile } from '../support/demo.ts'

test('examples/node follows the list of the demo, and stops when it is told', { timeout: 90_000 }, async (t) => {
  const app = await buildDemo(newFile(t))
  t.after(() => app.close())
  const url = `${(await app.listen({ port: 0, host: '127.0.0.1' })).replace('http', 'ws')}/ws/rohrpost`
  const client = new RohrpostClient(url)
  const child = spawn(process.execPath, [
    '--import', new URL('../../scripts/use-sources.ts', import.meta.url).href,
    fileURLToPath(new URL('../../examples/node/watch.ts', import.meta.url)), url
  ], { stdio: ['ignore', 'pipe', 'inherit'] })
  t.after(() => child.kill('SIGKILL'))

  const printed: string[] = []
  for await (const line of createInterface(child.stdout)) {
    printed.push(line)
    if (line === '3 to-dos, 1 done') await client.ready().then(() => client.call('todo.add', { title: 'Write an example' }))
    if (printed.length === 4) child.kill('SIGTERM')
  }
  client.close()

  const [code] = child.exitCode === null ? await once(child, 'exit') : [child.exitCode]
  assert.equal(code, 0)
  // the list is printed once for all that comes within a frame, so the change may be there before it
  assert.deepEqual(printed.splice(2, 2).sort(), ['4 to-dos, 1 done', 'create: Write an example'])
  assert.deepEqual(printed, ['open (opened)', '3 to-dos, 1 done', 'closed (close)'])
})
