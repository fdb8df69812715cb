import { Type } from '@sinclair/typebox'
import type { FastifyInstance } from 'fastify'
import { describe, expect, test } from 'tstyche'
import { WebSocket } from 'ws'
import type { Change } from '../lib/client/index.ts'
import { contract } from '../lib/protocol/index.ts'
import { createTestApp, TestClient, type TestApp, type TestFrame } from '../lib/testing/index.ts'

export const api = contract({
  calls: {
    add: { data: Type.Object({ a: Type.Number(), b: Type.Number() }), reply: Type.Object({ sum: Type.Number() }) },
    list: { reply: Type.Array(Type.String()) }
  },
  groups: {
    todo: { id: Type.Integer(), object: Type.Object({ id: Type.Integer(), title: Type.String() }) },
    news: { id: false, object: Type.String() }
  }
})

declare const app: FastifyInstance
declare const client: TestClient<typeof api>
declare const plain: TestClient

describe('a test client with a contract', () => {
  test('knows the names, data and replies of calls', async () => {
    const { data, error, code } = await client.call('add', { a: 1, b: 2 })
    expect(data).type.toBe<{ sum: number }>()
    expect([error, code]).type.toBe<(string | undefined)[]>()
    expect((await client.call('list')).data).type.toBe<string[]>()
    expect(client.call).type.not.toBeCallableWith('sub')
    expect(client.call).type.not.toBeCallableWith('add')
    expect(client.call).type.not.toBeCallableWith('add', { a: 1, b: '2' })
  })

  test('knows the ids of groups, and the objects of their changes', async () => {
    const { group } = await client.subscribe({ type: 'todo', id: 5 })
    expect(client.change(group)).type.toBe<Promise<Change<{ id: number, title: string }>>>()
    await client.unsubscribe({ type: 'news' })
    expect(client.subscribe).type.not.toBeCallableWith({ type: 'todo', id: 'five' })
    expect(client.unsubscribe).type.not.toBeCallableWith({ type: 'todos' })
  })

  test('is given by a test app', async () => {
    const server = await createTestApp<typeof api, { id: number }>(app, { signIn: ({ id }) => ({ headers: { cookie: `user=${id}` } }) })
    expect(server).type.toBe<TestApp<typeof api, { id: number }>>()
    expect(await server.client({ user: { id: 5 } })).type.toBe<TestClient<typeof api, WebSocket>>()
    expect(server.client).type.not.toBeCallableWith({ user: 'ada' })
    expect(createTestApp).type.not.toBeCallableWith(app, { signIn: () => ({ cookie: 'a' }) })
  })
})

describe('a test client without contract', () => {
  test('takes any name, data and group', async () => {
    const { sum } = (await plain.call('add', [1, 2])).data
    const { group } = await plain.subscribe({ type: 'todo', id: 5 })
    const { object } = await plain.change('todo-5')
    app.log.info({ sum, group, title: object.title })
    expect(plain.next()).type.toBe<Promise<TestFrame>>()
    expect(plain.unread).type.toBe<TestFrame[]>()
  })

  test('takes sockets of any kind', () => {
    expect(new TestClient(new WebSocket('ws://localhost')).socket).type.toBe<WebSocket>()
    expect(TestClient).type.toBeConstructableWith(new globalThis.WebSocket('ws://localhost'), { timeout: 100, token: 'jwt' })
    expect(TestClient).type.not.toBeConstructableWith(new globalThis.WebSocket('ws://localhost'), { timeOut: 100 })
    expect(TestClient.connect<typeof api>('ws://localhost')).type.toBe<Promise<TestClient<typeof api>>>()
  })
})
