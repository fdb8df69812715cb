import assert from 'node:assert/strict'
import { test } from 'node:test'
import { poll, Recorder } from '../../lib/testing/recorder.ts'

test('records messages and losses', () => {
  const recorder = new Recorder()

  recorder.deliver('a', '1', { epoch: 'e', offset: 1 })
  recorder.lost('a', { epoch: 'f', offset: 0 })
  recorder.deliver('b', '2')

  assert.deepEqual(recorder.payloads('a'), ['1'])
  assert.deepEqual(recorder.positions('a'), [{ epoch: 'e', offset: 1 }])
  assert.deepEqual(recorder.of('b'), [{ kind: 'message', group: 'b', payload: '2', position: undefined }])
})

test('names the event that it waited for', async (t) => {
  const recorder = new Recorder()
  const { setTimeout } = globalThis
  t.mock.method(globalThis, 'setTimeout', (run: () => void) => setTimeout(run, 1))

  await assert.rejects(recorder.until('a', '1'), /There was no message '1' in group 'a', only \[\]/)
  await assert.rejects(poll('good news', () => false), /There was no good news/)
})
