import assert from 'node:assert/strict'
import { suite, test, type TestContext } from 'node:test'
import { memoryBroker, type Position, type RohrpostOptions } from '../../lib/index.ts'
import { Frame } from '../../lib/server/sending/frame.ts'
import { GroupMessage } from '../../lib/server/groups/group-message.ts'
import type { Member, SubscribeRequest } from '../../lib/server/groups/member.ts'
import { PositionedMembers } from '../../lib/server/groups/positioned-members.ts'
import type { PositionedMessage } from '../../lib/server/groups/positioned-message.ts'
import { Replays } from '../../lib/server/sending/replays.ts'
import { start, type Client } from '../support/server.ts'

const KIB = 1024

suite('replays', () => {
  /** Frames of a size, one after another. */
  function source (name: string, count: number, size: number): () => Frame | undefined {
    let n = 0
    return () => n < count ? new Frame(`${name}${++n}`.padEnd(size)) : undefined
  }

  function open () {
    const sent: string[] = []
    const replays = new Replays(({ text }) => sent.push(text.trim()))
    return { sent, replays }
  }

  test('send a portion, and the next one when it has been written', () => {
    const { sent, replays } = open()
    replays.add(source('a', 5, 40 * KIB))
    assert.deepEqual(sent, ['a1', 'a2'])

    const taken = replays.beforeWrite()
    assert.equal(replays.beforeWrite(), undefined)
    assert.equal(sent.length, 2)
    taken?.()

    assert.deepEqual(sent, ['a1', 'a2', 'a3', 'a4'])
  })

  test('count the bytes of several writes', () => {
    const { sent, replays } = open()
    replays.add(source('a', 1, 30 * KIB))
    const first = replays.beforeWrite()
    replays.add(source('b', 3, 40 * KIB))
    const second = replays.beforeWrite()
    assert.deepEqual(sent, ['a1', 'b1'])

    first?.()
    assert.deepEqual(sent, ['a1', 'b1', 'b2'])
    second?.()
    assert.deepEqual(sent, ['a1', 'b1', 'b2', 'b3'])
  })

  test('run one after another, small ones at once', () => {
    const { sent, replays } = open()
    for (const name of ['a', 'b', 'c']) replays.add(source(name, 2, 30 * KIB))
    assert.deepEqual(sent, ['a1', 'a2', 'b1'])

    replays.beforeWrite()?.()

    assert.deepEqual(sent, ['a1', 'a2', 'b1', 'b2', 'c1', 'c2'])
    replays.add(source('d', 2, 10))
    assert.deepEqual(sent.slice(6), [])
    replays.beforeWrite()?.()
    assert.deepEqual(sent.slice(6), ['d1', 'd2'])
  })

  test('that are dropped before they start are not sent', () => {
    const { sent, replays } = open()
    const dropped = source('b', 1, 10)
    replays.add(source('a', 3, 40 * KIB))
    replays.add(dropped)
    replays.add(source('c', 1, 10))
    replays.drop(dropped)
    replays.drop(source('d', 1, 10))
    replays.beforeWrite()?.()

    assert.deepEqual(sent, ['a1', 'a2', 'a3', 'c1'])
  })
})

suite('a member that catches up', () => {
  /** A member whose replay continues when the test calls `play`. */
  function catchUp (limit = { messages: 3, bytes: 1000 }) {
    const heard: string[] = []
    let next: () => Frame | undefined = () => undefined
    const member: Member = {
      send: ({ text }) => {
        const { n, data, position } = JSON.parse(text)
        heard.push(`${n ?? data.type}@${position?.offset}`)
      },
      replay: (given) => { next = given },
      dropReplay () {}
    }
    const plainMembers = new Set<Member>()
    const members = new PositionedMembers('a', limit, plainMembers, new Set())
    const position = (offset: number): Position => ({ epoch: 'e', offset })
    const request: SubscribeRequest = { member, recover: { after: position(0) }, batch: false, joined () {}, failed: () => assert.fail() }
    members.startBuffering(request, undefined)
    const history = members.read(position(0), position(2), () => [1, 2].map((n) => ({ payload: `{"n":${n}}`, position: position(n) })), () => assert.fail())
    assert.ok(Array.isArray(history))
    members.complete(request, history, position(2))
    return {
      heard,
      member,
      members,
      plainMembers,
      position,
      deliver: (...numbers: number[]) => {
        for (const n of numbers) members.deliver(new GroupMessage(`{"n":${n}}`), position(n))
      },
      /** Sends so many frames, or all. */
      play (frames = Infinity) {
        for (let n = 0; n < frames; n++) {
          const frame = next()
          if (frame === undefined) return
          member.send(frame)
        }
      }
    }
  }

  test('receives live messages after the missed ones', () => {
    const { heard, deliver, play } = catchUp()
    play(1)
    deliver(3)
    assert.deepEqual(heard, ['1@1'])
    play()
    deliver(4)

    assert.deepEqual(heard, ['1@1', '2@2', '3@3', '4@4'])
  })

  test('receives a resync in its place in the order', () => {
    const { heard, members, position, deliver, play } = catchUp()
    deliver(3)
    members.lost(position(7))
    deliver(8)
    play()
    members.lost(position(9))
    deliver(10)

    assert.deepEqual(heard, ['1@1', '2@2', '3@3', 'resync@7', '8@8', 'resync@9', '10@10'])
  })

  test('receives a resync while it is ahead, and then only messages that it does not have', () => {
    const { heard, members, position, deliver, play } = catchUp()
    play()
    members.lost(position(1))
    deliver(2, 3)
    members.lost(undefined)

    assert.deepEqual(heard, ['1@1', '2@2', 'resync@1', '3@3', 'resync@undefined'])
  })

  test('receives the whole queue at once if it grows beyond the limit', () => {
    for (const limit of [{ messages: 3, bytes: 1000 }, { messages: 100, bytes: 24 }]) {
      const { heard, deliver, play } = catchUp(limit)
      deliver(3, 4, 5, 6)
      assert.deepEqual(heard, [])
      deliver(7)
      assert.equal(heard.length, 7)
      play()
      deliver(8)

      assert.deepEqual(heard, [1, 2, 3, 4, 5, 6, 7, 8].map((n) => `${n}@${n}`))
    }
  })

  test('receives the whole queue at once when it becomes a plain member, and nothing when it leaves', () => {
    const [plain, left] = [catchUp(), catchUp()]
    plain.members.makePlain(plain.member, undefined)
    left.members.delete(left.member)
    for (const { play, deliver } of [plain, left]) {
      play()
      deliver(3)
    }

    assert.deepEqual(plain.heard, ['1@1', '2@2'])
    assert.deepEqual(left.heard, [])
    assert.deepEqual([plain.members.size, plain.plainMembers.size, left.members.size, left.plainMembers.size], [0, 1, 0, 0])
  })

  test('receives nothing if it leaves in its joined callback', () => {
    const members = new PositionedMembers('a', { messages: 3, bytes: 1000 }, new Set(), new Set())
    const member: Member = { send: () => assert.fail(), replay: () => assert.fail(), dropReplay () {} }
    const position = { epoch: 'e', offset: 1 }
    const request: SubscribeRequest = { member, recover: { after: position }, batch: false, joined: () => members.delete(member), failed: () => assert.fail() }
    members.startBuffering(request, position)
    members.complete(request, [], position)
    members.deliver(new GroupMessage('{}'), { epoch: 'e', offset: 2 })

    assert.equal(members.size, 0)
  })
})

suite('clients that recover one after another', () => {
  const position = (offset: number, epoch = 'e'): Position => ({ epoch, offset })

  /** A group whose history has the messages from 1 to `top`. */
  function open (limit = { messages: 10, bytes: 1000 }) {
    const members = new PositionedMembers('a', limit, new Set(), new Set())
    const state = { top: 4, reads: 0 }
    const entries = (after: number) => Array.from({ length: state.top - after }, (_, index) => ({ payload: `{"n":${after + index + 1}}`, position: position(after + index + 1) }))
    return {
      members,
      state,
      deliver (count: number) {
        for (let n = 0; n < count; n++) members.deliver(new GroupMessage(`{"n":${++state.top}}`), position(state.top))
      },
      /** Recovers from a position. */
      recover (after: number) {
        const frames: Frame[] = []
        let next: () => Frame | undefined = () => undefined
        const member: Member = { send: (frame) => frames.push(frame), replay: (given) => { next = given }, dropReplay () {} }
        const request: SubscribeRequest = { member, recover: { after: position(after) }, batch: false, joined ({ recovered } = {}) { assert.equal(recovered, true) }, failed: () => assert.fail() }
        members.startBuffering(request, position(state.top))
        const history = members.read(position(after), position(state.top), () => {
          state.reads++
          return entries(after)
        }, () => assert.fail())
        members.complete(request, history as readonly PositionedMessage[], position(state.top))
        return {
          frames,
          numbers: () => frames.map(({ text }) => JSON.parse(text).n),
          leave: () => members.delete(member),
          play () {
            for (let frame = next(); frame !== undefined; frame = next()) frames.push(frame)
          }
        }
      }
    }
  }

  test('share one copy of the missed messages, with the messages delivered since', () => {
    const { state, deliver, recover } = open()
    const first = recover(1)
    deliver(2)
    const [second, third] = [recover(1), recover(3)]
    for (const client of [first, second, third]) client.play()

    assert.equal(state.reads, 1)
    assert.deepEqual([first, second, third].map(({ numbers }) => numbers()), [[2, 3, 4, 5, 6], [2, 3, 4, 5, 6], [4, 5, 6]])
    for (const [index, frame] of first.frames.entries()) assert.equal(second.frames[index], frame)
    assert.equal(third.frames[2], first.frames[4])
  })

  test('read messages from before the copy, which is then replaced by the longer one', () => {
    const { state, recover } = open()
    recover(2)
    recover(1)
    recover(3)
    recover(1)
    assert.equal(state.reads, 2)
  })

  test('read again when no other replay is under way', () => {
    for (const end of ['play', 'leave'] as const) {
      const { state, recover } = open()
      const [first, second] = [recover(1), recover(1)]
      first[end]()
      recover(1).leave()
      assert.equal(state.reads, 1)
      second[end]()
      first.play()
      recover(1)
      assert.equal(state.reads, 2)
    }
  })

  test('read again when the copy is too large, has a gap, is outdated or ends before the position', () => {
    for (const limit of [{ messages: 3, bytes: 1000 }, { messages: 10, bytes: 24 }]) {
      const { state, deliver, recover } = open(limit)
      recover(1)
      deliver(limit.messages === 3 ? 4 : 5)
      recover(state.top - 1)
      assert.equal(state.reads, 2)
    }
    const gap = open()
    gap.recover(1)
    gap.state.top = 6
    gap.members.lost(position(6))
    gap.recover(5)
    assert.equal(gap.state.reads, 2)
    gap.state.top = 8
    gap.members.deliver(new GroupMessage('{"n":8}'), position(8))
    gap.recover(7)
    assert.equal(gap.state.reads, 3)
    gap.members.deliver(new GroupMessage('{"n":8}'), position(8))
    assert.deepEqual(gap.members.read(position(9), position(8), () => [], () => assert.fail()), [])
    assert.deepEqual(gap.members.read(position(7), undefined, () => [], () => assert.fail()), [])
    assert.deepEqual(gap.members.read(position(7, 'f'), position(8), () => [], () => assert.fail()), [])
  })
})

suite('a large replay', () => {
  const MESSAGES = 900
  const SIZE = KIB

  async function serve (t: TestContext, options: RohrpostOptions = {}) {
    const server = await start(t, {
      broker: memoryBroker({ history: { size: 1000, ttl: 60_000 } }),
      ...options,
      with: (app) => app.rohrpost.group('todo', { authorize: () => true })
    })
    const first = await server.connect()
    const positions: Position[] = []
    for (let id = 0; id < 20; id++) {
      const { position } = await first.ask({ id, type: 'subscribe', data: { type: 'todo', id }, recover: true })
      positions.push(position as Position)
    }
    first.socket.terminate()
    return {
      ...server,
      positions,
      publish (id: number, from: number, to: number) {
        for (let n = from; n <= to; n++) server.app.rohrpost.sendToGroup(`todo-${id}`, { id, n, text: 'x'.repeat(SIZE) })
      },
      recover: (client: Client, id: number) => client.send({ id: `r${id}`, type: 'subscribe', data: { type: 'todo', id }, recover: positions[id] })
    }
  }

  for (const [how, perMessageDeflate, highWaterMark] of [['', false, 200], [', watched', false, 1], [', compressed', true, 200]] as const) {
    test(`reaches a client that reads, with live messages behind it${how}`, async (t) => {
      const { connect, publish, recover } = await serve(t, {
        highWaterMark: highWaterMark * KIB,
        maxUnsent: 200 * KIB,
        websocket: { options: { perMessageDeflate: { threshold: 0 } } }
      })
      publish(0, 1, MESSAGES)
      const client = await connect(undefined, { perMessageDeflate })
      recover(client, 0)
      assert.equal((await client.next()).recovered, true)
      publish(0, MESSAGES + 1, MESSAGES + 50)

      for (let n = 1; n <= MESSAGES + 50; n++) assert.equal((await client.next()).n, n)
    })
  }

  test('of many groups is not read before the earlier replays have been sent', async (t) => {
    const { connect, publish, recover, app } = await serve(t, { highWaterMark: 200 * KIB, maxUnsent: 200 * KIB })
    for (let id = 0; id < 20; id++) publish(id, 1, MESSAGES)
    const client = await connect()
    client.socket.pause()
    for (let id = 0; id < 20; id++) recover(client, id)
    // the memory for a paused client must not grow with its requests
    const [connection] = [...app.rohrpost.connections].slice(-1)
    while ((connection?.groups.size ?? 0) === 0) await new Promise(setImmediate)
    for (let turn = 0; turn < 100; turn++) await new Promise(setImmediate)
    const begun = connection?.groups.size ?? 0
    client.socket.resume()

    const heard = new Map<unknown, number>()
    while ([...heard.values()].reduce((sum, n) => sum + n, 0) < 20 * MESSAGES) {
      const { id, n, recovered } = await client.next()
      if (recovered !== undefined) {
        assert.equal(recovered, true)
        continue
      }
      assert.equal(n, (heard.get(id) ?? 0) + 1)
      heard.set(id, Number(n))
    }
    assert.ok(begun < 20, `${begun} groups were read for a client that does not read`)
  })

  test('ends when the client disconnects', async (t) => {
    const { connect, publish, recover, app, logs } = await serve(t)
    for (let id = 0; id < 20; id++) publish(id, 1, MESSAGES)
    const client = await connect()
    client.socket.pause()
    for (let id = 0; id < 20; id++) recover(client, id)
    const [connection] = [...app.rohrpost.connections].slice(-1)
    while ((connection?.groups.size ?? 0) === 0) await new Promise(setImmediate)
    client.socket.terminate()
    while (app.rohrpost.connections.size > 0) await new Promise(setImmediate)
    await app.rohrpost.sendToGroup('todo-0', { n: 0 })
    await app.close()

    assert.deepEqual(logs.filter(({ level }) => level >= 40), [])
  })
})
