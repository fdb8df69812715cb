import { Type } from '@sinclair/typebox'
import type { FastifyInstance } from 'fastify'
import { describe, expect, test } from 'tstyche'
import { WebSocket } from 'ws'
import Default, { RohrpostClient, RohrpostError, type Change, type Resync, type State, type StateChange } from '../lib/client/index.ts'
import type { RohrpostConnection, RohrpostMessage } from '../lib/index.ts'
import { contract } from '../lib/protocol/index.ts'

const api = contract({
  calls: {
    add: { data: Type.Object({ a: Type.Number(), b: Type.Number() }), reply: Type.Object({ sum: Type.Number() }) },
    list: { reply: Type.Array(Type.String()) },
    log: { data: Type.String() },
    anything: {}
  },
  groups: {
    todo: { id: Type.Integer(), object: Type.Object({ id: Type.Integer(), title: Type.String() }) },
    news: { id: false, object: Type.String() },
    loose: {}
  }
})
interface Todo { id: number, title: string }

declare const app: FastifyInstance
declare const client: RohrpostClient<typeof api>
declare const plain: RohrpostClient

describe('a client with a contract', () => {
  test('knows the names, data and replies of calls', () => {
    expect(client.call('add', { a: 1, b: 2 })).type.toBe<Promise<{ sum: number }>>()
    expect(client.call('add', { a: 1, b: 2 }, { timeout: 100, signal: AbortSignal.timeout(5) })).type.toBe<Promise<{ sum: number }>>()
    expect(client.call('list')).type.toBe<Promise<string[]>>()
    expect(client.call('list', undefined, { timeout: 100 })).type.toBe<Promise<string[]>>()
    expect(client.call('log', 'text')).type.toBe<Promise<unknown>>()
    expect(client.call('anything', { at: 'all' })).type.toBe<Promise<unknown>>()
  })

  test('refuses what the contract does not have', () => {
    expect(client.call).type.not.toBeCallableWith('sub', { a: 1, b: 2 })
    expect(client.call).type.not.toBeCallableWith('add')
    expect(client.call).type.not.toBeCallableWith('add', { a: 1 })
    expect(client.call).type.not.toBeCallableWith('add', { a: 1, b: '2' })
    expect(client.call).type.not.toBeCallableWith('add', { a: 1, b: 2, c: 3 })
    expect(client.call).type.not.toBeCallableWith('add', { a: 1, b: 2 }, { retries: 5 })
    expect(client.call).type.not.toBeCallableWith('log', 5)
  })

  test('knows the ids of groups', () => {
    expect(client.subscribe).type.toBeCallableWith({ type: 'todo', id: 5 })
    expect(client.subscribe).type.toBeCallableWith({ type: 'news' })
    expect(client.subscribe).type.toBeCallableWith({ type: 'loose', id: 5 })
    expect(client.subscribe).type.toBeCallableWith({ type: 'loose', id: '7f9c24e8-3b12-4fef-91e0-5c1d8e7a6b54' })
    expect(client.subscribe).type.not.toBeCallableWith({ type: 'todos', id: 5 })
    expect(client.subscribe).type.not.toBeCallableWith({ type: 'todo', id: 'five' })
    expect(client.subscribe).type.not.toBeCallableWith({ type: 'todo' })
    expect(client.subscribe).type.not.toBeCallableWith({ type: 'news', id: 5 })
    expect(client.unsubscribe).type.not.toBeCallableWith({ type: 'todos', id: 5 })
    expect(client.changes).type.not.toBeCallableWith({ type: 'todos', id: 5 })
    expect(client.live).type.not.toBeCallableWith({ type: 'todos', id: 5 }, { load: () => [] })
  })

  test('carries the type of the object to whoever hears of a change', async () => {
    const { group } = await client.subscribe({ type: 'todo', id: 5 })
    expect(group).type.toBeAssignableTo<string>()
    client.on(group, (error, change) => {
      expect(error).type.toBe<RohrpostError | null>()
      expect(change).type.toBe<Change<Todo>>()
      expect(change.type).type.toBe<'create' | 'update' | 'delete'>()
    }).once(group, (_, { object }) => {
      expect(object).type.toBe<Todo>()
    })

    for await (const change of client.changes({ type: 'todo', id: 5 }, { signal: AbortSignal.timeout(5) })) {
      expect(change).type.toBe<Change<Todo>>()
    }
    for await (const { object } of client.changes({ type: 'news' })) {
      expect(object).type.toBe<string>()
    }
    for await (const change of client.changes({ type: 'todo', id: 5 }, { resync: true })) {
      expect(change).type.toBe<Change<Todo> | Resync>()
    }
    expect(client.subscribe).type.toBeCallableWith({ type: 'todo', id: 5 }, { onResync () {} })
    client.on('resync', (group) => {
      expect(group).type.toBe<string>()
    })
  })

  test('types a live collection', () => {
    const todos = client.live({ type: 'todo', id: 5 }, { load: async () => [{ id: 5, title: 'a' }] })
    expect(todos.getSnapshot()).type.toBe<readonly Todo[]>()
    expect(client.live).type.not.toBeCallableWith({ type: 'todo' as const, id: 5 }, { load: () => [{ id: 5 }] })
    client.live({ type: 'news' }, {
      load: () => ['a'],
      key: (object) => {
        expect(object).type.toBe<string>()
        return object
      }
    })
  })

  test('has no calls, or no groups, where the contract has none', () => {
    const groupless = {} as RohrpostClient<{ calls: { a: object } }>
    const callless = {} as RohrpostClient<{ groups: { a: object } }>
    expect(groupless.subscribe).type.not.toBeCallableWith({ type: 'a' })
    expect(callless.call).type.not.toBeCallableWith('a')
  })
})

describe('a client without contract', () => {
  test('is constructed as that of rohrpost-js, and with more', () => {
    expect(Default).type.toBe<typeof RohrpostClient>()
    expect(RohrpostClient).type.toBeConstructableWith('ws://localhost', { token: 'jwt', pingInterval: 5000 })
    expect(RohrpostClient).type.toBeConstructableWith('ws://localhost', { token: async () => 'jwt', WebSocket, backoff: { max: 5000 } })
    expect(RohrpostClient).type.toBeConstructableWith(new URL('ws://localhost'), { WebSocket: globalThis.WebSocket })
    expect(RohrpostClient).type.toBeConstructableWith(async () => 'ws://localhost', { autoConnect: false, disconnectWhenHidden: 60_000 })
    expect(RohrpostClient).type.toBeConstructableWith(() => new URL('ws://localhost'))
    expect(RohrpostClient).type.not.toBeConstructableWith(() => 5)
    expect(RohrpostClient).type.not.toBeConstructableWith()
    expect(RohrpostClient).type.not.toBeConstructableWith('ws://localhost', { pingIntervall: 5000 })
  })

  test('takes any name and any data, and gives what JSON.parse gives', async () => {
    const { sum } = await plain.call('add', { a: 1, b: 2 }, { timeout: 2000 })
    const typed: { sum: number } = await plain.call('add', [1, 2])
    await plain.call('ping')
    expect(plain.call).type.not.toBeCallableWith(5)
    app.log.info({ sum, typed })
  })

  test('connects when it is told to, waits, and is disposed of', async () => {
    expect(plain.connect()).type.toBe<void>()
    expect(plain.reconnect()).type.toBe<void>()
    expect(plain.call).type.toBeCallableWith('add', 5, { wait: true })
    expect(plain.call).type.not.toBeCallableWith('add', 5, { wait: 5 })
    await using client = new RohrpostClient('ws://localhost')
    expect(client.state).type.toBe<'idle' | 'connecting' | 'open' | 'waiting' | 'closed'>()
    expect(new RohrpostError('x').retryAfter).type.toBe<number | undefined>()
  })

  test('takes any group', async () => {
    const { group } = await plain.subscribe({ type: 'todo', id: 5 })
    plain.on(group, (_, { object }) => object.title)
    plain.on('todo-5', (_, { type, object }) => [type, object.title])
    await plain.unsubscribe({ type: 'todo', id: 5, of: 'the original' })
    const todos = plain.live({ type: 'todo', id: 5 }, { load: (): Todo[] => [] })
    expect(todos.getSnapshot()).type.toBe<readonly Todo[]>()
  })

  test('types its events', () => {
    plain.on('open', () => {}).off('closed', () => {}).once('reconnecting', () => {})
    plain.on('state', (state, change) => {
      expect(state).type.toBe<State>()
      expect(change).type.toBe<StateChange>()
    })
    plain.on('error', (text) => {
      expect(text).type.toBe<string>()
    })
    plain.on('log', ({ direction, data }) => {
      expect(direction).type.toBe<'send' | 'receive'>()
      expect(data).type.toBe<string>()
    })
  })
})

describe('implement', () => {
  const authorize = () => true
  const groups = { todo: { authorize }, news: { authorize }, loose: { authorize } }
  const calls = { add: () => ({ sum: 3 }), list: () => [], log: () => {}, anything: () => 5 }

  test('types each implementation', () => {
    app.rohrpost.implement(api, {
      calls: {
        ...calls,
        add (message, connection) {
          expect(this).type.toBe<FastifyInstance>()
          expect(message).type.toBe<RohrpostMessage<{ a: number, b: number }, { sum: number }>>()
          expect(connection).type.toBe<RohrpostConnection>()
          return { sum: message.data.a + message.data.b }
        },
        log: ({ data }) => {
          expect(data).type.toBe<string>()
        }
      },
      groups: {
        ...groups,
        todo: {
          authorize: ({ data }) => {
            expect(data.id).type.toBe<number>()
            return true
          }
        },
        news: {
          authorize: ({ data }) => {
            expect(data.id).type.toBe<undefined>()
            return true
          }
        },
        loose: {
          authorize: ({ data }) => {
            expect(data.id).type.toBe<string | number>()
            return true
          }
        }
      }
    })
  })

  test('refuses what is missing, too much, or of the wrong type', () => {
    const { add: _, ...withoutAdd } = calls
    const { todo: __, ...withoutTodo } = groups
    expect(app.rohrpost.implement<typeof api>).type.toBeCallableWith(api, { calls, groups })
    expect(app.rohrpost.implement<typeof api>).type.not.toBeCallableWith(api, { calls: withoutAdd, groups })
    expect(app.rohrpost.implement<typeof api>).type.not.toBeCallableWith(api, { calls, groups: withoutTodo })
    expect(app.rohrpost.implement<typeof api>).type.not.toBeCallableWith(api, { calls })
    expect(app.rohrpost.implement<typeof api>).type.not.toBeCallableWith(api, { calls: { ...calls, sub: () => 5 }, groups })
    expect(app.rohrpost.implement<typeof api>).type.not.toBeCallableWith(api, { calls: { ...calls, add: () => ({ sum: 'three' }) }, groups })
    expect(app.rohrpost.implement<typeof api>).type.not.toBeCallableWith(api, { calls, groups: { ...groups, todo: {} } })
  })

  test('takes a call with its option', () => {
    app.rohrpost.implement(api, {
      calls: {
        ...calls,
        add: {
          parallel: true,
          handler: ({ data }) => {
            expect(data).type.toBe<{ a: number, b: number }>()
            return { sum: data.a + data.b }
          }
        }
      },
      groups
    })
    expect(app.rohrpost.implement<typeof api>).type.not.toBeCallableWith(api, { calls: { ...calls, add: { parallel: true } }, groups })
    expect(app.rohrpost.implement<typeof api>).type.not.toBeCallableWith(api, { calls: { ...calls, add: { handler: () => ({ sum: 'three' }) } }, groups })
    expect(app.rohrpost.implement<typeof api>).type.not.toBeCallableWith(api, { calls: { ...calls, add: { parallel: 1, handler: calls.add } }, groups })
  })

  test('takes a contract of calls alone, or of groups alone', () => {
    app.rohrpost
      .implement(contract({ calls: { a: {} } }), { calls: { a: () => 5 } })
      .implement(contract({ groups: { b: {} } }), { groups: { b: { authorize } } })
  })
})

describe('contract', () => {
  test('refuses what no contract has', () => {
    expect(contract).type.not.toBeCallableWith({ calls: { add: { data: 5 } } })
    expect(contract).type.not.toBeCallableWith({ groups: { todo: { id: true } } })
  })
})
