/** The process that is restarted: `restart-host.ts PORT`. */
import Fastify from 'fastify'
import { serve } from '../../../bench/lib/remote.ts'
import rohrpost, { diagnostics } from '../../../lib/index.ts'

const release = Promise.withResolvers<void>()
let asked = 0
let joined = 0
let awaited: { count: () => number, target: number, resolve: () => void } | undefined

const app = Fastify()
await app.register(rohrpost)
app.rohrpost
  .group('all', { id: false, authorize: () => true })
  .handle('slow', async ({ data }) => {
    asked++
    check()
    await release.promise
    return data
  })
diagnostics.reply.subscribe(({ message, outcome }) => {
  if (message.type === 'subscribe' && outcome === 'success') joined++
  check()
})
await app.listen({ port: Number(process.argv[2]), host: '127.0.0.1', backlog: 4096 })

function check (): void {
  if (awaited !== undefined && awaited.count() >= awaited.target) awaited.resolve()
}

function reach (count: () => number, target: number): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  awaited = { count, target, resolve }
  check()
  return promise
}

const host = {
  /** Resolves when so many clients have joined. */
  joined: (target: number) => reach(() => joined, target),

  /** Resolves when so many handlers run. */
  asked: (target: number) => reach(() => asked, target),

  publish: (object: object) => app.rohrpost.sendToGroup('all', { id: 1, type: 'subscription-update', data: { group: 'all', type: 'update', object } }),

  /** The graceful stop; what runs ends when it has begun. Gives the connections that were there. */
  async stop () {
    const { connections } = app.rohrpost.health()
    const closed = app.close()
    while (!app.rohrpost.health().draining) await new Promise(setImmediate)
    release.resolve()
    await closed
    return connections
  }
}

export type RestartHost = typeof host

serve(host)
