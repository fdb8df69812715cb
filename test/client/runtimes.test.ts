/** Runtimes without some features of browsers and Node.js. */
import assert from 'node:assert/strict'
import { test, type TestContext } from 'node:test'
import { RohrpostClient } from '../../lib/client/index.ts'
import { onAbort } from '../../lib/client/waiting.ts'
import { settled } from './support/fake-socket.ts'
import { openFake } from './support/open.ts'

/** Removes a feature for one test. */
function without (t: TestContext, object: object, name: string, value?: unknown): void {
  const own = Object.getOwnPropertyDescriptor(object, name)
  Object.defineProperty(object, name, { value, configurable: true, writable: true })
  t.after(() => {
    if (own === undefined) Reflect.deleteProperty(object, name)
    else Object.defineProperty(object, name, own)
  })
}

test('works in React Native, without Promise.withResolvers and signal.throwIfAborted', async (t) => {
  without(t, Promise, 'withResolvers')
  without(t, AbortSignal.prototype, 'throwIfAborted')
  const { client, fake } = await openFake(t)
  const { signal } = new AbortController()
  await client.ready({ signal })
  const call = client.call('add', 1, { signal })
  fake.last.answer({ data: 2 })
  const subscribing = client.subscribe({ type: 'todo', id: 5 }, { signal })
  fake.last.answer({ data: { group: 'todo-5' } })
  const changes = client.changes({ type: 'todo', id: 5 }, { signal }).next()
  fake.last.answer({ data: { group: 'todo-5' } })
  fake.last.receive({ type: 'subscription-update', data: { group: 'todo-5', type: 'update', object: 5 } })

  assert.deepEqual([await call, await subscribing, (await changes).value?.object], [2, { group: 'todo-5' }, 5])
})

test('an aborted signal without a reason rejects with an AbortError', async (t) => {
  const signal = Object.assign(new EventTarget(), { aborted: false }) as AbortSignal
  const reasons: unknown[] = []
  onAbort(signal, (reason) => reasons.push(reason))
  signal.dispatchEvent(new Event('abort'))
  Object.assign(signal, { aborted: true })

  assert.equal((reasons[0] as Error).name, 'AbortError')
  onAbort(signal, (reason) => reasons.push(reason))()
  assert.deepEqual(reasons.map(String), ['AbortError: aborted', 'AbortError: aborted'])
})

for (const document of [{}, { addEventListener: true }, { hidden: false }]) {
  test(`works with an incomplete document: ${JSON.stringify(document)}`, async (t) => {
    without(t, globalThis, 'document', { ...document, ...('addEventListener' in document && { addEventListener () {} }) })
    const { client, fake } = await openFake(t)
    const call = client.call('add')
    fake.last.answer({ data: 2 })
    assert.equal(await call, 2)
    client.close()
    await settled()
  })
}

test('a runtime without WebSocket throws an error that names the option, before any side effect', (t) => {
  without(t, globalThis, 'WebSocket')
  let asked = 0
  for (const options of [{}, { token: () => String(asked++) }, { autoConnect: false }]) {
    assert.throws(() => new RohrpostClient('ws://host', options), {
      name: 'TypeError',
      message: "Option 'WebSocket' must be a class (there is no global one), got undefined"
    })
  }
  assert.equal(asked, 0)
})
