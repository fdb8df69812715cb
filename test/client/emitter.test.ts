import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Emitter } from '../../lib/client/emitter.ts'

test('calls listeners in order, those of once one time', () => {
  const emitter = new Emitter()
  const heard: string[] = []
  emitter.add('a', (text: string) => heard.push(`first ${text}`), false)
  emitter.add('a', (text: string) => heard.push(`once ${text}`), true)
  emitter.add('b', () => heard.push('b'), false)
  emitter.emit('a', 1)
  emitter.emit('a', 2)
  emitter.emit('nobody')

  assert.deepEqual(heard, ['first 1', 'once 1', 'first 2'])
})

test('takes listeners away, also those of once, one at a time', () => {
  const emitter = new Emitter()
  let count = 0
  const listener = () => { count++ }
  emitter.add('a', listener, false)
  emitter.add('a', listener, true)
  emitter.remove('a', listener)
  emitter.emit('a')
  emitter.emit('a')
  emitter.remove('a', listener)
  emitter.remove('a', listener)
  emitter.emit('a')

  assert.equal(count, 2)
})

test('calls those who were there when it began', () => {
  const emitter = new Emitter()
  const heard: string[] = []
  const late = () => { heard.push('late') }
  const early = () => {
    heard.push('early')
    emitter.add('a', late, false)
    emitter.remove('a', early)
  }
  emitter.add('a', early, false)
  emitter.emit('a')
  emitter.emit('a')

  assert.deepEqual(heard, ['early', 'late'])
})

test('lets what a listener throws be uncaught, after the others were called', (t) => {
  const tasks: (() => void)[] = []
  t.mock.method(globalThis, 'queueMicrotask', (task: () => void) => tasks.push(task))
  const emitter = new Emitter()
  const heard: string[] = []
  emitter.add('a', () => { throw new Error('by the listener') }, false)
  emitter.add('a', () => heard.push('the other'), false)
  emitter.emit('a')

  assert.deepEqual(heard, ['the other'])
  assert.throws(() => tasks[0]?.(), { message: 'by the listener' })
})
