/** The database broker behind PgBouncer in transaction mode, where sessions belong to nobody. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, suite, test } from 'node:test'
import { poll } from '../../support/broker.ts'
import { freePort } from '../../support/free-port.ts'
import { findProgram } from '../../support/install.ts'
import { makeDatabase, openBroker, portOf, servers, skips } from './support.ts'

const pgbouncer = await findProgram('/usr/sbin/pgbouncer', 'pgbouncer')
if (pgbouncer instanceof Error && process.env['CI'] === 'true') throw pgbouncer
const skip = pgbouncer instanceof Error ? pgbouncer.message : skips.PostgreSQL

/** Starts a pooler in front of PostgreSQL. @returns its port */
async function startPgbouncer (): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), 'rohrpost-pgbouncer-'))
  after(() => rmSync(folder, { recursive: true }))
  chmodSync(folder, 0o755)
  const port = await freePort()
  const { hostname, username } = new URL(servers.PostgreSQL.url)
  const file = join(folder, 'pgbouncer.ini')
  writeFileSync(file, `[databases]
* = host=${hostname} port=${portOf('PostgreSQL')} user=${username}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
`)
  const isRoot = process.getuid?.() === 0
  const child = spawn(String(pgbouncer), [...(isRoot ? ['-u', 'postgres'] : []), file], { stdio: 'ignore' })
  after(async () => {
    child.kill('SIGKILL')
    await once(child, 'exit')
  })
  await poll(async () => {
    const socket = connect(port, '127.0.0.1')
    const isOpen = await once(socket, 'connect').then(() => true, () => false)
    socket.destroy()
    return isOpen
  })
  return port
}

suite('behind PgBouncer in transaction mode', { skip }, async () => {
  // ends before the database is dropped
  const port = await startPgbouncer()
  const database = await makeDatabase('PostgreSQL', after)
  const name = String(database.orm.config.get('dbName'))
  const pooled = await database.connect(database.through({ port } as never))

  test('polls often, says so once, and leaves no settings in sessions of others', async (t) => {
    await database.run(`alter database "${name}" set default_transaction_isolation = 'serializable'`)
    const direct = await openBroker(t, database, { pollInterval: 60_000 })
    const { broker, recorder } = await openBroker(t, { orm: pooled }, { pollInterval: 60_000 })
    const group = randomUUID()
    await direct.broker.subscribe(group)
    await broker.subscribe(group)

    await direct.broker.publish(group, '{"n":1}')
    await recorder.until(group, '{"n":1}')
    await broker.publish(group, '{"n":2}')
    await direct.recorder.until(group, '{"n":2}')

    const texts = recorder.notices.map(({ text }) => text)
    assert.deepEqual(texts, ['notifications of PostgreSQL do not arrive: a connection pooler, such as PgBouncer, does not pass them on; the log is read every 100 ms'])
    assert.deepEqual(direct.recorder.notices, [])
    const sessions = await Promise.all(Array.from({ length: 4 }, () => pooled.em.getConnection().execute('show default_transaction_isolation')))
    assert.deepEqual(sessions.map(([row]) => row), Array(4).fill({ default_transaction_isolation: 'serializable' }))
    const listening = await pooled.em.getConnection().execute('select * from pg_listening_channels()')
    assert.deepEqual(listening, [])
    assert.deepEqual(broker.health(), { ok: true })
  })
})
