/** Batches: members that take them receive the published text, all others a message for each change. */
import assert from 'node:assert/strict'
import diagnosticsChannel from 'node:diagnostics_channel'
import { suite, test, type TestContext } from 'node:test'
import { memoryBroker } from '../../lib/index.ts'
import { encodeBatch, splitBatch, type EncodedChange } from '../../lib/protocol/batch.ts'
import { GroupMessage, sendToAll } from '../../lib/server/groups/group-message.ts'
import type { Member, SubscribeRequest } from '../../lib/server/groups/member.ts'
import { PositionedMembers } from '../../lib/server/groups/positioned-members.ts'
import { internalsOf } from '../../lib/server/internals.ts'
import type { Frame } from '../../lib/server/sending/frame.ts'
import { start, type Client } from '../support/server.ts'

const GROUP = 'todo-5'
const todo = { type: 'todo', id: 5 }

/** A batch with the numbers as objects. */
function batchOf (...numbers: number[]): string {
  const changes = numbers.map((n): EncodedChange => ({ type: 'update', object: String(n) }))
  return encodeBatch(GROUP, changes)[0]?.text ?? assert.fail()
}

/** A text with a position as its last field. */
function positioned (text: string | undefined, epoch: string, offset: number): string {
  return `${text?.slice(0, -1)},"position":{"group":"${GROUP}","epoch":"${epoch}","offset":${offset}}}`
}

async function serve (t: TestContext, history?: { size: number, ttl: number }) {
  const server = await start(t, {
    broker: memoryBroker(history && { history }),
    with: (app) => app.rohrpost
      .group('todo', { authorize: () => true })
      .handle('join', (_message, connection) => connection.join(GROUP))
  })
  const publish = (text: string) => internalsOf(server.app.rohrpost).publishObject(GROUP, text)
  return { ...server, publish }
}

/** Subscribes. @returns the epoch of the reply */
async function subscribe (client: Client, fields: { batch?: boolean, recover?: unknown }): Promise<string> {
  const reply = await client.ask({ id: 1, type: 'subscribe', data: todo, ...fields })
  assert.equal(reply.error, undefined)
  return Object(reply.position).epoch
}

/** The texts of all frames that the server sent. */
async function texts (client: Client): Promise<string[]> {
  const id = `end ${Math.random()}`
  client.send({ id, type: 'ping' })
  const received: string[] = []
  for (let text = await client.nextText(); JSON.parse(text).id !== id; text = await client.nextText()) received.push(text)
  return received
}

test('members that ask receive the batch as it was published, all others its parts', async (t) => {
  const server = await serve(t)
  const [batched, plain, joined] = [await server.connect(), await server.connect(), await server.connect()]
  await subscribe(batched, { batch: true })
  await subscribe(plain, { batch: false })
  await joined.call('join')

  const [single = ''] = encodeBatch(GROUP, [{ type: 'delete', object: '{"id":9}' }]).map(({ text }) => text)
  const text = batchOf(1, 2, 3)
  for (const each of [single, text]) server.publish(each)

  const parts = splitBatch(text) ?? assert.fail()
  assert.equal(parts[1], text.replace(/"type":"batch".*/, '"type":"update","object":2}}'))
  assert.deepEqual(await texts(batched), [single, text])
  assert.deepEqual(await texts(plain), [single, ...parts])
  assert.deepEqual(await texts(joined), [single, ...parts])
})

test('the batch has a position for members that ask for both, and the last part for those without batches', async (t) => {
  const server = await serve(t, { size: 10, ttl: 60_000 })
  const [batched, whole, parted, plain] = [await server.connect(), await server.connect(), await server.connect(), await server.connect()]
  const epoch = await subscribe(batched, { recover: true, batch: true })
  await subscribe(whole, { batch: true })
  await subscribe(parted, { recover: true })
  await subscribe(plain, {})

  const text = batchOf(1, 2, 3)
  server.publish(text)
  const [first, second, third] = splitBatch(text) ?? assert.fail()
  assert.deepEqual(await texts(batched), [positioned(text, epoch, 1)])
  assert.deepEqual(await texts(whole), [text])
  assert.deepEqual(await texts(parted), [first, second, positioned(third, epoch, 1)])
  assert.deepEqual(await texts(plain), [first, second, third])
})

for (const recover of [undefined, true]) {
  test(`the last subscribe of a group decides${recover ? ', for members with positions' : ''}`, async (t) => {
    const server = await serve(t, { size: 10, ttl: 60_000 })
    const client = await server.connect()
    const received: number[] = []
    for (const batch of [undefined, true, false, true]) {
      await subscribe(client, { recover, ...(batch !== undefined && { batch }) })
      // a join of the application changes nothing
      await client.call('join')
      server.publish(batchOf(1, 2, 3))
      received.push((await texts(client)).length)
    }
    assert.deepEqual(received, [3, 1, 3, 1])

    await client.call('unsubscribe', todo)
    await client.call('join')
    server.publish(batchOf(1, 2, 3))
    assert.equal((await texts(client)).length, 3)
  })
}

test('`batch` is a boolean, and a subscribe with another value changes nothing', async (t) => {
  const server = await serve(t)
  const client = await server.connect()
  await subscribe(client, { batch: true })
  for (const batch of [null, 1, 'yes', { a: 1 }]) {
    const { error, code } = await client.ask({ id: 2, type: 'subscribe', data: todo, batch })
    assert.equal(error, `Invalid data: Expected a boolean as 'batch', got ${typeof batch === 'object' ? batch && '{"a":1}' : JSON.stringify(batch)}.`)
    assert.equal(code, 'invalid_data')
  }
  server.publish(batchOf(1, 2))
  assert.equal((await texts(client)).length, 1)
})

for (const batch of [false, true]) {
  test(`missed batches are replayed ${batch ? 'whole' : 'as parts'}, also behind a position within the group`, async (t) => {
    const server = await serve(t, { size: 10, ttl: 60_000 })
    const follower = await server.connect()
    const epoch = await subscribe(follower, { recover: true })
    const batches = [batchOf(1, 2), batchOf(3, 4), batchOf(5, 6)]
    for (const text of batches) server.publish(text)

    const expected = batches.flatMap((text, index) => {
      const [first = '', second] = splitBatch(text) ?? []
      return batch ? [positioned(text, epoch, index + 1)] : [first, positioned(second, epoch, index + 1)]
    })
    for (const offset of [0, 1, 3]) {
      const client = await server.connect()
      await subscribe(client, { recover: { epoch, offset }, batch })
      assert.deepEqual(await texts(client), expected.slice(batch ? offset : 2 * offset))
    }
  })
}

test('a text that only begins as a batch does reaches all members as it is', async (t) => {
  const server = await serve(t)
  const [batched, plain] = [await server.connect(), await server.connect()]
  await subscribe(batched, { batch: true })
  await subscribe(plain, {})

  const message = { id: 1, type: 'subscription-update', data: { group: GROUP, type: 'batch', changes: [1, 2] } }
  server.app.rohrpost.sendToGroup(GROUP, message)
  for (const client of [batched, plain]) assert.deepEqual(await texts(client), [JSON.stringify(message)])
})

test('a batch is one message for the channel `rohrpost:deliver`', async (t) => {
  const server = await serve(t)
  const client = await server.connect()
  await subscribe(client, {})
  const delivered: unknown[] = []
  const listen = (message: unknown) => delivered.push(message)
  diagnosticsChannel.subscribe('rohrpost:deliver', listen)
  t.after(() => diagnosticsChannel.unsubscribe('rohrpost:deliver', listen))

  const text = batchOf(1, 2, 3)
  server.publish(text)
  assert.deepEqual(delivered, [{ group: GROUP, size: text.length, members: 1 }])
})

suite('the frames of a batch', () => {
  /** A member that records its frames, and the call of `next` of its replay. */
  function open () {
    const frames: Frame[] = []
    const own = { next: (): Frame | undefined => undefined }
    const member: Member = { send: (frame) => frames.push(frame), replay: (next) => { own.next = next }, dropReplay () {} }
    const heard = () => frames.map(({ text }) => {
      const { data, position } = JSON.parse(text)
      const what = data.type === 'batch' ? data.changes.map(({ object }: { object: number }) => object) : data.object ?? data.type
      return `${what}@${position?.offset}`
    })
    return { own, frames, member, heard }
  }

  test('are shared by all members of a kind, which are sent them one after another', () => {
    const order: Frame[] = []
    const members = ['batch', 'plain', 'batch', 'plain'].map((kind): [string, Member] => {
      return [kind, { send: (frame) => order.push(frame), replay () {}, dropReplay () {} }]
    })
    const batchMembers = new Set(members.filter(([kind]) => kind === 'batch').map(([, member]) => member))
    const message = new GroupMessage(batchOf(1, 2))
    sendToAll(message, new Set(members.map(([, member]) => member)), batchMembers)

    const { frame, parts } = message
    assert.deepEqual(order.map((each) => each === frame ? 'whole' : parts.indexOf(each)), ['whole', 'whole', 0, 1, 0, 1])
  })

  const at = (offset: number) => ({ epoch: 'e', offset })

  /** A member that catches up from the first of two batches. */
  function catchUp (batch: boolean) {
    const { member, own, heard } = open()
    const plainMembers = new Set<Member>()
    const members = new PositionedMembers(GROUP, { messages: 10, bytes: 10_000 }, plainMembers, new Set())
    const ask = (recover: SubscribeRequest['recover'], asked = batch): SubscribeRequest => {
      return { member, recover, batch: asked, joined () {}, failed: () => assert.fail() }
    }
    const request = ask({ after: at(0) })
    members.startBuffering(request, at(2))
    const history = members.read(at(0), at(2), () => [[1, 2], [3, 4]].map((numbers, index) => ({ payload: batchOf(...numbers), position: at(index + 1) })), () => assert.fail())
    assert.ok(Array.isArray(history))
    members.complete(request, history, at(2))
    const play = (count = Infinity) => {
      for (let n = 0; n < count; n++) {
        const frame = own.next()
        if (frame === undefined) return
        member.send(frame)
      }
    }
    return { member, members, ask, heard, play, deliver: (offset: number, ...numbers: number[]) => members.deliver(new GroupMessage(batchOf(...numbers)), at(offset)) }
  }

  test('come in order with live batches and a resync', () => {
    for (const [batch, expected] of [
      [true, ['1,2@1', '3,4@2', '5,6@3', 'resync@8', '7,8@9', '9,0@10']],
      [false, ['1@undefined', '2@1', '3@undefined', '4@2', '5@undefined', '6@3', 'resync@8', '7@undefined', '8@9', '9@undefined', '0@10']]
    ] as const) {
      const { members, heard, play, deliver } = catchUp(batch)
      play(1)
      deliver(3, 5, 6)
      members.lost(at(8))
      deliver(9, 7, 8)
      play()
      deliver(10, 9, 0)
      assert.deepEqual(heard(), expected)
    }
  })

  test('are completed before a membership changes, and dropped when it ends', () => {
    const [changed, left] = [catchUp(false), catchUp(false)]
    changed.play(1)
    const again = changed.ask({ after: undefined }, true)
    changed.members.startBuffering(again, at(2))
    changed.members.complete(again, undefined, at(2))
    changed.deliver(3, 5, 6)
    assert.deepEqual(changed.heard(), ['1@undefined', '2@1', '3@undefined', '4@2', '5,6@3'])

    left.play(1)
    left.members.delete(left.member)
    left.play()
    left.deliver(3, 5, 6)
    assert.deepEqual(left.heard(), ['1@undefined'])
  })

  for (const [kind, keeps] of [['whole', true], ['parts', false]] as const) {
    test(`are those of the membership before, ${kind}, if a request fails that asks for the other kind`, () => {
      const { members, ask, play, heard, deliver } = catchUp(keeps)
      play()
      deliver(3, 5, 6)
      const before = heard().length
      const request = ask({ after: at(1) }, !keeps)
      members.startBuffering(request, at(3))
      deliver(4, 7, 8)
      members.cancel(request, at(4))
      play()
      assert.deepEqual(heard().slice(before), keeps ? ['7,8@4'] : ['7@undefined', '8@4'])
    })
  }

  test('are those of a plain membership before if a request for positions fails', () => {
    for (const takesBatches of [true, false]) {
      const { member, heard } = open()
      const [plainMembers, batchMembers] = [new Set([member]), new Set(takesBatches ? [member] : [])]
      const members = new PositionedMembers(GROUP, { messages: 10, bytes: 10_000 }, plainMembers, batchMembers)
      const request: SubscribeRequest = { member, recover: { after: at(0) }, batch: !takesBatches, joined () {}, failed () {} }
      members.startBuffering(request, at(0))
      members.deliver(new GroupMessage(batchOf(1, 2)), at(1))
      members.cancel(request, at(1))
      assert.deepEqual(heard(), takesBatches ? ['1,2@undefined'] : ['1@undefined', '2@undefined'])
      assert.deepEqual([plainMembers.size, batchMembers.size], [1, takesBatches ? 1 : 0])
    }
  })
})
