import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { inspect } from 'node:util'
import { runInThisContext } from 'node:vm'
import { checkOptions, type ResolvedOptions } from '../../lib/options.ts'
import { encode } from '../../lib/protocol/encode.ts'
import { codeOf, readDocument, tableOf } from './support/markdown.ts'

const document = readDocument('docs/server.md')

suite('the options', () => {
  const rows = tableOf(document, 'Registering')

  test('are those that the plugin takes', () => {
    const documented = rows.map(([name]) => codeOf(name))

    assert.throws(() => checkOptions({ nonsense: true }), { message: `Unknown option 'nonsense', the options are: ${documented.join(', ')}` })
  })

  test('have the defaults that the document says', () => {
    const defaults = checkOptions({})

    for (const [cell, documented] of rows) {
      const name = codeOf(cell) as keyof ResolvedOptions
      const value = defaults[name]
      const shown = name === 'broker' ? 'memoryBroker()' : inspect(value, { numericSeparator: true })
      assert.equal(codeOf(documented), value === undefined ? undefined : shown, name)
    }
  })
})

suite('the encoding', () => {
  for (const [cell, documented] of tableOf(document, 'Encoding')) {
    const code = codeOf(cell) ?? ''

    test(`of ${code} is the documented one`, () => {
      const value: unknown = runInThisContext(`(${code})`)

      assert.equal(encode(value), codeOf(documented))
    })
  }
})
