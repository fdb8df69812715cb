import { defineEntity, p } from '@mikro-orm/core'

export const Todo = defineEntity({
  name: 'Todo',
  properties: {
    id: p.integer().primary(),
    title: p.string(),
    done: p.boolean().default(false)
  }
})
