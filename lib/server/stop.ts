/** Graceful stop of an app: all rohrpost servers on its HTTP server stop together. */
import type { FastifyInstance } from 'fastify'
import { Upgrades } from './upgrade/upgrades.ts'

/** One server, as the stop of the app needs it. */
interface Stoppable {
  /** Starts the graceful stop, or returns the promise of the running one. */
  drain (): Promise<void>
  /** Milliseconds for which pending upgrade requests may delay the stop. */
  readonly timeout: number
}

/**
 * Property of an HTTP server. The symbol is registered, so that servers of another copy of the package are found too.
 */
const kStoppables = Symbol.for('fastify-rohrpost.stoppables')

/**
 * Stops a server when its app closes. Fastify runs the `preClose` hooks one after another, therefore the first of them
 * starts the stop of all servers.
 */
export function stopWith (app: FastifyInstance, stoppable: Stoppable): void {
  const { server } = app as { server: FastifyInstance['server'] & { [kStoppables]?: Set<Stoppable> } }
  const all = server[kStoppables] ??= new Set()
  all.add(stoppable)

  app.addHook('preClose', async () => {
    const timeout = Math.max(...Array.from(all, ({ timeout }) => timeout))
    await Promise.all([Upgrades.of(server).settle(timeout), ...Array.from(all, (one) => one.drain())])
  })
}
