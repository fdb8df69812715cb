import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test, type TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../..', import.meta.url))

/** Type instantiations that TypeScript needs for an app with so many handlers. */
function instantiations (t: TestContext, handlers: string[]): number {
  const dir = mkdtempSync(join(root, 'test/types/budget-'))
  t.after(() => rmSync(dir, { recursive: true }))
  writeFileSync(join(dir, 'app.ts'), `
    import { Type } from '@sinclair/typebox'
    import type { FastifyInstance } from 'fastify'
    import '../../../lib/index.ts'
    declare const app: FastifyInstance
    app.rohrpost.handle('first', { data: Type.Object({ a: Type.Number() }), reply: Type.Number() }, ({ data }) => data.a)
    ${handlers.join('\n    ')}
  `)
  writeFileSync(join(dir, 'tsconfig.json'), JSON.stringify({ extends: '../../../tsconfig.json', include: ['app.ts'], exclude: [] }))

  const report = execFileSync(join(root, 'node_modules/.bin/tsc'), ['-p', dir, '--extendedDiagnostics'], { encoding: 'utf8' })
  return Number(/Instantiations:\s+(\d+)/.exec(report)?.[1] ?? assert.fail(report))
}

test('infers 100 typed handlers within the budget', (t) => {
  const handlers = Array.from({ length: 100 }, (_, n) => `app.rohrpost.handle('add${n}', {
      data: Type.Object({ a${n}: Type.Number(), list: Type.Array(Type.String()) }),
      reply: Type.Object({ sum: Type.Number(), name: Type.Optional(Type.String()) })
    }, async ({ data }) => ({ sum: data.a${n} + data.list.length }))`)

  const each = (instantiations(t, handlers) - instantiations(t, [])) / handlers.length

  t.diagnostic(`${each} instantiations a handler`)
  assert.ok(each < BUDGET, `${each} instantiations a handler, the budget is ${BUDGET}`)
})

/** What a handler with two object schemas may cost. TypeBox's own part is 95 % of it, so there is no room for a clever signature. */
const BUDGET = 550
