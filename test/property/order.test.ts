import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { RohrpostConnection } from '../../lib/index.ts'
import { start, type Client } from '../support/server.ts'
import { fuzz } from './support/check.ts'

/** The possible steps, in any order and at any time. */
type Step =
  | { do: 'call' | 'call later' | 'join' | 'leave' | 'push' | 'pause' | 'resume', client: number, group: string, size: number }
  | { do: 'publish', group: string, size: number }
  | { do: 'turn' }

const CLIENTS = 5

const group = fc.constantFrom('a', 'b', 'c')
const size = fc.oneof({ weight: 9, arbitrary: fc.nat(300) }, { weight: 1, arbitrary: fc.constant(100_000) })
const client = fc.nat(CLIENTS - 1)
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ do: fc.constant('publish' as const), group, size }) },
  { weight: 6, arbitrary: fc.record({ do: fc.constantFrom('call', 'call later', 'join', 'leave', 'push', 'pause', 'resume'), client, group, size }) },
  { weight: 2, arbitrary: fc.constant({ do: 'turn' as const }) }
)

/** Both ends of a connection, and the expected messages. */
interface Line {
  client: Client
  connection: RohrpostConnection
  expected: number[]
}

test('each client receives exactly the messages that were sent to it, in order', async (t) => {
  const server = await start(t, {
    websocket: { options: { perMessageDeflate: { threshold: 0 } } },
    maxUnsent: 1e9,
    with: (app) => app.rohrpost
      .handle('call', (message, connection) => message.reply(next(connection)))
      .handle('call later', async (message, connection) => {
        await new Promise(setImmediate)
        message.reply(next(connection))
      })
  })
  const lines = new Map<RohrpostConnection, Line>()
  let frames = 0

  /** Assigns the next number of a client to a frame. */
  function next (...connections: RohrpostConnection[]): number {
    frames++
    for (const connection of connections) lines.get(connection)?.expected.push(frames)
    return frames
  }

  const known = new Set<RohrpostConnection>()
  for (let i = 0; i < CLIENTS; i++) {
    const client = await server.connect(undefined, { perMessageDeflate: i % 2 === 1 })
    await client.call('ping')
    const connection = [...server.app.rohrpost.connections].find((connection) => !known.has(connection)) ?? assert.fail()
    known.add(connection)
    lines.set(connection, { client, connection, expected: [] })
  }
  const all = [...lines.values()]

  await fc.assert(fc.asyncProperty(fc.array(step, { maxLength: 120 }), async (steps) => {
    for (const line of all) {
      line.expected = []
      for (const name of line.connection.groups) line.connection.leave(name)
    }

    for (const step of steps) {
      if (step.do === 'turn') {
        await new Promise(setImmediate)
      } else if (step.do === 'publish') {
        const n = next(...all.map(({ connection }) => connection).filter(({ groups }) => groups.has(step.group)))
        server.app.rohrpost.sendToGroup(step.group, { data: n, text: 'x'.repeat(step.size) })
      } else {
        const { client, connection } = all[step.client] ?? assert.fail()
        if (step.do === 'join' || step.do === 'leave') connection[step.do](step.group)
        else if (step.do === 'push') connection.send({ data: next(connection), text: 'x'.repeat(step.size) })
        else if (step.do === 'pause' || step.do === 'resume') client.socket[step.do]()
        else client.send({ id: 1, type: step.do })
      }
    }

    for (const { client } of all) client.socket.resume()
    for (const { client, expected } of all) {
      // a pong overtakes calls that wait for an earlier one; all other messages precede it
      const heard = await client.untilPong()
      const isCall = (type: unknown) => type === 'call' || type === 'call later'
      const calls = steps.filter((step) => isCall(step.do) && 'client' in step && all[step.client]?.client === client).length
      for (let n = heard.filter(({ type }) => isCall(type)).length; n < calls; n++) heard.push(await client.next())
      assert.deepEqual(heard.map(({ data }) => data), expected)
    }
  }), { numRuns: 150 * fuzz, seed: Number(process.env.FC_SEED ?? Date.now() % 2 ** 31) })
})
