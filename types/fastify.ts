/** What the plugin adds to Fastify's types. */
import type { Rohrpost } from '../lib/server/types.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /** Handlers, groups and connections of fastify-rohrpost. */
    rohrpost: Rohrpost
  }
}

/** The type of `app.rohrpost`. */
export type { Rohrpost }
