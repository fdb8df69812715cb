/**
 * `node bench/log-soak.ts [--minutes 30] [--rate 200]`: two processes write through the database broker on PostgreSQL,
 * and the size of the log is measured. The command fails when the log of the second half is larger than that of the first.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { fileURLToPath } from 'node:url'
import type { LogHost, LogHostOptions } from './log-host.ts'
import { makeTables } from './lib/log-tables.ts'
import { withPostgreSql } from './lib/postgresql.ts'
import { Remote } from './lib/remote.ts'

const { values } = parseArgs({ options: { minutes: { type: 'string', default: '30' }, rate: { type: 'string', default: '200' } } })
const [minutes, rate] = [Number(values.minutes), Number(values.rate)]
if (!(minutes > 0) || !(rate > 0)) throw new Error("'--minutes' and '--rate' are numbers above 0")

const HOST = fileURLToPath(new URL('log-host.ts', import.meta.url))
/** Writers in each process. */
const WRITERS = 4
const PROCESSES = 2
/** Milliseconds between two measurements. */
const EVERY = 10_000
/** Time until the first rows are deleted and their space is used again: `ttl`, the delay of the cleaner, and autovacuum. */
const RAMP = 180_000
/** How much larger than the first half the second one may be. */
const GROWTH = 1.1

const SIZE = `select (select count(*) from rohrpost_log) as rows, pg_table_size('rohrpost_log') as table,
  pg_indexes_size('rohrpost_log') as indexes`

interface Size {
  rows: number
  table: number
  indexes: number
}

await withPostgreSql(async (server) => {
  const clientUrl = await server.create('soak')
  await makeTables(clientUrl, PROCESSES * WRITERS)
  const hosts = await Promise.all(Array.from({ length: PROCESSES }, (_, index) => {
    const options: LogHostOptions = { broker: 'database', clientUrl, redisPort: 0, firstRow: 1 + index * WRITERS }
    return Remote.start<LogHost>(`process ${index + 1}`, [HOST, JSON.stringify(options)])
  }))

  const sizes: { at: number, size: Size }[] = []
  const start = performance.now()
  const pause = 1000 * WRITERS * PROCESSES / rate
  const writing = Promise.all(hosts.map((host) => host.call('write', { writers: WRITERS, ms: minutes * 60_000, pause })))
  console.log('| second | rows | table, MB | indexes, MB |\n| --- | --- | --- | --- |')
  while (performance.now() - start < minutes * 60_000) {
    await sleep(EVERY)
    const [row] = await server.run(clientUrl, SIZE)
    const size: Size = { rows: Number(row?.['rows']), table: Number(row?.['table']), indexes: Number(row?.['indexes']) }
    const at = performance.now() - start
    sizes.push({ at, size })
    const megabytes = (bytes: number) => (bytes / 1e6).toFixed(1)
    console.log(`| ${Math.round(at / 1000)} | ${size.rows} | ${megabytes(size.table)} | ${megabytes(size.indexes)} |`)
  }
  const written = await writing
  const commits = written.reduce((sum, { times }) => sum + times.length, 0)
  console.log(`\n${commits} commits, ${Math.round(commits / minutes / 60)} per second`)
  await Promise.all(hosts.map((host) => host.stop()))

  const settled = sizes.filter(({ at }) => at > RAMP)
  const [first, second] = [settled.slice(0, settled.length >> 1), settled.slice(settled.length >> 1)]
  if (first.length === 0) return console.log(`The log is judged from ${RAMP / 60_000} minutes on.`)
  for (const key of ['table', 'indexes'] as const) {
    const largest = (some: typeof sizes) => Math.max(...some.map(({ size }) => size[key]))
    const growth = largest(second) / largest(first)
    console.log(`${key}: the second half has ${growth.toFixed(2)} times the size of the first`)
    if (growth > GROWTH) process.exitCode = 1
  }
})
