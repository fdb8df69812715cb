/** The calls and groups of the to-do list: the server implements them, the clients take their types. */
import { Type } from '@sinclair/typebox'
import { contract } from 'fastify-rohrpost/protocol'

const Todo = Type.Object({ id: Type.Integer(), title: Type.String(), done: Type.Boolean() })

export const api = contract({
  calls: {
    'todo.list': { reply: Type.Array(Todo) },
    'todo.add': {
      data: Type.Object({ title: Type.String({ minLength: 1, maxLength: 200 }) }),
      reply: Type.Object({ id: Type.Integer() })
    }
  },
  groups: {
    todos: { id: false, object: Todo }
  }
})
