import assert from 'node:assert/strict'
import { PassThrough, Readable, Writable } from 'node:stream'
import { test } from 'node:test'
import { Type } from '@sinclair/typebox'
import { start } from '../support/server.ts'

async function * generateLater () { yield 1 }
function * generate () { yield 1 }
class Cursor { async * [Symbol.asyncIterator] () { yield 1 } }

const results: [name: string, result: () => unknown][] = [
  ['AsyncGenerator', generateLater],
  ['Generator', generate],
  ['Iterator', () => new Map().values()],
  ['Object', () => ({ next: () => ({ done: true }), [Symbol.asyncIterator] () { return this } })],
  ['Cursor', () => new Cursor()],
  ['Readable', () => Readable.from([1])],
  ['PassThrough', () => new PassThrough()],
  ['Writable', () => new Writable()],
  ['ReadableStream', () => new ReadableStream()],
  ['Response', () => Response.json(1)]
]

test('refuses iterators, streams and responses as results, with a remedy', async (t) => {
  const server = await start(t, {
    with (app) {
      const resultOf = (data: unknown) => results.find(([name]) => name === data)?.[1]()
      app.rohrpost
        .handle('return', ({ data }) => resultOf(data))
        .handle('resolve', async ({ data }) => resultOf(data))
        .handle('reply', (message) => message.reply(resultOf(message.data)))
        .handle('checked', { reply: Type.Array(Type.Number()) }, ({ data }) => resultOf(data) as never)
    }
  })
  const client = await server.connect()

  for (const type of ['return', 'resolve', 'reply', 'checked']) {
    for (const [name] of results) {
      const { code, data } = await client.call(type, name)

      assert.deepEqual([code, data], ['internal', undefined], `${type} ${name}`)
      const { err } = server.logs.findLast(({ level }) => level === 50) ?? {}
      assert.equal(err?.code, 'RP_ERR_NOT_ENCODABLE')
      assert.match(err?.message ?? '', new RegExp(`^Can't send a result of type ${name}: .*a request has one reply: .*Array\\.fromAsync.*connection\\.send`))
    }
  }
})

test('accepts objects that only resemble them', async (t) => {
  const values: [unknown, unknown][] = [
    [[1], [1]],
    [new Set([1]), [1]],
    [{ next: 1, pipe: 2, json: 3 }, { next: 1, pipe: 2, json: 3 }],
    [{ next () {}, a: 1 }, { a: 1 }],
    [{ json () {}, a: 1 }, { a: 1 }],
    [{ * [Symbol.iterator] () {}, a: 1 }, { a: 1 }],
    [Object.assign(new Cursor(), { toJSON: () => 'a cursor' }), 'a cursor'],
    [Object.assign(generate(), { toJSON: () => 'a generator' }), 'a generator'],
    [null, null]
  ]
  const server = await start(t, { with: (app) => app.rohrpost.handle('get', ({ data }) => values[Number(data)]?.[0]) })
  const client = await server.connect()

  for (const [index, [, expected]] of values.entries()) assert.deepEqual((await client.call('get', index)).data, expected)
})
