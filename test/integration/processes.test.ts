/** Three processes, one Redis, and everything that can go wrong. `npm run faults` is the same at length. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { privateRedis, redisServer } from '../support/redis.ts'
import { run } from './faults/plan.ts'
import { toTable } from './faults/table.ts'

suite('three processes behind one Redis, while faults happen', { skip: redisServer.skip }, () => {
  for (const [name, history] of [['with history', true], ['without history', false]] as const) {
    const promise = history
      ? 'each client hears each message once and in order, or is told to load again'
      : 'no client hears a message twice or out of order'

    test(`${name}, ${promise}`, async (t) => {
      const report = await run({
        makeRedis: () => privateRedis(t),
        history,
        processes: 3,
        groups: 20,
        clients: 100,
        messages: 4000,
        pause: 1500,
        stop: 6000,
        rounds: 1,
        say: (text) => t.diagnostic(text)
      })

      for (const line of toTable({ [name]: report }).split('\n')) t.diagnostic(line)
      const { silent, repeated, reordered, ambiguous, gaps, untold, noisy, examples } = report
      assert.deepEqual(
        { silent, repeated, reordered, ambiguous, gaps, untold, noisy, examples },
        { silent: 0, repeated: 0, reordered: 0, ambiguous: 0, gaps: 0, untold: 0, noisy: 0, examples: [] }
      )
      // a plan that disturbs nobody would show nothing
      assert.ok(report.published > 3000 && report.heard > 10_000 && report.lost > 50, JSON.stringify(report))
      assert.ok(history ? report.recovered > 50 && report.resync > 100 : report.missed > 100, JSON.stringify(report))
    })
  }
})
