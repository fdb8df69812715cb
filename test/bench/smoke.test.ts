/** The benchmark counts right: every frame arrives, every request is answered. How long it takes is not looked at. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { openServerOrm } from '../../bench/lib/orm.ts'
import { report } from '../../bench/lib/report.ts'
import { run } from '../../bench/lib/run.ts'
import type { Settings } from '../../bench/lib/workload.ts'
import { workloads } from '../../bench/workloads/index.ts'
import { redisServer } from '../support/redis.ts'

const tiny: Settings = { scale: 'tiny', repetitions: 1, warmUp: 20, settle: 5, measure: 60, pin: false }

/** What each server does differently is seen in these workloads; to run them all in all would take long. */
const comparing = ['rpc', 'fanout', 'orm', 'redis', 'diagnostics']

/** Runs of the other workloads. */
const only = ['rohrpost', 'with notifications', 'with readBack: false']

/** The workloads whose server is missing, each with the reason. */
const skips: Record<string, string | false> = {
  redis: redisServer.skip,
  flush: await findPostgreSql()
}

async function findPostgreSql (): Promise<string | false> {
  try {
    const orm = await openServerOrm('probe')
    await orm.close()
    return false
  } catch (error) {
    if (process.env['CI'] === 'true') throw error
    return `no postgresql: ${String(error)}`
  }
}

suite('the benchmark', { concurrency: 3 }, () => {
  // the workloads of the log take long: two processes with a server of their own
  for (const workload of workloads.filter(({ name }) => !name.startsWith('log'))) {
    test(`the workload '${workload.name}' loses nothing`, { skip: skips[workload.name] ?? false }, async () => {
      const settings = comparing.includes(workload.name) ? tiny : { ...tiny, only }
      const failures: unknown[] = []

      const samples = await run(workload, settings, { measured: () => {}, failed: (_workload, error) => failures.push(error) })

      assert.deepEqual(failures, [])
      const ran = new Set(samples.map(({ row, contestant }) => `${row}, ${contestant}`))
      for (const { rows, contestants } of workload.cases('tiny')) {
        for (const { name } of rows) {
          for (const contestant of comparing.includes(workload.name) ? contestants : contestants.slice(0, 1)) assert.ok(ran.has(`${name}, ${contestant}`))
        }
      }
      for (const sample of samples) assert.deepEqual(sample.failures, [], `${sample.row}, ${sample.contestant}`)
      assert.doesNotMatch(report(workload, settings, samples), /NaN|undefined|wrong/)
    })
  }
})
