import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Emitter } from '../../lib/client/emitter.ts'

test('calls listeners in order, and those of `once` one time', () => {
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

test('removes listeners one at a time, including those of `once`', () => {
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

test('calls the listeners that existed when `emit` began', () => {
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

test('reports an error of a listener as uncaught, after calling the others', (t) => {
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
