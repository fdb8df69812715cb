/** Type augmentation of Fastify: `app.rohrpost`, and `app.register(rohrpost, path)`. */
import type {
  FastifyBaseLogger, FastifyPluginAsync, FastifyTypeProvider, RawServerBase, RawServerDefault
} from 'fastify'
import type { RohrpostOptions } from './options.ts'
import type { Rohrpost } from './server/types.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /** API of fastify-rohrpost: handlers, groups and connections. */
    rohrpost: Rohrpost
  }

  /* eslint-disable @typescript-eslint/no-unused-vars -- declarations of an interface have the same type parameters */
  interface FastifyRegister<
    T = void,
    RawServer extends RawServerBase = RawServerDefault,
    TypeProviderDefault extends FastifyTypeProvider = FastifyTypeProvider,
    LoggerDefault extends FastifyBaseLogger = FastifyBaseLogger
  > {
    /** Registers the plugin with the path of its WebSocket route. */
    (plugin: FastifyPluginAsync<RohrpostOptions>, path: string): T
  }
  /* eslint-enable @typescript-eslint/no-unused-vars */
}

/** Type of `app.rohrpost`. */
export type { Rohrpost }
