/**
 * A connection as a state machine: for any frames, in any chunks, it answers, pongs and closes by RFC 6455 and the
 * protocol.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate } from 'node:timers/promises'
import fc from 'fast-check'
import { anyBytes, anyText } from './support/arbitraries.ts'
import { check } from './support/check.ts'
import { frame, Opcode } from './support/frames.ts'
import { answerTo, assertAnswer, EMPTY, type Answer } from './support/model.ts'
import { ask, start } from './support/server.ts'

const MAX_PAYLOAD = 2000
const CLOSE_ME = '{"id":1,"type":"close"}'

/** A frame of a client, with all possible violations. */
interface Step {
  opcode: number
  fin: boolean
  payload: Buffer
  rsv?: number
  masked?: boolean
  /** The length in the header, if it is not the payload's length. */
  length?: bigint
}

const control = fc.record({
  opcode: fc.constantFrom(Opcode.PING, Opcode.PING, Opcode.PONG),
  fin: fc.constant(true),
  payload: fc.uint8Array({ maxLength: 125 }).map((bytes) => Buffer.from(bytes))
})

/** A message in fragments, with control frames between them. */
const message = fc.tuple(
  fc.oneof({ weight: 8, arbitrary: anyText.map((text) => Buffer.from(text)) }, { weight: 1, arbitrary: anyBytes }, { weight: 1, arbitrary: fc.constant(Buffer.from(CLOSE_ME)) }),
  fc.constantFrom(Opcode.TEXT, Opcode.TEXT, Opcode.TEXT, Opcode.TEXT, Opcode.BINARY),
  fc.integer({ min: 1, max: 60 }),
  fc.array(control, { maxLength: 2 }),
  fc.nat()
).map(([payload, opcode, size, controls, at]): Step[] => {
  const count = Math.max(1, Math.ceil(payload.length / size))
  const steps = Array.from({ length: count }, (_, i): Step => ({
    opcode: i === 0 ? opcode : Opcode.CONTINUATION,
    fin: i === count - 1,
    payload: payload.subarray(i * size, (i + 1) * size)
  }))
  return steps.toSpliced(at % (count + 1), 0, ...controls)
})

const closeCode = fc.oneof(fc.constantFrom(1000, 1001, 1003, 1004, 1005, 1006, 1007, 1014, 1015, 2999, 3000, 4999, 5000), fc.nat({ max: 65_535 }))
const close = fc.oneof(
  fc.constant(Buffer.alloc(0)),
  fc.constant(Buffer.from([3])),
  fc.tuple(closeCode, fc.uint8Array({ maxLength: 20 })).map(([code, reason]) => Buffer.concat([Buffer.from([code >> 8, code & 255]), reason]))
).map((payload): Step => ({ opcode: Opcode.CLOSE, fin: true, payload }))

/** Frames that no well-behaved client sends, or not at this point. */
const stray = fc.oneof(
  { weight: 3, arbitrary: close },
  {
    weight: 4,
    arbitrary: fc.record({ opcode: fc.nat({ max: 15 }), fin: fc.boolean(), payload: anyBytes, rsv: fc.constantFrom(0, 0, 0, 1, 2, 4), masked: fc.constantFrom(true, true, true, false) })
  },
  { weight: 1, arbitrary: fc.bigInt({ min: BigInt(MAX_PAYLOAD) + 1n, max: 2n ** 63n - 1n }).map((length): Step => ({ opcode: Opcode.TEXT, fin: true, payload: Buffer.alloc(0), length })) },
  { weight: 1, arbitrary: fc.integer({ min: 1, max: 500 }).map((rest): Step => ({ opcode: Opcode.CONTINUATION, fin: false, payload: Buffer.alloc(MAX_PAYLOAD - rest, 'x') })) }
)

const stream = fc.record({
  steps: fc.array(fc.oneof({ weight: 10, arbitrary: message }, { weight: 3, arbitrary: control.map((step): Step[] => [step]) }, { weight: 1, arbitrary: stray.map((step): Step[] => [step]) }), { maxLength: 14 })
    .map((parts) => parts.flat()),
  cuts: fc.array(fc.nat(), { maxLength: 6 })
})

/** The expected result of a stream of frames: the answers and the pongs, in order, and the close code. */
function expect (steps: readonly Step[]): { answers: { shown: string, answer: Answer }[], pongs: Buffer[], code: number, taken: number } {
  const answers: { shown: string, answer: Answer }[] = []
  const pongs: Buffer[] = []
  let parts: Buffer[] | undefined
  let binary = false
  let total = 0

  for (const [index, { opcode, fin, payload, rsv = 0, masked = true, length = BigInt(payload.length) }] of steps.entries()) {
    const ends = (code: number) => ({ answers, pongs, code, taken: index + 1 })
    if (rsv !== 0 || !masked) return ends(1002)

    if (opcode > 7) {
      if (opcode > Opcode.PONG || !fin || length > 125n) return ends(1002)
      if (opcode === Opcode.PING) pongs.push(payload)
      if (opcode === Opcode.CLOSE) return ends(closesWith(payload))
      continue
    }
    if (opcode > Opcode.BINARY || (opcode === Opcode.CONTINUATION) !== (parts !== undefined)) return ends(1002)
    if (parts === undefined) [parts, total, binary] = [[], 0, opcode === Opcode.BINARY]
    total += Number(length)
    if (total > MAX_PAYLOAD) return ends(1009)
    parts.push(payload)
    if (!fin) continue

    const whole = Buffer.concat(parts)
    parts = undefined
    if (!binary && !isUtf8(whole)) return ends(1007)
    const text = whole.toString()
    if (!binary && text === CLOSE_ME) return ends(4001)
    answers.push({ shown: text, answer: binary ? EMPTY : answerTo(text) })
  }
  return { answers, pongs, code: 1000, taken: steps.length }
}

/** The answer to a close of the client (RFC 6455, section 7.4): its own code, or the code of its violation. */
function closesWith (payload: Buffer): number {
  if (payload.length === 0) return 1005
  if (payload.length === 1) return 1002
  const code = payload.readUInt16BE(0)
  const isValid = (code >= 1000 && code <= 1014 && ![1004, 1005, 1006].includes(code)) || (code >= 3000 && code <= 4999)
  if (!isValid) return 1002
  return isUtf8(payload.subarray(2)) ? code : 1007
}

function isUtf8 (bytes: Uint8Array): boolean {
  try {
    new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
    return true
  } catch {
    return false
  }
}

test('1500 connections with random frames in random chunks answer and close by the rules', async (t) => {
  const server = await start(t, { maxPayload: MAX_PAYLOAD })
  server.app.rohrpost.handle('close', (_message, connection) => connection.close(4001))
  const witness = await server.connect()
  let frames = 0
  const ends = new Set<number>()

  await check(fc.asyncProperty(stream, async ({ steps, cuts }) => {
    const client = await server.raw()
    const bytes = Buffer.concat([
      ...steps.map(({ payload, ...options }) => frame(payload, options)),
      frame(Buffer.from([0x03, 0xe8]), { opcode: Opcode.CLOSE })
    ])
    const expected = expect(steps)
    frames += expected.taken
    ends.add(expected.code)

    for (const [from, to] of pieces(bytes.length, cuts)) {
      client.write(bytes.subarray(from, to))
      await setImmediate()
    }
    const { code, messages } = await client.end()

    assert.equal(code, expected.code)
    for (const [i, { shown, answer }] of expected.answers.entries()) assertAnswer(messages[i], answer, shown)
    assert.equal(messages.length, expected.answers.length)
    assert.deepEqual(client.pongs.map(String), expected.pongs.map(String))
  }), { numRuns: 1500 })

  assert.deepEqual(await ask(witness, { id: 1, type: 'ping' }), { id: 1, type: 'pong' })
  while (server.app.rohrpost.connections.size > 1) await setImmediate()
  t.diagnostic(`${frames} frames`)
  // the test is worthless unless the rare cases occur
  assert.ok(frames > 10_000, `${frames} frames`)
  for (const code of [1000, 1002, 1007, 1009, 4001]) assert.ok(ends.has(code), `${code} never came`)
})

function pieces (length: number, cuts: readonly number[]): [from: number, to: number][] {
  const at = [0, ...cuts.map((cut) => cut % length).sort((a, b) => a - b), length]
  return at.slice(1).map((to, i) => [Number(at[i]), to])
}
