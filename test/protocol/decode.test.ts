import assert from 'node:assert/strict'
import { test } from 'node:test'
import { decode, isMessageId, Malformed } from '../../lib/protocol/decode.ts'

const malformed: [string, string, { code: string, error: RegExp, id?: unknown }][] = [
  ['the empty text', '', { code: 'empty_message', error: /^Received empty message\.$/ }],
  ['what is not JSON', '{"id":1', { code: 'invalid_json', error: /^Could not decode JSON message\. Error: ./ }],
  ['an array', '[]', { code: 'invalid_envelope', error: /^Expected a JSON object as message\.$/ }],
  ['null', 'null', { code: 'invalid_envelope', error: /^Expected a JSON object as message\.$/ }],
  ['a number', '5', { code: 'invalid_envelope', error: /^Expected a JSON object as message\.$/ }],
  ['a message without type and id', '{}', { code: 'invalid_envelope', error: /^Missing required field 'type'\.$/ }],
  ['a message without type', '{"id":0}', { code: 'invalid_envelope', error: /^Missing required field 'type'\.$/, id: 0 }],
  ['a message without id', '{"type":"a"}', { code: 'invalid_envelope', error: /^Missing required field 'id'\.$/ }],
  ['a type that is a number', '{"id":"","type":1}', { code: 'invalid_envelope', error: /'type', got the number 1/, id: '' }],
  ['a type that is null', '{"id":null,"type":null}', { code: 'invalid_envelope', error: /'type', got null/ }],
  ['a type that is an array', '{"id":true,"type":[]}', { code: 'invalid_envelope', error: /'type', got an array/, id: true }],
  ['a type that is an object', '{"id":{},"type":{}}', { code: 'invalid_envelope', error: /'type', got an object/ }],
  ['a type that is a boolean', '{"id":1.5,"type":true}', { code: 'invalid_envelope', error: /'type', got a boolean/, id: 1.5 }],
  ['an id that is an object', '{"id":{},"type":"a"}', { code: 'invalid_envelope', error: /as 'id', got an object/ }],
  ['an id beyond 2^53', '{"id":9007199254740993,"type":"a"}', { code: 'invalid_envelope', error: /as 'id', got the number 9007199254740992/ }],
  ['an id that is infinite', '{"id":1e999,"type":"a"}', { code: 'invalid_envelope', error: /as 'id', got the number Infinity/ }]
]
for (const [what, text, { code, error, id }] of malformed) {
  test(`refuses ${what}`, () => {
    const result = decode(text)

    assert.ok(result instanceof Malformed)
    assert.equal(result.code, code)
    assert.match(result.error, error)
    assert.equal(result.id, id)
  })
}

test('keeps every field of an envelope', () => {
  const message = decode('{"type":"a","id":null,"data":[1],"auth_jwt":"t"}')

  assert.deepEqual(message, { type: 'a', id: null, data: [1], auth_jwt: 't' })
})

test('accepts strings, finite numbers, booleans and null as ids', () => {
  for (const id of ['', 'x', 0, -1, 1.5, 2 ** 53 - 1, true, false, null]) assert.ok(isMessageId(id))
  for (const id of [undefined, {}, [], NaN, Infinity, 2 ** 53, 1n]) assert.ok(!isMessageId(id))
})
