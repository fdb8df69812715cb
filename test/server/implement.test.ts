import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Type } from '@sinclair/typebox'
import { contract } from '../../lib/protocol/index.ts'
import { start } from '../support/server.ts'

const api = contract({
  calls: {
    add: { data: Type.Object({ a: Type.Number(), b: Type.Number() }), reply: Type.Object({ sum: Type.Number() }) },
    list: { reply: Type.Array(Type.String()) },
    log: { data: Type.String() },
    who: {}
  },
  groups: { todo: { id: Type.Integer() }, news: { id: false }, loose: {} }
})
const authorize = () => true
const implementation = {
  calls: {
    add: ({ data }: { data: { a: number, b: number } }) => ({ sum: data.a + data.b }),
    list: () => ['a'],
    log: () => {},
    who: () => 'me'
  },
  groups: { todo: { authorize }, news: { authorize }, loose: { authorize } }
}

test('registers every call with its schemas, and every group with its id', async (t) => {
  const server = await start(t, { with: (app) => app.rohrpost.implement(api, implementation) })
  const client = await server.connect()

  assert.deepEqual(await client.call('add', { a: 1, b: 2 }), { id: 1, type: 'add', data: { sum: 3 } })
  assert.equal((await client.call('add', { a: 1 })).code, 'invalid_data')
  assert.deepEqual((await client.call('list')).data, ['a'])
  assert.equal((await client.call('log', 5)).code, 'invalid_data')
  assert.equal((await client.call('who', 5)).data, 'me')
  assert.deepEqual((await client.call('subscribe', { type: 'todo', id: 5 })).data, { group: 'todo-5' })
  assert.equal((await client.call('subscribe', { type: 'todo', id: 'five' })).code, 'invalid_data')
  assert.deepEqual((await client.call('subscribe', { type: 'news' })).data, { group: 'news' })
  assert.deepEqual((await client.call('subscribe', { type: 'loose', id: 7 })).data, { group: 'loose-7' })
})

test('runs handlers and authorize with the instance on which they were implemented', async (t) => {
  const server = await start(t, {
    with: (app) => app.register(async (child) => {
      child.decorate('own', 'of the child')
      child.rohrpost.implement(contract({ calls: { own: {} } }), {
        calls: { own () { return (this as typeof this & { own: string }).own } }
      })
    })
  })
  const client = await server.connect()

  assert.equal((await client.call('own')).data, 'of the child')
})

test('runs parallel calls next to the others', async (t) => {
  const release = Promise.withResolvers<string>()
  const server = await start(t, {
    with: (app) => app.rohrpost.implement(contract({ calls: { move: {}, report: { reply: Type.String() } } }), {
      calls: { move: { handler: () => release.promise }, report: { parallel: true, handler: () => 'beside' } }
    })
  })
  const client = await server.connect()
  client.send({ id: 1, type: 'move' })
  client.send({ id: 2, type: 'move' })

  assert.equal((await client.call('report')).data, 'beside')
  release.resolve('moved')

  assert.deepEqual([await client.next(), await client.next()].map(({ id }) => id), [1, 2])
})

test('refuses an unknown option of a call', async (t) => {
  const { app } = await start(t)
  const calls = { a: { handler: () => 1, paralel: true } }

  assert.throws(() => app.rohrpost.implement(contract({ calls: { a: {} } }), { calls } as never), { code: 'RP_ERR_INVALID_SCHEMA', message: /'paralel' of 'a'/ })
})

const incomplete = {
  'a missing call': [{ calls: { add: implementation.calls.add }, groups: implementation.groups }, "Invalid handler: expected an implementation of the contract's call 'list', got none"],
  'a missing group': [{ calls: implementation.calls, groups: {} }, "Invalid handler: expected an implementation of the contract's group 'todo', got none"],
  'no calls at all': [{ groups: implementation.groups }, "Invalid handler: expected an implementation of the contract's call 'add', got none"],
  'a call that is not in the contract': [{ ...implementation, calls: { ...implementation.calls, sub: () => 5 } }, 'Invalid handler: expected only calls of the contract, got "sub"']
} as const

for (const [what, [given, message]] of Object.entries(incomplete)) {
  test(`refuses ${what}, and registers nothing`, async (t) => {
    const { app } = await start(t)

    assert.throws(() => app.rohrpost.implement(api, given as never), { code: 'RP_ERR_INVALID_HANDLER', message })

    assert.deepEqual(Object.keys(app.rohrpost.schemas.handlers), ['ping', 'subscribe', 'unsubscribe'])
  })
}

test('refuses an authorize that is not a function', async (t) => {
  const { app } = await start(t)

  assert.throws(() => app.rohrpost.implement(contract({ groups: { a: {} } }), { groups: { a: undefined } } as never), {
    code: 'RP_ERR_INVALID_HANDLER',
    message: "Invalid handler: expected a function as 'authorize' of group 'a', got undefined"
  })
})
