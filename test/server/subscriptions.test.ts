import assert from 'node:assert/strict'
import { test, type TestContext } from 'node:test'
import { FormatRegistry, Type } from '@sinclair/typebox'
import { memoryBroker, type RohrpostOptions } from '../../lib/index.ts'
import { start } from '../support/server.ts'

const UUID = '018f3f2a-9a4e-7c3a-8f00-0123456789ab'

test('joins the group of its reply if authorize returns true', async (t) => {
  const asked: unknown[] = []
  const server = await start(t, {
    with: (app) => app.rohrpost.group('todo', {
      authorize (message, connection) {
        asked.push([message.data, message.auth_jwt, connection.groups.size])
        return message.auth_jwt === 'good'
      }
    })
  })
  const client = await server.connect()

  const answer = await client.ask({ type: 'subscribe', id: 1, auth_jwt: 'good', data: { type: 'todo', id: 5 } })
  server.app.rohrpost.sendToGroup('todo-5', { news: 1 })

  assert.deepEqual(answer, { id: 1, type: 'subscribe', data: { group: 'todo-5' } })
  assert.deepEqual(await client.next(), { news: 1 })
  assert.deepEqual(await client.ask({ type: 'subscribe', id: 2, auth_jwt: 'bad', data: { type: 'todo', id: 6 } }), {
    id: 2, type: 'subscribe', error: 'ACCESS_DENIED', code: 'access_denied'
  })
  assert.deepEqual(asked, [[{ type: 'todo', id: 5 }, 'good', 0], [{ type: 'todo', id: 6 }, 'bad', 1]])
})

test('allows a subscription only if authorize returns exactly true', async (t) => {
  const answers: unknown[] = [1, 'true', {}, undefined, Promise.resolve(1), false]
  const server = await start(t, {
    with: (app) => app.rohrpost
      .group('any', { id: Type.Integer(), authorize: ({ data }) => answers[data.id] as boolean })
      .group('locked', { authorize () { throw Object.assign(new Error('Token expired.'), { statusCode: 401, code: 'token_expired' }) } })
      .group('broken', { authorize: async () => { throw new Error('no database') } })
  })
  const client = await server.connect()

  for (const id of answers.keys()) assert.equal((await client.call('subscribe', { type: 'any', id })).error, 'ACCESS_DENIED')
  const told = server.logs.map(({ msg }) => /'authorize' returned a value of type (\w+)/.exec(String(msg))?.[1]).filter((type) => type !== undefined)
  assert.deepEqual(told, ['number', 'string', 'object', 'undefined', 'number'])
  assert.equal((await client.call('subscribe', { type: 'undeclared', id: 1 })).error, 'ACCESS_DENIED')
  assert.deepEqual(await client.ask({ id: 1, type: 'subscribe', data: { type: 'locked', id: 1 } }), {
    id: 1, type: 'subscribe', error: 'Token expired.', code: 'token_expired'
  })
  assert.equal((await client.call('subscribe', { type: 'broken', id: 1 })).code, 'internal')
  const [connection] = server.app.rohrpost.connections
  assert.equal(connection?.groups.size, 0)
})

test('accepts safe integers from 0 and UUIDs as ids by default', async (t) => {
  const server = await start(t, { with: (app) => app.rohrpost.group('a', { authorize: () => true }) })
  const client = await server.connect()

  for (const id of [0, 2 ** 53 - 1, UUID, '0', '5', '9007199254740993', String(2n ** 64n - 1n)]) {
    assert.deepEqual((await client.call('subscribe', { type: 'a', id })).data, { group: `a-${id}` })
  }
  const refused = [-1, 1.5, 2 ** 53, '-5', '+5', '007', '1e3', '5.0', ' 5', '٣', String(2n ** 64n), '', null, undefined, true, {}, [], [1, 2], `${UUID}0`]
  for (const id of refused) {
    const { error, code } = await client.call('subscribe', { type: 'a', id })
    assert.equal(error, "Invalid data: Expected a safe integer from 0, or a UUID at '/id'.")
    assert.equal(code, 'invalid_data')
  }
})

test('accepts ids by the schema of the group type, if they can be part of a name', async (t) => {
  const server = await start(t, {
    with: (app) => app.rohrpost
      .group('page', { id: Type.String({ maxLength: 300 }), authorize: () => true })
      .group('odd', { id: Type.Unknown(), authorize: () => true })
  })
  const client = await server.connect()

  for (const [id, name] of [['a:b', 'a%3Ab'], ['a b', 'a%20b'], ['c++', 'c%2B%2B'], ['naïve', 'na%C3%AFve'], ['50%', '50%25'], ['007', '007'], ['', '']]) {
    assert.deepEqual((await client.call('subscribe', { type: 'page', id })).data, { group: `page-${name}` })
  }
  assert.equal((await client.call('subscribe', { type: 'page', id: 5 })).error, "Invalid data: Expected string at '/id'.")
  assert.equal((await client.call('subscribe', { type: 'page', id: '\ud800' })).code, 'invalid_group')
  assert.equal((await client.call('subscribe', { type: 'page', id: 'x'.repeat(200) })).code, 'invalid_group')
  for (const id of [[1], [], [1, null], [1, [2]], { a: 1 }, null]) {
    assert.equal((await client.call('subscribe', { type: 'odd', id })).error, "Invalid data: Expected a string or a number at '/id'.")
  }
  for (const [id, name] of [[-0, '0'], [-5, '-5'], [1e21, '1e%2B21']]) {
    assert.deepEqual((await client.call('subscribe', { type: 'odd', id })).data, { group: `odd-${name}` })
  }
})

test('accepts the parts of a composite key as an array, if the schema allows it', async (t) => {
  const asked: unknown[] = []
  const server = await start(t, {
    with: (app) => app.rohrpost.group('seat', {
      id: Type.Tuple([Type.String(), Type.Integer()]),
      authorize: ({ data }) => asked.push(data.id) > 0
    })
  })
  const client = await server.connect()

  assert.deepEqual((await client.call('subscribe', { type: 'seat', id: ['A:1', 2] })).data, { group: 'seat-A%3A1:2' })
  assert.deepEqual(asked, [['A:1', 2]])
  await client.call('unsubscribe', { type: 'seat', id: ['A:1', 2] })
  const [connection] = server.app.rohrpost.connections
  assert.equal(connection?.groups.size, 0)
})

test('calls authorize with the canonical id, and unsubscribes by any spelling of it', async (t) => {
  FormatRegistry.Set('uuid', (text) => /^[\da-f-]{36}$/i.test(text))
  t.after(() => FormatRegistry.Delete('uuid'))
  const asked: unknown[] = []
  const authorize = ({ data }: { data: { id: unknown } }) => asked.push(data.id) > 0
  const server = await start(t, {
    with: (app) => app.rohrpost
      .group('a', { authorize })
      .group('uuid', { id: Type.String({ format: 'uuid' }), authorize })
      .group('union', { id: Type.Union([Type.Integer(), Type.String({ format: 'uuid' })]), authorize })
      .group('text', { id: Type.String(), authorize })
  })
  const client = await server.connect()
  const capitals = UUID.toUpperCase()

  for (const [type, id, form] of [
    ['a', capitals, UUID], ['a', '5', 5], ['a', '9007199254740993', '9007199254740993'],
    ['uuid', capitals, UUID], ['union', capitals, UUID], ['text', capitals, capitals], ['text', '5', '5']
  ]) {
    assert.deepEqual((await client.call('subscribe', { type, id })).data, { group: `${type}-${form}` })
    assert.equal(asked.pop(), form)
    await client.call('unsubscribe', { type, id })
  }
  const [connection] = server.app.rohrpost.connections
  assert.equal(connection?.groups.size, 0)
})

test('warns once about each undeclared type of clients, and about a hundred types at most', async (t) => {
  const server = await start(t)
  const client = await server.connect()
  const warned = () => server.logs.filter(({ level, msg }) => level === 40 && msg.includes('is not declared')).map(({ type }) => type)

  for (const type of ['todo', 'todo', 'x'.repeat(201), 'x'.repeat(300)]) {
    assert.equal((await client.call('subscribe', { type, id: 1 })).code, 'access_denied')
  }
  assert.deepEqual(warned(), ['todo', `${'x'.repeat(200)}…`])

  for (let i = 0; i < 120; i++) await client.call('subscribe', { type: `type${i}`, id: 1 })
  assert.equal(warned().length, 100)
})

test('names the single group of a type by the type', async (t) => {
  const server = await start(t, { with: (app) => app.rohrpost.group('news', { id: false, authorize: () => true }) })
  const client = await server.connect()

  assert.deepEqual((await client.call('subscribe', { type: 'news' })).data, { group: 'news' })
  assert.equal((await client.call('subscribe', { type: 'news', id: 1 })).error, "Invalid data: Expected no id at '/id'.")
})

test('rejects data without a type', async (t) => {
  const server = await start(t)
  const client = await server.connect()

  for (const type of ['subscribe', 'unsubscribe']) {
    assert.equal((await client.call(type)).error, 'Invalid data: Expected object.')
    assert.equal((await client.call(type, { id: 1 })).error, "Invalid data: Expected required property at '/type'.")
  }
})

test('unsubscribes without authorize, and without an error if there is no membership', async (t) => {
  const server = await start(t, { with: (app) => app.rohrpost.group('todo', { authorize: ({ data }) => data.id === 5 }) })
  const client = await server.connect()
  await client.call('subscribe', { type: 'todo', id: 5 })

  for (const data of [{ type: 'todo', id: 5 }, { type: 'todo', id: 5 }, { type: 'todo', id: 6 }, { type: 'todo', id: { toString: 1 } }, { type: 'nope', id: 1 }, { type: 'todo' }]) {
    assert.equal(JSON.stringify(await client.ask({ id: 0, type: 'unsubscribe', data })), '{"id":0,"type":"unsubscribe"}')
  }
  server.app.rohrpost.sendToGroup('todo-5', { news: 1 })
  assert.deepEqual(await client.untilPong(), [])
})

test("can't end memberships in undeclared groups that the application has made", async (t) => {
  const server = await start(t, {
    onConnect: (connection) => {
      for (const name of ['user:7', 'user', 'user-ada']) connection.join(name)
    },
    with: (app) => app.rohrpost.group('user', { authorize: () => false })
  })
  const client = await server.connect()

  for (const data of [{ type: 'user:7' }, { type: 'user' }, { type: 'user', id: 'ada' }]) await client.call('unsubscribe', data)

  const [connection] = server.app.rohrpost.connections
  assert.deepEqual([...connection?.groups ?? []], ['user:7', 'user', 'user-ada'])
})

test('handles subscribe and unsubscribe of one group in order of arrival', async (t) => {
  const allowed = Promise.withResolvers<boolean>()
  const server = await start(t, {
    with: (app) => app.rohrpost.group('todo', { authorize: ({ data }) => data.id === 1 ? allowed.promise : true })
  })
  const client = await server.connect()
  client.send({ id: 'in', type: 'subscribe', data: { type: 'todo', id: 1 } })
  client.send({ id: 'out', type: 'unsubscribe', data: { type: 'todo', id: 1 } })
  client.send({ id: 'other', type: 'subscribe', data: { type: 'todo', id: 2 } })

  assert.equal((await client.next()).id, 'other')
  allowed.resolve(true)

  assert.deepEqual([(await client.next()).id, (await client.next()).id], ['in', 'out'])
  const [connection] = server.app.rohrpost.connections
  assert.deepEqual([...connection?.groups ?? []], ['todo-2'])
})

test('continues with the next request after one that failed', async (t) => {
  const [asked, answer] = [Promise.withResolvers<void>(), Promise.withResolvers<boolean>()]
  const answers = [answer.promise, true]
  const server = await start(t, {
    with: (app) => app.rohrpost.group('todo', {
      authorize () {
        asked.resolve()
        return answers.shift() ?? false
      }
    })
  })
  const client = await server.connect()
  client.send({ id: 1, type: 'subscribe', data: { type: 'todo', id: 1 } })
  client.send({ id: 2, type: 'subscribe', data: { type: 'todo', id: 1 } })

  await asked.promise
  answer.reject(new Error('no database'))

  assert.equal((await client.next()).code, 'internal')
  assert.deepEqual((await client.next()).data, { group: 'todo-1' })
})

test('does not join after the client received a timeout', async (t) => {
  const allowed = Promise.withResolvers<boolean>()
  const server = await start(t, { handlerTimeout: 10, with: (app) => app.rohrpost.group('todo', { authorize: () => allowed.promise }) })
  const client = await server.connect()

  assert.equal((await client.call('subscribe', { type: 'todo', id: 1 })).code, 'timeout')
  allowed.resolve(true)
  await client.untilPong()

  const [connection] = server.app.rohrpost.connections
  assert.equal(connection?.groups.size, 0)
  assert.ok(!server.logs.some(({ level }) => level === 50))
})

test('sends no message of a group before the reply, also with an asynchronous broker', async (t) => {
  const memory = memoryBroker()
  const server = await start(t, {
    broker: {
      ...memory,
      subscribe (group) {
        memory.subscribe(group)
        memory.publish(group, '{"too":"early"}')
        const subscribed = Promise.resolve()
        subscribed.then().then(() => memory.publish(group, '{"n":1}'))
        return subscribed
      }
    },
    with: (app) => app.rohrpost.group('todo', { authorize: () => true })
  })
  const client = await server.connect()

  assert.deepEqual((await client.call('subscribe', { type: 'todo', id: 1 })).data, { group: 'todo-1' })
  assert.deepEqual(await client.untilPong(), [{ n: 1 }])
})

test('answers with retry: true when the broker fails to subscribe, and joins nothing', async (t) => {
  let fails = true
  const memory = memoryBroker()
  const server = await start(t, {
    broker: {
      ...memory,
      async subscribe (group) {
        if (fails) throw new Error('redis-1 is away')
        return memory.subscribe(group)
      }
    },
    maxGroups: 1,
    with: (app) => app.rohrpost.group('todo', { authorize: () => true })
  })
  const client = await server.connect()

  assert.deepEqual(await client.ask({ id: 1, type: 'subscribe', data: { type: 'todo', id: 1 } }), {
    id: 1, type: 'subscribe', error: "Can't join 'todo-1' now", code: 'unavailable', retry: true
  })
  assert.ok(server.logs.some(({ err }) => err?.message.includes("Can't join 'todo-1'")))
  fails = false
  assert.deepEqual((await client.call('subscribe', { type: 'todo', id: 2 })).data, { group: 'todo-2' })
})

/** A server whose broker subscribes when the test releases it. */
async function startSlow (t: TestContext, options: RohrpostOptions = {}) {
  const [asked, subscribed] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  const memory = memoryBroker()
  const server = await start(t, {
    ...options,
    broker: {
      ...memory,
      async subscribe (group) {
        if (group === 'todo-1') asked.resolve()
        await subscribed.promise
        return memory.subscribe(group)
      }
    },
    with: (app) => app.rohrpost.group('todo', { authorize: () => true })
  })
  const client = await server.connect()
  client.send({ id: 1, type: 'subscribe', data: { type: 'todo', id: 1 } })
  await asked.promise
  const [connection] = server.app.rohrpost.connections
  return { client, connection: connection ?? assert.fail(), subscribed }
}

test('leaves again when the broker subscribes after the deadline', async (t) => {
  const { client, connection, subscribed } = await startSlow(t, { handlerTimeout: 10 })

  assert.equal((await client.next()).code, 'timeout')
  subscribed.resolve()
  while (connection.groups.size > 0) await new Promise(setImmediate)

  assert.deepEqual(await client.untilPong(), [])
})

test('is denied when the application removes the client from the group meanwhile', async (t) => {
  const { client, connection, subscribed } = await startSlow(t)

  connection.leave('todo-1')
  subscribed.resolve()

  assert.equal((await client.next()).code, 'access_denied')
})

test('rejects invalid declarations, and names the value', async (t) => {
  const { app: { rohrpost } } = await start(t)
  const authorize = () => true
  rohrpost.group('todo', { authorize })

  for (const type of ['', 'a-b', '5', 'ä', 'a b']) {
    assert.throws(() => rohrpost.group(type, { authorize }), { code: 'RP_ERR_INVALID_GROUP_TYPE', message: new RegExp(`'${type}'`) })
  }
  assert.throws(() => rohrpost.group(5 as never, { authorize }), { code: 'RP_ERR_INVALID_GROUP_TYPE', message: /'5'/ })
  assert.throws(() => rohrpost.group('todo', { authorize }), { code: 'RP_ERR_DUPLICATE_GROUP_TYPE', message: /'todo'/ })
  assert.throws(() => rohrpost.group('list', {} as never), { code: 'RP_ERR_INVALID_HANDLER', message: /a function as 'authorize' of group 'list', got undefined/ })
  assert.throws(() => rohrpost.group('list', undefined as never), { code: 'RP_ERR_INVALID_HANDLER' })
  assert.throws(() => rohrpost.group('list', { authorize, id: 5 as never }), { code: 'RP_ERR_INVALID_SCHEMA', message: /'id' of 'list'/ })
})
