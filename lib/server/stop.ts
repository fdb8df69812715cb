/** The stop of all servers in one app. */
import type { FastifyInstance } from 'fastify'
import { Upgrades } from './upgrade/upgrades.ts'

/** One server that is stopped. */
interface Stoppable {
  /** Begins the graceful stop, or joins the one that has begun. */
  drain (): Promise<void>
  /** Milliseconds that requests have to be answered. */
  readonly patience: number
}

/** By this all servers of an HTTP server are found, also those of another copy of the package. */
const kStoppables = Symbol.for('fastify-rohrpost.stoppables')

/** Stops a server when its app is closed. Fastify runs its `preClose` hooks one after another: the first of them begins the stop of all servers. */
export function stopWith (app: FastifyInstance, stoppable: Stoppable): void {
  const { server } = app as { server: FastifyInstance['server'] & { [kStoppables]?: Set<Stoppable> } }
  const all = server[kStoppables] ??= new Set()
  all.add(stoppable)

  app.addHook('preClose', async () => {
    const patience = Math.max(...Array.from(all, ({ patience }) => patience))
    await Promise.all([Upgrades.of(server).settle(patience), ...Array.from(all, (one) => one.drain())])
  })
}
