/** Replays what was recorded of the original Python server: we answer the same, or differ in a way that has a name. */
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import type { FastifyInstance } from 'fastify'
import { Clients } from './client.ts'
import { differences, exclusions } from './differences.ts'
import { areas, assertOutcome, readRecordings, type Step } from './fixture.ts'
import { startServer } from './server.ts'

const recordings = areas.flatMap((area) => readRecordings(area).map((recording) => ({ area, ...recording })))
const steps = recordings.flatMap((recording) => recording.steps ?? [])

for (const area of areas) {
  describe(`answers as the original: ${area}`, () => {
    let app: FastifyInstance
    let url: string
    before(async () => { ({ app, url } = await startServer()) })
    after(() => app.close())

    for (const { name, steps = [], excluded } of recordings.filter((recording) => recording.area === area)) {
      if (excluded !== undefined) continue

      test(name, { timeout: 60_000 }, async (t) => {
        const clients = new Clients(url)
        t.after(() => clients.terminate())
        await clients.connect(steps)

        for (const step of steps) {
          const received = await clients.act(step)

          assertOutcome(received, step)
        }
      })
    }
  })
}

describe('the fixtures', () => {
  test('are all the recordings, and leave out none without a reason', () => {
    const reasons = recordings.flatMap(({ excluded, steps = [] }) => steps.length > 0 ? [] : [String(excluded)])

    assert.equal(recordings.length, 370)
    assert.deepEqual([...new Set(reasons)].sort(), Object.keys(exclusions).sort())
  })

  test('name a difference exactly where the original answered otherwise', () => {
    const differing = (step: Step) => step.original !== undefined
    const named = (step: Step) => step.differs !== undefined && step.differs.length > 0

    assert.deepEqual(steps.filter(differing), steps.filter(named))
    for (const { answer, closed, original } of steps.filter(differing)) {
      assert.notDeepEqual({ answer, closed }, { answer: original?.answer, closed: original?.closed })
    }
  })

  test('use every difference of the table, and no other', () => {
    const used = new Set(steps.flatMap(({ differs = [] }) => differs))

    assert.deepEqual([...used].sort(), Object.keys(differences).sort())
  })
})
