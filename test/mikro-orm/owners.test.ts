/** Concurrent changes of one M:N collection: the last notification of its owner has the references of all transactions. */
import assert from 'node:assert/strict'
import test from 'node:test'
import { defineEntity, p, type EntityManager } from '@mikro-orm/core'
import { ChangeSubscriber, notifyOnChange } from '../../lib/mikro-orm/index.ts'
import { openServer } from './support.ts'

const Tag = defineEntity({ name: 'Tag', properties: { id: p.integer().primary() } })
const Todo = defineEntity({ name: 'Todo', properties: { id: p.integer().primary(), tags: () => p.manyToMany(Tag) } })

for (const server of ['postgresql', 'mariadb'] as const) {
  for (const isFailing of server === 'mariadb' ? [false, true] : [false]) {
    test(`${server}: two transactions add to a collection of one row${isFailing ? ', which can\'t be read after the COMMIT' : ''}`, async (t) => {
      const orm = await openServer(t, server, [Tag, Todo])
      if (orm === undefined) return
      for (const id of [1, 2]) await orm.em.fork().insert(Tag, { id })
      await orm.em.fork().insert(Todo, { id: 1 })
      const told: Array<{ type: string, object?: { tags: number[] } }> = []
      const subscriber = new ChangeSubscriber({ notify: [notifyOnChange(Todo, { data: ['tags'] })] })
      subscriber.connect({ orm, publish: (_group, payload) => { told.push(JSON.parse(payload).data) }, log: { error () {}, warn () {} } })
      t.after(() => subscriber.disconnect())
      const add = async (em: EntityManager, tag: number) => {
        const todo = await em.findOneOrFail(Todo, 1, { populate: ['tags'] })
        todo.tags.add(em.getReference(Tag, tag))
        await em.flush()
      }

      const [one, two] = [orm.em.fork(), orm.em.fork()]
      for (const em of [one, two]) await em.begin()
      await add(one, 1)
      await add(two, 2)
      if (isFailing) t.mock.method(orm.em.getConnection('write'), 'begin', () => Promise.reject(new Error('no connection')))
      await Promise.all([one.commit(), two.commit()])
      await subscriber.idle()

      const last = told.at(-1)
      if (isFailing) assert.equal(last?.type, 'resync')
      else assert.deepEqual(last?.object?.tags, [1, 2])
    })
  }
}
