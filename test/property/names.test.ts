/**
 * Group names: different values never give the same name, and the id of a client gives the name of the row with that
 * key.
 */
import assert from 'node:assert/strict'
import { before, test } from 'node:test'
import { defineEntity, MikroORM, NodeSqliteDialect, p, SqliteDriver } from '@mikro-orm/sql'
import type { EntityMetadata } from '@mikro-orm/core'
import fc from 'fast-check'
import type { Row } from '../../lib/mikro-orm/row.ts'
import { parseTemplate } from '../../lib/mikro-orm/declare/template.ts'
import { isGroupName } from '../../lib/protocol/group-name.ts'
import { canonicalId, checkDefaultId, groupName } from '../../lib/server/groups/group-id.ts'
import { checkSync } from './support/check.ts'

const Thing = defineEntity({
  name: 'Thing',
  properties: {
    id: p.bigint().primary(), n: p.integer(), a: p.string(), b: p.string(), c: p.string(), d: p.string(), e: p.string(), u: p.uuid(), v: p.uuid(), list: p.array()
  }
})
let meta: EntityMetadata

before(async () => {
  const orm = await MikroORM.init({ driver: SqliteDriver, dbName: ':memory:', driverOptions: new NodeSqliteDialect(':memory:'), entities: [Thing] })
  meta = orm.getMetadata().get(Thing) as never
  await orm.close()
})

const UUID = '018f3f2a-9a4e-7c3a-8f00-0123456789ab'
const SEPARATORS = ['-', ':', '.', '!', '~', '*', '(', ')', '_', "'", '/', 'x', '0', 'A', '8', '+', '@']

/** A row whose values a template reads. */
const rowOf = (values: object) => ({ data: {}, value: ({ name }: { name: keyof typeof values }) => values[name] }) as unknown as Row

/** Parts that make values resemble other values, separators or escapes. */
const piece = fc.constantFrom('', '', ...SEPARATORS, 'b', '%', '%2D', '2D', 'é', ' ', '018f3f2a', '9a4e', '7c3a', '8f00', '0123456789ab', '9a4e-7c3a-8f00-0123456789ab', UUID)
const text = fc.array(piece, { maxLength: 4 }).map((pieces) => pieces.join('-')).chain((joined) => fc.constantFrom(joined, joined.replaceAll('-', '')))
const uuid = fc.oneof({ weight: 3, arbitrary: fc.constantFrom(UUID, UUID.replaceAll('0', 'b')) }, text)
const tuple = fc.record({
  id: fc.constantFrom('1', '11', '9007199254740993'),
  n: fc.constantFrom(-1, 0, 1, 10, 11, 1e21),
  a: text,
  b: text,
  c: text,
  d: text,
  e: text,
  u: uuid,
  v: uuid,
  list: fc.constantFrom([], [''], ['', ''], ['a', 'b'], ['a:b'])
})
const template = fc.array(fc.tuple(fc.constantFrom('a', 'b', 'c', 'd', 'e', 'n', 'u', 'v', 'pk', 'list'), fc.array(fc.constantFrom(...SEPARATORS, '%'), { maxLength: 2 })), { minLength: 1, maxLength: 6 })
  .map((places) => `t-${places.map(([name, end]) => `{${name}}${end.join('')}`).join('')}`)

test('two different tuples of values never give the same name, whatever the template', () => {
  let refused = 0
  checkSync(fc.property(template, fc.array(tuple, { minLength: 20, maxLength: 40 }), (template, rows) => {
    const between = [...template.matchAll(/\}([^{]*)(?=\{)/g)].map(([, text]) => String(text))
    if (between.some((text) => text === '' || text.startsWith('%'))) {
      refused++
      assert.throws(() => parseTemplate(template, meta), { code: 'RP_ERR_INVALID_TEMPLATE' })
      return
    }

    const { group, properties } = parseTemplate(template, meta)
    const known = new Map<string, string>()
    for (const row of rows) {
      const name = group(rowOf(row))
      const values = JSON.stringify(properties.map((name) => row[name as keyof typeof row]))
      assert.equal(known.get(String(name)) ?? values, values, `${name} of ${template}`)
      known.set(String(name), values)
      assert.ok(isGroupName(name) || String(name).length > 200, name)
    }
  }), { numRuns: 3000 })
  assert.ok(refused > 0)
})

/** Properties, a separator, and words between the separators: each value is a sequence of consecutive words. */
const cut = fc.record({
  names: fc.shuffledSubarray(['a', 'b', 'c', 'd', 'e', 'u', 'v'], { minLength: 2, maxLength: 7 }),
  separator: fc.oneof({ weight: 2, arbitrary: fc.constant('-') }, fc.constantFrom(...SEPARATORS), fc.constantFrom('--', '-x', 'x-', 'ab', '.:')),
  words: fc.oneof(
    fc.array(fc.oneof(fc.constantFrom('', 'b', '2D', '%2D', '0', 'x'), fc.constantFrom(...SEPARATORS)), { minLength: 2, maxLength: 9 }),
    fc.array(fc.oneof({ weight: 3, arbitrary: fc.constant(UUID) }, fc.constantFrom('018f3f2a', 'b', '')), { minLength: 1, maxLength: 4 })
      .map((words) => words.flatMap((word) => word.split('-')))
  ),
  cuts: fc.array(fc.array(fc.nat(12), { minLength: 6, maxLength: 6 }), { minLength: 20, maxLength: 20 })
})

test('values that concatenate to the same text never give the same name', () => {
  checkSync(fc.property(cut, ({ names, separator, words, cuts }) => {
    const { group } = parseTemplate(`t-${names.map((name) => `{${name}}`).join(separator)}`, meta)
    const known = new Map<string, string>()
    for (const cut of cuts) {
      const places = [0, ...cut.slice(0, names.length - 1).map((place) => Math.min(place, words.length)).sort((a, b) => a - b), words.length]
      const values = names.map((name, i) => [name, words.slice(places[i], places[i + 1]).join(separator)])
      const tuple = JSON.stringify(values)
      const name = String(group(rowOf(Object.fromEntries(values))))
      assert.equal(known.get(name) ?? tuple, tuple, name)
      known.set(name, tuple)
    }
  }), { numRuns: 5000 })
})

test('numbers and UUIDs are not escaped in names, also next to other values', () => {
  const name = (template: string, values: object) => parseTemplate(template, meta).group(rowOf(values))

  assert.equal(name('t-{pk}-{u}-{n}-{a}', { id: '9007199254740993', u: UUID.toUpperCase(), n: 7, a: 'x-y' }), `t-9007199254740993-${UUID}-7-x-y`)
  assert.equal(name('t-{a}-{b}', { a: '1-2', b: '3-4' }), 't-1%2D2-3-4')
  assert.equal(name('t-{n}-{a}', { n: -5, a: '' }), 't-%2D5-')
  assert.equal(name('t-{u}-{a}', { u: 'Ab-z', a: '' }), 't-%41%62%2Dz-')
  assert.equal(name('t-{u}0{a}', { u: UUID.toUpperCase(), a: '' }), `t-${UUID.replaceAll('0', '%30')}0`)
  assert.equal(name('t-{u}', { u: 'Ab-c' }), 't-Ab-c')
})

test('the id of a client gives the group name of the row with that key, as text or number, also for composite keys', () => {
  const key = fc.oneof(
    text, fc.string({ unit: 'binary' }), fc.constantFrom(UUID, 'c++', 'info@example.org', '50%', 'naïve', '-0', '+5', '007'),
    fc.integer(), fc.double({ noNaN: true, noDefaultInfinity: true })
  )
  checkSync(fc.property(key, key, (a, b) => {
    assert.equal(groupName('t', canonicalId(a, false, () => false)), parseTemplate('t-{a}', meta).group(rowOf({ a })))
    assert.equal(groupName('t', canonicalId([a, b], false, () => false)), parseTemplate('t-{a}:{b}', meta).group(rowOf({ a, b })))
    if (checkDefaultId(a) === undefined) assert.equal(groupName('t', canonicalId(a, true, () => true)), parseTemplate('t-{u}', meta).group(rowOf({ u: a })))
  }), { numRuns: 20_000 })

  checkSync(fc.property(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), (key) => {
    const id = String(key)
    assert.equal(checkDefaultId(id), undefined)
    const names = [groupName('t', canonicalId(id, true, () => true)), parseTemplate('t-{pk}', meta).group(rowOf({ id })), parseTemplate('t-{pk}', meta).group(rowOf({ id: key }))]
    assert.deepEqual(names, [`t-${key}`, `t-${key}`, `t-${key}`])
  }), { numRuns: 5000 })
})
