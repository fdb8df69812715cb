import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { isFinalCode } from '../../lib/client/socket.ts'
import { checkOptions, type ResolvedOptions } from '../../lib/options.ts'
import { CloseCode } from '../../lib/protocol/codes.ts'
import { codeOf, readDocument, tableOf } from './support/markdown.ts'

const document = readDocument('docs/operations.md')

suite('the close codes', () => {
  const rows = tableOf(document, 'Close codes')

  test('of the library are all documented', () => {
    const documented = rows.map(([code]) => Number(code))

    assert.deepEqual(Object.values(CloseCode).filter((code) => !documented.includes(code)), [])
  })

  for (const [code, , client = ''] of rows) {
    test(`after ${code} the client does what the table says`, () => {
      const [withToken, without] = [isFinalCode(Number(code), true), isFinalCode(Number(code), false)]

      assert.deepEqual([withToken, without], {
        reconnects: [false, false],
        'reconnects, unless its option `isFinal` decides otherwise': [false, false],
        'reconnects if its `token` is a function, otherwise stays disconnected': [false, true],
        'stays disconnected': [true, true]
      }[client])
    })
  }
})

test('the documented bounds of a client are the defaults of the options', () => {
  const { maxPayload, maxPending, highWaterMark, slowTimeout, maxUnsent, maxGroups, concurrency, handlerTimeout } = checkOptions({}) as ResolvedOptions
  const MIB = 1024 * 1024
  const expected = [
    ['maxPayload', `${maxPayload / MIB} MiB`],
    ['maxPending.bytes', `${maxPending.bytes / MIB} MiB, ${(maxPending.bytes + maxPayload) / MIB} MiB`],
    ['highWaterMark', `${highWaterMark / MIB} MiB for ${slowTimeout / 1000} s, ${maxUnsent / MIB} MiB`],
    ['maxGroups', maxGroups.toLocaleString('en')],
    ['concurrency', `${concurrency}, ${handlerTimeout / 1000} s`]
  ]

  assert.deepEqual(tableOf(document, 'Sizing').map(([, option, value]) => [codeOf(option), value]), expected)
})

test('the documented timeouts of proxies and supervisors are longer than those of the server', () => {
  const { heartbeatInterval, drainTimeout } = checkOptions({})

  assert.ok(Number(/proxy_read_timeout (\d+)s;/.exec(document.text)?.[1]) * 1000 > 2 * heartbeatInterval)
  for (const [, seconds] of document.text.matchAll(/(?:TimeoutStopSec=|terminationGracePeriodSeconds: )(\d+)/g)) {
    assert.ok(Number(seconds) * 1000 > drainTimeout + 2000)
  }
})
