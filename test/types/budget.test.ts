import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../..', import.meta.url))

/** Type instantiations that TypeScript needs for an app with so many handlers. */
function instantiationsOfApp (t: TestContext, handlers: string[]): number {
  return instantiations(t, `
    import { Type } from '@sinclair/typebox'
    import type { FastifyInstance } from 'fastify'
    import '../../../lib/index.ts'
    declare const app: FastifyInstance
    app.rohrpost.handle('first', { data: Type.Object({ a: Type.Number() }), reply: Type.Number() }, ({ data }) => data.a)
    ${handlers.join('\n    ')}
  `)
}

/** Type instantiations that TypeScript needs for a client of a contract with 100 calls that makes these. */
function instantiationsOfClient (t: TestContext, calls: string[]): number {
  return instantiations(t, `
    import { Type } from '@sinclair/typebox'
    import { RohrpostClient } from '../../../lib/client/index.ts'
    import { contract } from '../../../lib/protocol/index.ts'
    const api = contract({
      calls: {
        ${schemas((n) => `call${n}`)}
      },
      groups: { todo: { id: Type.Integer(), object: Type.Object({ id: Type.Integer(), title: Type.String() }) } }
    })
    const client = new RohrpostClient<typeof api>('ws://localhost')
    ${calls.join('\n    ')}
  `)
}

function schemas (name: (n: number) => string): string {
  return Array.from({ length: 100 }, (_, n) => `${name(n)}: {
          data: Type.Object({ a${n}: Type.Number(), list: Type.Array(Type.String()) }),
          reply: Type.Object({ sum: Type.Number(), name: Type.Optional(Type.String()) })
        }`).join(',\n        ')
}

function instantiations (t: TestContext, source: string): number {
  const dir = mkdtempSync(join(root, 'test/types/budget-'))
  t.after(() => rmSync(dir, { recursive: true }))
  writeFileSync(join(dir, 'app.ts'), source)
  writeFileSync(join(dir, 'tsconfig.json'), JSON.stringify({ extends: '../../../tsconfig.json', include: ['app.ts'], exclude: [] }))

  const report = execFileSync(join(root, 'node_modules/.bin/tsc'), ['-p', dir, '--extendedDiagnostics'], { encoding: 'utf8' })
  return Number(/Instantiations:\s+(\d+)/.exec(report)?.[1] ?? assert.fail(report))
}

test('infers 100 typed handlers within the budget', (t) => {
  const handlers = Array.from({ length: 100 }, (_, n) => `app.rohrpost.handle('add${n}', {
      data: Type.Object({ a${n}: Type.Number(), list: Type.Array(Type.String()) }),
      reply: Type.Object({ sum: Type.Number(), name: Type.Optional(Type.String()) })
    }, async ({ data }) => ({ sum: data.a${n} + data.list.length }))`)

  const each = (instantiationsOfApp(t, handlers) - instantiationsOfApp(t, [])) / handlers.length

  t.diagnostic(`${each} instantiations a handler`)
  assert.ok(each < BUDGET, `${each} instantiations a handler, the budget is ${BUDGET}`)
})

test('infers 100 calls of a contract with 100 calls within the budget', (t) => {
  const calls = Array.from({ length: 100 }, (_, n) => `
    const { sum: sum${n} } = await client.call('call${n}', { a${n}: 1, list: [] })
    sum${n}.toFixed()`)

  const each = (instantiationsOfClient(t, calls) - instantiationsOfClient(t, [])) / calls.length

  t.diagnostic(`${each} instantiations a call`)
  assert.ok(each < CALL_BUDGET, `${each} instantiations a call, the budget is ${CALL_BUDGET}`)
})

/** What a call of a contract may cost: most of it is TypeBox's, for the two schemas. */
const CALL_BUDGET = 630

/** What a handler with two object schemas may cost. TypeBox's own part is 95 % of it, so there is no room for a clever signature. */
const BUDGET = 550
