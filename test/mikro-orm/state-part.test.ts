import assert from 'node:assert/strict'
import test from 'node:test'
import type { EntityMetadata } from '@mikro-orm/core'
import { observedContext, statePartOf } from '../../lib/mikro-orm/declare/state-part.ts'
import type { NotifyRule } from '../../lib/mikro-orm/declare/rules.ts'

const rule = (data?: NotifyRule['options']['data']): NotifyRule => ({ entity: class Todo {}, types: ['update'], options: data === undefined ? {} : { data } })
const metaOf = (prototype: object = {}) => ({ prototype }) as EntityMetadata
const getData = () => ({ id: 1 })
const HASH = /^s[0-9a-f]{12}$/

test('rules that send the same properties have the same part, in any order and at any place', () => {
  const part = statePartOf(rule(), metaOf(), 0, ['id', 'title'])

  assert.match(part, HASH)
  assert.equal(statePartOf(rule(), metaOf(), 1, ['title', 'id']), part)
  assert.notEqual(statePartOf(rule(), metaOf(), 0, ['title']), part)
  assert.notEqual(statePartOf(rule(), metaOf(), 0, undefined), part)
})

test('functions with the same source have different parts at different places', () => {
  const send = (name: string) => (row: object) => ({ value: (row as Record<string, unknown>)[name] })
  const [title, stock] = [rule(send('title')), rule(send('stock'))]

  assert.match(statePartOf(title, metaOf(), 0, undefined), HASH)
  assert.notEqual(statePartOf(title, metaOf(), 0, undefined), statePartOf(stock, metaOf(), 1, undefined))
  assert.equal(statePartOf(rule(send('title')), metaOf(), 0, undefined), statePartOf(title, metaOf(), 0, undefined))
})

for (const [method, isKnown] of [
  [{ getPushNotificationData () { return { id: 1 } } }, true],
  [{ getPushNotificationData: () => ({ id: 1 }) }, true],
  [{ getPushNotificationData: function () { return arguments } }, false],
  [{ getPushNotificationData (updatedFields: string[]) { return { updatedFields } } }, false],
  [{ getPushNotificationData (updatedFields = ['id']) { return { updatedFields } } }, false],
  [{ getPushNotificationData: (...rest: unknown[]) => rest }, false],
  [{ getPushNotificationData: getData.bind(undefined) }, false]
] as Array<[{ getPushNotificationData: unknown }, boolean]>) {
  test(`the properties that \`${String(method.getPushNotificationData)}\` sends are ${isKnown ? '' : 'not '}known`, () => {
    const part = statePartOf(rule(), metaOf(method), 0, undefined)

    if (isKnown) assert.match(part, HASH)
    else assert.equal(part, 'some')
  })
}

test('a context reports that it is read, also when it is spread', () => {
  let reads = 0
  const context = observedContext('update', ['title'], () => { reads++ })

  assert.equal(reads, 0)
  assert.equal(context.type, 'update')
  assert.deepEqual({ ...context }, { type: 'update', updatedFields: ['title'] })
  assert.equal(reads, 3)
})
