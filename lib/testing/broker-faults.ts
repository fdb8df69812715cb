/** How a broker bears the loss of what is behind it. */
import assert from 'node:assert/strict'
import type { Position } from '../brokers/broker.ts'
import { topOf } from './broker-history.ts'
import type { Opened, Parts } from './broker-suite.ts'
import { poll } from './recorder.ts'

export function faultTests ({ define, capabilities: { history, processes = false }, fault }: Parts): void {
  const { disconnect, away, forget, expire } = fault

  if (disconnect !== undefined) {
    define(`loses its connections${history ? ', and nothing else' : ' and what was sent meanwhile, and never repeats or reorders'}`, async ({ open, group }) => {
      const speaker = await open()
      const listener = processes ? await open() : speaker
      await listener.broker.subscribe(group)

      const count = history === undefined ? 300 : Math.min(history.size, 300)
      const payloads = Array.from({ length: count }, (_, n) => `{"n":${n}}`)
      for (const [n, payload] of payloads.entries()) {
        if (n % 100 === 50) await disconnect()
        const published = speaker.broker.publish(group, payload)
        if (n % 5 === 0) await published
      }
      await again(speaker, listener, group)

      const heard = listener.recorder.payloads(group).filter((payload) => payloads.includes(payload))
      if (history === undefined) assert.deepEqual(heard, payloads.filter((payload) => heard.includes(payload)))
      else assertTold(listener, group, payloads)
    })
  }

  if (away !== undefined) {
    define('keeps what is published while the server is away, in order, and says that it is not well', async ({ open, group }) => {
      const speaker = await open()
      const listener = processes ? await open() : speaker
      await listener.broker.subscribe(group)

      const back = await away()
      const payloads = Array.from({ length: 100 }, (_, n) => `{"n":${n}}`)
      const published = payloads.map((payload) => speaker.broker.publish(group, payload))
      await poll('word that it is not well', () => !speaker.broker.health().ok)
      await back()
      await Promise.all(published)
      await again(speaker, listener, group)

      const heard = listener.recorder.payloads(group).filter((payload) => payloads.includes(payload))
      assert.deepEqual(heard, history === undefined ? payloads.filter((payload) => heard.includes(payload)) : payloads)
      await poll('word that it is well', () => speaker.broker.health().ok)
    })

    define('joins a group while the server is away, and hears it afterwards', async ({ open, group }) => {
      const { broker, recorder } = await open()

      const back = await away()
      const joined = Promise.resolve(broker.subscribe(group))
      await back()
      await joined
      await broker.publish(group, '{}')
      await recorder.until(group, '{}')
    })
  }

  if (forget !== undefined && history !== undefined) {
    define('says that messages may be lost when the server forgot, and never uses an epoch twice', async ({ open, group }) => {
      const { broker, recorder } = await open()
      const top = await topOf(broker, group)
      await broker.publish(group, '{"n":1}')
      await recorder.until(group, '{"n":1}')

      await forget()
      await again({ broker, recorder }, { broker, recorder }, group)

      const told = recorder.of(group)
      const lost = told.findIndex(({ kind }) => kind === 'lost')
      assert.ok(lost > 0, 'it is told')
      const epochs = told.map(({ position }) => position?.epoch)
      assert.ok(epochs.slice(0, lost).every((epoch) => epoch === top.epoch))
      assert.ok(epochs.slice(lost).every((epoch) => epoch !== top.epoch))
      assert.equal(await broker.history(group, top, history.size), undefined)
      assert.equal(await broker.history(group, { ...top, offset: 1 }, history.size), undefined)
    })
  }

  if (expire !== undefined && history !== undefined) {
    define('refuses what has become too old', async ({ open, group }) => {
      const { broker } = await open()
      const top = await topOf(broker, group)
      await broker.publish(group, '{"n":1}')

      await expire()
      await broker.publish(group, '{"n":2}')

      assert.equal(await broker.history(group, top, history.size), undefined)
      const kept = await broker.history(group, { ...top, offset: 1 }, history.size)
      assert.deepEqual(kept?.map(({ payload }) => payload), ['{"n":2}'])
    })
  }
}

/** Publishes until something arrives again: then all that came before has arrived, or will not. */
async function again (speaker: Opened, listener: Opened, group: string): Promise<void> {
  const isMark = (payload: string) => payload.startsWith('{"again":')
  let n = 0
  await poll('message any more', async () => {
    await Promise.resolve(speaker.broker.publish(group, `{"again":${n++}}`)).catch(() => {})
    return listener.recorder.payloads(group).some(isMark)
  })
}

/** Every message once and in order, or a word that some are lost. */
function assertTold (listener: Opened, group: string, payloads: string[]): void {
  const heard = listener.recorder.of(group)
  assert.deepEqual(heard.filter(({ kind }) => kind === 'lost'), [])
  assert.deepEqual(listener.recorder.payloads(group).slice(0, payloads.length), payloads)
  const offsets = listener.recorder.positions(group).map((position) => (position as Position).offset)
  assert.deepEqual(offsets, offsets.map((_, n) => Number(offsets[0]) + n))
}
