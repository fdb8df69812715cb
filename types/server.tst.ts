import { Type } from '@sinclair/typebox'
import type { FastifyInstance } from 'fastify'
import { describe, expect, test } from 'tstyche'
import type { Broker, DiagnosticsChannel, DiagnosticsEvents, MessageId, ReplyEvent, Rohrpost, RohrpostConnection, RohrpostMessage } from '../lib/index.ts'
import rohrpost, { diagnostics, memoryBroker, rohrpost as named } from '../lib/index.ts'

declare const app: FastifyInstance

describe('registration', () => {
  test('takes the options of the plugin, all of them optional', () => {
    expect(app.register).type.toBeCallableWith(rohrpost)
    expect(app.register).type.toBeCallableWith(named, { path: '/ws', broker: memoryBroker(), maxPending: { messages: 1, bytes: 1 }, rateLimit: { max: 1, interval: 1 } })
    expect(app.register).type.toBeCallableWith(rohrpost, { allowedOrigins: (origin: string) => origin.length > 0, websocket: { options: { perMessageDeflate: true } } })
    expect(app.register).type.toBeCallableWith(rohrpost, '/ws')
    expect(app.register).type.toBeCallableWith(rohrpost, { prefix: '/api', logLevel: 'warn', logSerializers: { a: () => 'b' } })
    expect(app.register).type.toBeCallableWith(async () => {}, { prefix: '/api' })
    expect(app.register).type.not.toBeCallableWith(rohrpost, 5)
    expect(app.register).type.not.toBeCallableWith(async (_app: FastifyInstance, _options: { own: number }) => {}, '/ws')
    expect(app.register).type.not.toBeCallableWith(rohrpost, { path: 5 })
    expect(app.register).type.not.toBeCallableWith(rohrpost, { allowedOrigins: '*' })
    expect(app.register).type.not.toBeCallableWith(rohrpost, { broker: {} })
    expect(app.register).type.not.toBeCallableWith(rohrpost, { rateLimit: { max: 1 } })
  })

  test('decorates the app', () => {
    expect(app.rohrpost).type.toBe<Rohrpost>()
    expect(memoryBroker()).type.toBe<Broker>()
  })
})

describe('handle', () => {
  test('types data and reply by their schemas', () => {
    app.rohrpost.handle('add', {
      data: Type.Object({ a: Type.Number() }),
      reply: Type.Object({ sum: Type.Number() })
    }, function (message, connection) {
      expect(this).type.toBe<FastifyInstance>()
      expect(message).type.toBe<RohrpostMessage<{ a: number }, { sum: number }>>()
      expect(message.id).type.toBe<MessageId>()
      expect(message.signal).type.toBe<AbortSignal>()
      expect(message.auth_jwt).type.toBe<unknown>()
      expect(connection).type.toBe<RohrpostConnection>()
      return { sum: message.data.a }
    })
  })

  test('takes one schema, or none', () => {
    app.rohrpost.handle('a', { data: Type.String() }, async ({ data }) => {
      expect(data).type.toBe<string>()
      return { anything: true }
    })
    app.rohrpost.handle('p', { parallel: true }, ({ data }) => {
      expect(data).type.toBe<unknown>()
    })
    app.rohrpost.handle('q', { data: Type.String(), parallel: true }, ({ data }) => {
      expect(data).type.toBe<string>()
    })
    app.rohrpost.handle('b', { reply: Type.Number() }, ({ data }) => {
      expect(data).type.toBe<unknown>()
      return 5
    })
    app.rohrpost.handle(['c', 'd'], ({ data }) => {
      expect(data).type.toBe<unknown>()
    }).handle('e', async () => 5)
  })

  test('refuses a reply that is not what the schema says', () => {
    const reply = Type.Object({ sum: Type.Number() })
    expect(app.rohrpost.handle).type.not.toBeCallableWith('a', { reply }, () => ({ sum: 'three' }))
    expect(app.rohrpost.handle).type.not.toBeCallableWith('a', { reply }, async () => 5)
    expect<RohrpostMessage<unknown, { sum: number }>['reply']>().type.not.toBeCallableWith('three')
    expect(app.rohrpost.handle).type.not.toBeCallableWith('a', { body: reply }, () => 5)
    expect(app.rohrpost.handle).type.not.toBeCallableWith(5, () => 5)
  })

  test('lets a handler answer by message.reply', () => {
    app.rohrpost.handle('a', { reply: Type.Number() }, (message) => message.reply(5))
  })
})

describe('group', () => {
  test('types the id by its schema', () => {
    app.rohrpost.group('a', {
      authorize (message) {
        expect(this).type.toBe<FastifyInstance>()
        expect(message.data).type.toBe<{ type: string, id: string | number }>()
        return true
      }
    })
    app.rohrpost.group('b', {
      id: Type.Integer(),
      authorize: async ({ data }) => {
        expect(data.id).type.toBe<number>()
        return true
      }
    })
    app.rohrpost.group('c', {
      id: false,
      authorize: ({ data }) => {
        expect(data.id).type.toBe<undefined>()
        return true
      }
    })
  })

  test('demands authorize, and a boolean of it', () => {
    expect(app.rohrpost.group).type.not.toBeCallableWith('a', {})
    expect(app.rohrpost.group).type.not.toBeCallableWith('a', { authorize: () => 1 })
  })
})

describe('a connection', () => {
  const connection = {} as RohrpostConnection

  test('refuses messages without what they need', () => {
    expect(connection.send).type.toBeCallableWith({ type: 'a', extension: 1 })
    expect(connection.send).type.not.toBeCallableWith('text')
    expect(connection.sendSuccess).type.not.toBeCallableWith({ type: 'a' })
    expect(connection.sendError).type.not.toBeCallableWith({ id: 1 })
  })

  test('shows its groups, but not to change them', () => {
    expect(connection.groups).type.toBe<ReadonlySet<string>>()
  })
})

describe('disconnect', () => {
  test('takes a group or a predicate that says true or false', () => {
    expect(app.rohrpost.disconnect).type.toBeCallableWith('user:7', 4401, 'signed out')
    expect(app.rohrpost.disconnect).type.toBeCallableWith((connection: RohrpostConnection) => connection.groups.has('a'))
    expect(app.rohrpost.disconnect).type.not.toBeCallableWith(async () => true)
    expect(app.rohrpost.disconnect).type.not.toBeCallableWith(7)
    expect(app.rohrpost.disconnect('a')).type.toBe<Promise<void>>()
  })
})

describe('diagnostics', () => {
  test('types the events of each channel', () => {
    diagnostics.reply.subscribe((event, name) => {
      expect(event).type.toBe<ReplyEvent>()
      expect(event.message.connection).type.toBe<RohrpostConnection>()
      expect(name).type.toBe<string>()
    })
    diagnostics.drop.subscribe((event) => {
      if (event.reason === 'slow_consumer') expect(event.unsent).type.toBe<number>()
      else if (event.reason !== 'lost') expect(event.entity).type.toBe<string>()
    })
    expect(diagnostics.connect).type.toBe<DiagnosticsChannel<DiagnosticsEvents['rohrpost:connect']>>()
    expect(diagnostics.connect.publish).type.not.toBeCallableWith({})
  })
})
