/** Handlers of the calls. They announce no change: rohrpostMikroOrm does so after each commit. */
import type { MikroORM } from '@mikro-orm/sql'
import type { FastifyInstance } from 'fastify'
import { api } from './contract.ts'
import { Todo } from './todo.ts'

/** Implements the contract. */
export function addHandlers (app: FastifyInstance, orm: MikroORM): void {
  // in a handler, `orm.em` is an entity manager for this one message
  const find = (id: number) => orm.em.findOneOrFail(Todo, id, {
    failHandler: () => app.httpErrors.notFound('This to-do is not on the list any more.')
  })

  // titles are checked here and not by the schema, so that the page can show the errors to visitors
  const checkTitle = (text: string) => {
    const title = text.trim()
    if (title === '') throw app.httpErrors.badRequest('Please give the to-do a title.')
    if (title.length > 200) {
      throw app.httpErrors.badRequest(`A title has up to 200 characters, this one has ${title.length}.`)
    }
    return title
  }

  app.rohrpost.implement(api, {
    groups: {
      todos: { authorize: () => true }
    },
    calls: {
      // a read does not depend on the changes that were requested before it
      'todo.list': { parallel: true, handler: () => orm.em.findAll(Todo, { orderBy: { id: 'asc' } }) },

      'todo.add': async ({ data }) => {
        const todo = orm.em.create(Todo, { title: checkTitle(data.title) })
        await orm.em.flush()
        return { id: todo.id }
      },

      'todo.update': async ({ data }) => {
        const todo = await find(data.id)
        if (data.title !== undefined) todo.title = checkTitle(data.title)
        if (data.done !== undefined) todo.done = data.done
        await orm.em.flush()
      },

      'todo.remove': async ({ data }) => {
        orm.em.remove(await find(data.id))
        await orm.em.flush()
      }
    }
  })
}
