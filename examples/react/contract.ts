/** The calls and groups of the to-do list: the server implements them, the page takes their types. */
import { Type } from '@sinclair/typebox'
import { contract } from 'fastify-rohrpost/protocol'

const Item = Type.Object({ id: Type.Integer(), title: Type.String(), done: Type.Boolean() })

export const api = contract({
  calls: {
    'todo.list': { reply: Type.Array(Item) },
    'todo.add': { data: Type.Object({ title: Type.String({ minLength: 1, maxLength: 200 }) }) },
    'todo.update': { data: Type.Object({ id: Type.Integer(), done: Type.Boolean() }) }
  },
  groups: {
    todos: { id: false, object: Item }
  }
})
