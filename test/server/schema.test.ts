import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Type, type TSchema } from '@sinclair/typebox'
import { TypeCompiler } from '@sinclair/typebox/compiler'
import fc from 'fast-check'
import { SubscribeDataSchema } from '../../lib/protocol/schemas.ts'
import { SchemaCompiler } from '../../lib/server/requests/schema.ts'
import { start } from '../support/server.ts'

test('names the package of a schema that is not from TypeBox, and the package to install', async () => {
  const compiler = await SchemaCompiler.load()
  // schemas of typebox 1.x
  const typebox1 = Object.defineProperty({ type: 'object', properties: {} }, '~kind', { value: 'Object' })
  const foreign: [unknown, RegExp][] = [
    [typebox1, /^Invalid schema 'data' of 'add': it is not a TypeBox schema, but one of the package 'typebox' \(version 1\): .*npm install @sinclair\/typebox@0\.34/],
    [{ '~standard': { vendor: 'zod', version: 1 } }, /but one of the package 'zod': .*npm install/],
    [{ type: 'object', properties: {} }, /but plain JSON Schema: make it with Type/],
    [{ $ref: '#' }, /but plain JSON Schema/],
    [{}, /'add': it is not a TypeBox schema$/],
    ['string', /'add': it is not a TypeBox schema$/],
    [null, /'add': it is not a TypeBox schema$/]
  ]
  for (const [schema, message] of foreign) {
    assert.throws(() => compiler.compile(schema as TSchema, 'data', 'add'), { code: 'RP_ERR_INVALID_SCHEMA', message })
  }
})

test('without TypeBox, only the use of schemas is an error, which names the package to install', async () => {
  const compiler = await SchemaCompiler.load(() => Promise.reject(new Error("Cannot find package '@sinclair/typebox'")))
  const missing = { code: 'RP_ERR_TYPEBOX_MISSING', message: /needs the package '@sinclair\/typebox' \(npm install @sinclair\/typebox@0\.34\): Cannot find package/ }

  assert.throws(() => compiler.compile(Type.String(), 'id', 'todo'), missing)
  assert.throws(() => compiler.protocol, missing)
  assert.throws(() => compiler.compile({ type: 'string' } as never, 'id', 'todo'), { code: 'RP_ERR_INVALID_SCHEMA' })
})

test('validates data of subscribe and unsubscribe like its schema, with the messages of TypeBox', async (t) => {
  const server = await start(t)
  const client = await server.connect()
  const checker = TypeCompiler.Compile(SubscribeDataSchema)
  const data = fc.oneof(fc.jsonValue(), fc.record({ type: fc.jsonValue(), id: fc.jsonValue() }, { requiredKeys: [] }))

  await fc.assert(fc.asyncProperty(data, fc.constantFrom('subscribe', 'unsubscribe'), async (data, type) => {
    const first = checker.Errors(data).First()
    const expected = first && `Invalid data: ${first.message}${first.path && ` at '${first.path}'`}.`

    const { error, code } = await client.call(type, data)

    if (expected === undefined) assert.notEqual(code, 'invalid_data')
    else assert.deepEqual([error, code], [expected, 'invalid_data'])
  }))
})
