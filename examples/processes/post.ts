/** Entity of a post on the board. */
import { defineEntity, p } from '@mikro-orm/core'

export const Post = defineEntity({
  name: 'Post',
  properties: {
    id: p.integer().primary(),
    text: p.string(),
    /** The process that wrote it. */
    process: p.integer()
  }
})
