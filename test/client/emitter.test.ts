import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Emitter } from '../../lib/client/emitter.ts'

test('calls listeners in order, those of once one time', () => {
  const emitter = new Emitter()
  const heard: string[] = []
  emitter.add('resync', (text: string) => heard.push(`first ${text}`), false)
  emitter.add('resync', (text: string) => heard.push(`once ${text}`), true)
  emitter.add('closed', () => heard.push('b'), false)
  emitter.emit('resync', '1')
  emitter.emit('resync', '2')
  emitter.emit('open')

  assert.deepEqual(heard, ['first 1', 'once 1', 'first 2'])
})

test('takes listeners away, also those of once, one at a time', () => {
  const emitter = new Emitter()
  let count = 0
  const listener = () => { count++ }
  emitter.add('resync', listener, false)
  emitter.add('resync', listener, true)
  emitter.remove('resync', listener)
  emitter.emit('resync', '')
  emitter.emit('resync', '')
  emitter.remove('resync', listener)
  emitter.remove('resync', listener)
  emitter.emit('resync', '')

  assert.equal(count, 2)
})

test('calls those who were there when it began', () => {
  const emitter = new Emitter()
  const heard: string[] = []
  const late = () => { heard.push('late') }
  const early = () => {
    heard.push('early')
    emitter.add('resync', late, false)
    emitter.remove('resync', early)
  }
  emitter.add('resync', early, false)
  emitter.emit('resync', '')
  emitter.emit('resync', '')

  assert.deepEqual(heard, ['early', 'late'])
})

test('lets what a listener throws be uncaught, after the others were called', (t) => {
  const tasks: (() => void)[] = []
  t.mock.method(globalThis, 'queueMicrotask', (task: () => void) => tasks.push(task))
  const emitter = new Emitter()
  const heard: string[] = []
  emitter.add('resync', () => { throw new Error('by the listener') }, false)
  emitter.add('resync', () => heard.push('the other'), false)
  emitter.emit('resync', '')

  assert.deepEqual(heard, ['the other'])
  assert.throws(() => tasks[0]?.(), { message: 'by the listener' })
})
