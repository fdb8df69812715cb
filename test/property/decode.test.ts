/** Decoding of 100,000 random texts: each result follows the rules of the protocol, and no text crashes the decoder. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { decode, Malformed } from '../../lib/protocol/decode.ts'
import { encode } from '../../lib/protocol/encode.ts'
import { anyText } from './support/arbitraries.ts'
import { checkSync } from './support/check.ts'
import { answerTo, assertAnswer } from './support/model.ts'

/** Errors of the decoder; all other errors come from later stages. */
const MALFORMED = ['empty_message', 'invalid_json', 'invalid_envelope']

test('decodes each of 100,000 texts by the rules, and can encode each result again', () => {
  checkSync(fc.property(anyText, (text) => {
    const expected = answerTo(text)
    const read = decode(text)

    if (read instanceof Malformed) {
      const { id, error, code } = read
      assertAnswer(encode({ id, error, code }), expected, text)
    } else {
      assert.equal(MALFORMED.includes(String(expected.code)), false, `read what can not be read: ${text}`)
      assert.deepEqual(read, JSON.parse(text))
      // 1e400 and -0 become values that JSON can't express
      assert.equal(encode(read), JSON.stringify(JSON.parse(text)))
    }
  }), { numRuns: 100_000 })
})
