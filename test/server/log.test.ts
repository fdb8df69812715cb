import assert from 'node:assert/strict'
import { test } from 'node:test'
import Fastify from 'fastify'
import { Type } from '@sinclair/typebox'
import rohrpost from '../../lib/index.ts'
import { listen } from '../support/server.ts'

const long = 'x'.repeat(1_000_000)

test('every log line truncates the texts of a client', async (t) => {
  const lines: string[] = []
  const app = Fastify({ logger: { level: 'trace', stream: { write: (line: string) => lines.push(line) } } })
  t.after(() => app.close())
  const late = Promise.withResolvers<void>()
  await app.register(rohrpost, { maxPayload: 8 * 2 ** 20, handlerTimeout: 1, concurrency: 100 })
  const denied = Promise.withResolvers<void>()
  app.rohrpost
    .group('todo', { authorize: () => 'yes' as never })
    .group('list', { id: Type.String(), authorize: () => true })
    .handle('quotes', ({ data }) => { throw new Error(`no such card: ${data}`) })
    .handle('carries', ({ data }) => { throw Object.assign(new Error('failed', { cause: new Error(String(data)) }), { data }) })
    .handle('throws', ({ data }) => { throw data })
    .handle('checked', { reply: Type.Object({}, { additionalProperties: false }) }, ({ data }) => ({ [String(data)]: 1 }) as never)
    .handle('encodes', ({ data }) => ({ toJSON () { throw new Error(String(data)) } }))
    .handle('twice', (message) => {
      message.reply(1)
      message.reply(2)
    })
    .handle('hangs', () => late.promise)
    .handle('sends', ({ data }) => { app.rohrpost.sendToGroup(String(data), { type: 'news' }) })
    .handle('ends', async ({ data }) => { await app.rohrpost.disconnect(String(data)).catch(() => denied.resolve()) })
  const server = await listen(t, app)
  const client = await server.connect(undefined, { headers: { 'x-request-id': 'short' } })

  const messages: [string, unknown, object?][] = [
    ['subscribe', { type: long, id: 1 }],
    ['subscribe', { type: 'todo', id: long }],
    ['subscribe', { type: 'todo', id: 5 }],
    ['subscribe', { type: 'todo', id: 5 }, { recover: { epoch: long } }],
    ['subscribe', { type: 'list', id: long }],
    ['unsubscribe', { type: long, id: long }],
    [long, 1],
    ...['quotes', 'carries', 'throws', 'checked', 'encodes', 'twice', 'hangs', 'sends', 'ends'].map((type): [string, unknown] => [type, long])
  ]
  for (const [i, [type, data, more]] of messages.entries()) client.send({ id: `${i}${long}`, type, data, ...more })
  for (let answered = 0; answered < messages.length;) {
    const { id } = await client.next()
    if (String(id).endsWith('x')) answered++
  }
  late.resolve()
  await denied.promise
  assert.equal(await server.refused(undefined, { origin: `https://${'x'.repeat(10_000)}.example` }), 403)

  assert.ok(lines.filter((line) => line.includes('xxx…')).length > 10)
  for (const line of lines) assert.ok(line.length < 12_000, `${line.length} characters: ${line.slice(0, 200)} … ${line.slice(-200)}`)
})
