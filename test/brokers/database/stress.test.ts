/**
 * Two processes write to the log and follow it: both receive each committed message once, and in the order of ids.
 * With `LOG_CURSOR=naive` readers do not wait for missing ids: then messages are lost.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Remote } from '../../../bench/lib/remote.ts'
import type { StressHost } from './stress-host.ts'
import { makeDatabase, skips, type DatabaseName } from './support.ts'

const HOST = fileURLToPath(new URL('stress-host.ts', import.meta.url))
const TRANSACTIONS = Number(process.env['LOG_TRANSACTIONS'] ?? 120)
const MODE = process.env['LOG_CURSOR'] ?? 'waiting'
const PROCESSES = ['one', 'two']

const plans: [DatabaseName, number, string[]][] = [
  ['PostgreSQL', 6, ['read committed', 'repeatable read', 'serializable']],
  ['MariaDB', 6, ['read committed', 'repeatable read', 'serializable']],
  ['SQLite', 1, ['serializable']]
]

for (const [name, writers, isolations] of plans) {
  test(`two processes and one log on ${name}`, { skip: skips[name] }, async (t) => {
    const hosts: Remote<StressHost>[] = []
    t.after(() => Promise.all(hosts.map((host) => host.stop())))
    const database = await makeDatabase(name, (run) => t.after(run))
    if (name === 'SQLite') await database.run('pragma journal_mode = wal')
    await database.run('create table counter (id int primary key, n int not null)')
    await database.run('insert into counter values (1, 0), (2, 0), (3, 0), (4, 0), (5, 0)')
    const dbName = String(database.orm.config.get('dbName'))
    hosts.push(...await Promise.all(PROCESSES.map((processName) => {
      return Remote.start<StressHost>(processName, [HOST, name, dbName, processName, MODE])
    })))

    for (const isolation of isolations) {
      await t.test(`no message is lost, doubled or out of order with ${isolation} transactions`, async (t) => {
        const run = await Promise.all(hosts.map((host) => host.call('run', { transactions: TRANSACTIONS, writers, isolation })))
        const last = PROCESSES.map((each) => JSON.stringify({ end: `${isolation} ${each}` }))
        await Promise.all(hosts.map((host, index) => host.call('end', String(last[index]))))
        const received = await Promise.all(hosts.map((host) => host.call('received', last)))

        const committed = run.flatMap((each) => each.committed)
        t.diagnostic(run.map(({ committed, rolledBack, retried }) => {
          return `${committed.length} committed, ${rolledBack} rolled back, ${retried} failed`
        }).join('; '))
        for (const { events, errors } of received) {
          const messages = events.flatMap((event) => event.kind === 'message' ? [event] : [])
          const contents = messages.map(({ payload }) => JSON.parse(payload)).filter(({ key }) => key !== undefined)
          const keys: string[] = contents.map(({ key }) => key)
          const missing = committed.filter((key) => !keys.includes(key))
          const offsets = messages.map(({ position }) => Number(position?.offset))
          const back = offsets.filter((offset, index) => index > 0 && offset <= Number(offsets[index - 1]))
          const values = contents.filter(({ row }) => row !== undefined)
          const newest = new Map<number, number>()
          let older = 0
          for (const { row, n } of values) {
            if (n < (newest.get(row) ?? 0)) older++
            newest.set(row, n)
          }
          assert.deepEqual({
            lost: missing.length,
            doubled: keys.length - new Set(keys).size,
            unexpected: keys.filter((key) => !committed.includes(key)).length,
            back: back.length,
            older,
            gaps: events.length - messages.length,
            errors
          }, { lost: 0, doubled: 0, unexpected: 0, back: 0, older: 0, gaps: 0, errors: [] })
        }
        assert.deepEqual(received[0]?.events, received[1]?.events)
      })
    }
    await Promise.all(hosts.map((host) => host.call('close')))
  })
}
