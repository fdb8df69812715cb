import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { createInterface } from 'node:readline'
import { DatabaseSync } from 'node:sqlite'
import { test, type TestContext } from 'node:test'
import { newFile } from '../support/demo.ts'

test('npm start prints its address, takes the next port if one is taken, and stops at Ctrl-C', async (t) => {
  const taken = createServer().listen(0, '127.0.0.1')
  t.after(() => taken.close())
  await once(taken, 'listening')
  const { port } = taken.address() as AddressInfo

  const { child, lines } = start(t, { PORT: String(port), DATABASE: newFile(t) })
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

test('npm start keeps the to-dos of an older version, and adds the columns that they lack', async (t) => {
  const file = newFile(t)
  const old = new DatabaseSync(file)
  old.exec('create table `todo` (`id` integer not null primary key autoincrement, `title` text not null)')
  old.exec("insert into todo (title) values ('Written by an older version')")
  old.close()

  const { lines } = start(t, { PORT: '0', DATABASE: file })
  for await (const line of lines) if (line.includes('http')) break

  const database = new DatabaseSync(file)
  t.after(() => database.close())
  const rows = database.prepare('select title, done from todo').all()
  assert.deepEqual(rows.map((row) => ({ ...row })), [{ title: 'Written by an older version', done: 0 }])
})

test('npm start says what to do about a file that it can not use', (t) => {
  const file = newFile(t)
  writeFileSync(file, 'no database')

  const { status, stdout, stderr } = spawnSync(process.execPath, ['demo/server.ts'], {
    env: { ...process.env, PORT: '0', DATABASE: file }, encoding: 'utf8'
  })

  assert.deepEqual([status, stdout, stderr], [1, '', `The demo can't use the database ${file}: file is not a database
Delete the file to begin with a new one, or name another one in DATABASE.
`])
})

function start (t: TestContext, env: NodeJS.ProcessEnv) {
  const child = spawn(process.execPath, ['demo/server.ts'], { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'inherit'] })
  t.after(() => child.kill('SIGKILL'))
  return { child, lines: createInterface(child.stdout) }
}
