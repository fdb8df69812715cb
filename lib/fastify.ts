/** What the plugin adds to Fastify's types. */
import type { FastifyBaseLogger, FastifyPluginAsync, FastifyTypeProvider, RawServerBase, RawServerDefault } from 'fastify'
import type { RohrpostOptions } from './options.ts'
import type { Rohrpost } from './server/types.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /** Handlers, groups and connections of fastify-rohrpost. */
    rohrpost: Rohrpost
  }

  // eslint-disable-next-line @typescript-eslint/no-unused-vars -- declarations of one interface have the same type parameters
  interface FastifyRegister<T = void, RawServer extends RawServerBase = RawServerDefault, TypeProviderDefault extends FastifyTypeProvider = FastifyTypeProvider, LoggerDefault extends FastifyBaseLogger = FastifyBaseLogger> {
    /** `app.register(rohrpost, path)` */
    (plugin: FastifyPluginAsync<RohrpostOptions>, path: string): T
  }
}

/** The type of `app.rohrpost`. */
export type { Rohrpost }
