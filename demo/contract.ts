/** Calls and groups of the demo: the server implements them, and clients take their types. */
import { Type } from '@sinclair/typebox'
import { contract } from '../lib/protocol/index.ts'

const Id = Type.Object({ id: Type.Integer() })
const Title = Type.Object({ title: Type.String() })
const Changes = Type.Object({
  id: Type.Integer(),
  title: Type.Optional(Type.String()),
  done: Type.Optional(Type.Boolean())
})
const Item = Type.Object({ id: Type.Integer(), title: Type.String(), done: Type.Boolean() })

export const api = contract({
  calls: {
    'todo.list': { reply: Type.Array(Item) },
    'todo.add': { data: Title, reply: Id },
    'todo.update': { data: Changes },
    'todo.remove': { data: Id }
  },
  groups: {
    todos: { id: false, object: Item }
  }
})
