/** Messages that a hostile client might send. */
import fc from 'fast-check'

/** Keys with a meaning in the protocol or in JavaScript, and other keys. */
const key = fc.oneof(
  fc.constantFrom('id', 'type', 'data', 'error', 'reply', 'signal', 'auth_jwt', '__proto__', 'constructor', 'prototype', 'toString', 'x'),
  fc.string({ unit: 'binary', maxLength: 8 })
)

const number = fc.constantFrom(
  '0', '-0', '1', '-1', '1.5', '1e3', '1e21', '1e400', '-1e400', '5e-324',
  '9007199254740991', '9007199254740993', '-9007199254740993', '1'.repeat(400)
)
const string = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 12 }).map((text) => JSON.stringify(text)),
  fc.constantFrom('""', '"\\ud800"', '"\\udc00\\ud800"', '"\\u0000"', '"__proto__"', '"\\u005f_proto__"')
)

/** The text of any JSON value. */
const value = fc.letrec<{ value: string, object: string }>((tie) => ({
  value: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    fc.constantFrom('null', 'true', 'false', '[]', '{}'),
    number,
    string,
    fc.json({ stringUnit: 'binary', maxDepth: 4 }),
    fc.array(tie('value'), { maxLength: 4 }).map((items) => `[${items.join()}]`),
    tie('object')
  ),
  object: fc.array(fc.tuple(key, tie('value')), { maxLength: 5 }).map(toObject)
})).value

const type = fc.oneof(
  { weight: 12, arbitrary: fc.constantFrom('ping', 'echo', 'echo', 'point', 'subscribe', 'unsubscribe').map((name) => JSON.stringify(name)) },
  { weight: 4, arbitrary: fc.constantFrom('', 'pong', 'ping ', 'Ping', '__proto__', 'constructor', 'toString', "it's").map((name) => JSON.stringify(name)) },
  { weight: 1, arbitrary: value }
)
const id = fc.oneof(
  { weight: 12, arbitrary: fc.nat().map(String) },
  { weight: 3, arbitrary: number },
  { weight: 4, arbitrary: string },
  { weight: 2, arbitrary: fc.constantFrom('null', 'true', 'false') },
  { weight: 1, arbitrary: value }
)
const data = fc.oneof(value, fc.constantFrom('{"x":1}', '{"x":"1"}', '{"type":"todo","id":1}', '{"type":"__proto__"}', '{"type":7}'))

/** The text of an object that is, or nearly is, a message, with keys in any order and some repeated. */
const envelope = fc.tuple(
  fc.option(id, { nil: undefined, freq: 12 }),
  fc.option(type, { nil: undefined, freq: 12 }),
  fc.option(data, { nil: undefined }),
  fc.array(fc.tuple(key, value), { maxLength: 2 })
).chain(([id, type, data, others]) => {
  const named = Object.entries({ id, type, data }).filter((entry): entry is [string, string] => entry[1] !== undefined)
  return fc.shuffledSubarray([...named, ...others], { minLength: named.length + others.length })
}).map(toObject)

/** A truncated message, or a message with inserted text. */
const damaged = fc.tuple(envelope, fc.nat(), fc.string({ unit: 'binary', maxLength: 2 }), fc.boolean())
  .map(([text, at, inserted, cut]) => text.slice(0, at % (text.length + 1)) + inserted + (cut ? '' : text.slice(at % (text.length + 1))))

/** Any text as a message: requests, other JSON, and invalid JSON. */
export const anyText = fc.oneof(
  { weight: 12, arbitrary: envelope },
  { weight: 3, arbitrary: value },
  { weight: 3, arbitrary: damaged },
  { weight: 1, arbitrary: fc.string({ unit: 'binary', maxLength: 30 }) }
)

/** Any bytes as a message: text in UTF-8, text with a broken byte, and noise. */
export const anyBytes = fc.oneof(
  { weight: 12, arbitrary: anyText.map((text) => Buffer.from(text)) },
  {
    weight: 2,
    arbitrary: fc.tuple(envelope, fc.nat(), fc.nat({ max: 255 })).map(([text, at, byte]) => {
      const bytes = Buffer.from(text)
      bytes[at % bytes.length] = byte
      return bytes
    })
  },
  { weight: 1, arbitrary: fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes)) }
)

function toObject (members: readonly (readonly [key: string, value: string])[]): string {
  return `{${members.map(([key, value]) => `${JSON.stringify(key)}:${value}`).join()}}`
}
