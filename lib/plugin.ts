/** The composition root: builds a server from the options and hangs it into Fastify. */
import type { Duplex } from 'node:stream'
import websocket from '@fastify/websocket'
import type { FastifyInstance, FastifyReply, FastifyRequest, FastifySchema } from 'fastify'
import fp from 'fastify-plugin'
import { diagnostics } from './diagnostics.ts'
import { errors } from './errors.ts'
import { checkOptions, type RohrpostOptions } from './options.ts'
import { envelopes } from './protocol/schemas.ts'
import { Connections } from './server/connections.ts'
import { Disconnector, DISCONNECTS } from './server/disconnector.ts'
import { Groups } from './server/groups.ts'
import { implement } from './server/implement.ts'
import { isOriginAllowed } from './server/origin.ts'
import { Turn } from './server/outbox.ts'
import { Registry } from './server/registry.ts'
import { report } from './server/report.ts'
import { Subscriptions } from './server/subscriptions.ts'
import { isThenable } from './server/thenable.ts'
import type { RohrpostMessage, Rohrpost } from './server/types.ts'
import { upgradeErrors } from './server/upgrade-error.ts'

/**
 * The Fastify plugin: adds the WebSocket route and decorates `app.rohrpost`.
 *
 * @throws RP_ERR_ALREADY_REGISTERED, RP_ERR_INVALID_OPTION, RP_ERR_UNKNOWN_OPTION; what `broker.open` rejects with
 */
export const rohrpost = fp(async function rohrpost (app: FastifyInstance, given: RohrpostOptions) {
  if (app.hasDecorator('rohrpost')) throw new errors.RP_ERR_ALREADY_REGISTERED(String(given.path ?? '/ws/rohrpost'))
  const options = checkOptions(given)
  const { broker } = options

  const registry = new Registry()
  registry.add(app, 'ping', undefined, (message: RohrpostMessage) => message.reply(message.data, { type: 'pong' }), 'ping')
  const subscriptions = new Subscriptions(registry, app)
  const groups = new Groups({
    broker,
    recoveryLimit: options.recoveryLimit,
    onError: (err, group) => report(app.log, 'error', err, { group }, 'the broker failed to change a subscription or to read history'),
    onLost (group) {
      app.log.warn({ group }, 'messages of a group were lost')
      if (diagnostics.drop.hasSubscribers) diagnostics.drop.publish({ reason: 'lost', group })
    }
  })
  await broker.open({
    deliver: (group, payload, position) => group === DISCONNECTS ? disconnector.receive(payload) : groups.deliver(group, payload, position),
    lost: (group, top) => groups.lost(group, top),
    error: (err, { stage }) => report(app.log, 'error', err, { stage }, 'the broker failed')
  })
  const connections = new Connections({ registry, groups, turn: new Turn(), limits: options }, options, app.log)
  const disconnector = new Disconnector(broker, connections, app.log)

  app.addHook('preClose', async () => {
    // Fastify itself now answers upgrades, and nobody ends their sockets: the stop would wait for them
    app.server.on('upgrade', endSocket)
    await connections.drain()
    app.server.off('upgrade', endSocket)
  })
  app.addHook('onClose', () => {
    disconnector.close()
    return broker.close()
  })
  // asked before any group of a connection, and not waited for: a server whose broker is away starts, and says so
  disconnector.open()
  if (!app.hasDecorator('websocketServer')) {
    await app.register(websocket, {
      ...options.websocket,
      options: { maxPayload: options.maxPayload, ...options.websocket.options }
    })
  }

  decorate(app, { registry, subscriptions, groups, connections, disconnector, health: () => broker.health(), drainTimeout: options.drain })

  const refuse = async (request: FastifyRequest, reply: FastifyReply) => {
    if (connections.draining) return reply.code(503).send({ error: 'Service Unavailable', message: 'The server is about to restart.' })
    if (await isOriginAllowed(options.allowedOrigins, request)) return
    request.log.warn({ origin: request.headers.origin, host: request.host }, "refused an upgrade: the page's origin is not in 'allowedOrigins'")
    return reply.code(403).send({ error: 'Forbidden', message: 'This origin may not connect.' })
  }
  for (const url of bothForms(app, options.path)) {
    app.route({
      method: 'GET',
      url,
      exposeHeadRoute: false,
      ...upgradeErrors,
      schema: { ...upgradeErrors.schema, hide: true } as FastifySchema,
      onRequest: [refuse, ...[options.onRequest ?? []].flat()],
      ...(options.preValidation && { preValidation: options.preValidation }),
      preHandler: [...[options.preHandler ?? []].flat(), release],
      handler: (_request, reply) => reply
        .code(426)
        .headers({ upgrade: 'websocket', connection: 'Upgrade' })
        .send({ error: 'Upgrade Required', message: 'This is a WebSocket endpoint.' }),
      wsHandler: (socket, request) => {
        // its own stop closes all that it knows at once and without a code; ours lets running handlers answer
        app.websocketServer.clients.delete(socket)
        connections.accept(socket, request)
      }
    })
  }
}, { fastify: '5.x', name: 'fastify-rohrpost' })

/** Ends the socket of an upgrade that was answered. */
function endSocket (_request: unknown, socket: Duplex): void {
  socket.end(() => socket.destroy())
}

/** An upgraded connection needs no HTTP response any more, and the socket would keep it for as long as it lives. */
function release (request: FastifyRequest, { raw }: FastifyReply, done: () => void): void {
  if (request.ws && raw.socket !== null) raw.detachSocket(raw.socket)
  done()
}

/** A path without and with a trailing slash, unless the app takes the two for one. */
function bothForms ({ initialConfig }: FastifyInstance, given: string): string[] {
  const path = given.replace(/\/+$/, '')
  if (path === '') return ['/']
  return initialConfig.ignoreTrailingSlash === true || initialConfig.routerOptions?.ignoreTrailingSlash === true ? [path] : [path, `${path}/`]
}

/** What `app.rohrpost` speaks for. */
interface Parts {
  registry: Registry
  subscriptions: Subscriptions
  groups: Groups
  connections: Connections
  disconnector: Disconnector
  health: () => { ok: boolean, detail?: string }
  /** How long the stop waits for what is running, in milliseconds. */
  drainTimeout: number
}

/**
 * Adds `app.rohrpost`: a face of its own for each Fastify instance, so that a handler runs with the instance it was registered on. All of
 * them inherit from one object, to which other plugins add what is theirs.
 */
function decorate (app: FastifyInstance, parts: Parts): void {
  const common = { drainTimeout: parts.drainTimeout }
  const faces = new WeakMap<FastifyInstance, Rohrpost>()
  app.decorate('rohrpost', {
    getter (this: FastifyInstance) {
      let face = faces.get(this)
      if (face === undefined) faces.set(this, face = makeFace(this, parts, common))
      return face
    }
  })
}

function makeFace (instance: FastifyInstance, { registry, subscriptions, groups, connections, disconnector, health }: Parts, common: object): Rohrpost {
  const sent = Promise.resolve()

  const own: Omit<Rohrpost, 'notify'> = {
    handle (type: unknown, ...rest: unknown[]) {
      const [schemas, handler] = rest.length > 1 ? rest : [undefined, rest[0]]
      registry.add(instance, type, schemas, handler)
      return whole
    },
    group (type, options) {
      subscriptions.declare(instance, type, options)
      return whole
    },
    implement (contract, implementation) {
      implement(whole, contract, implementation)
      return whole
    },
    use (middleware) {
      registry.use(instance, middleware)
      return whole
    },
    sendToGroup (group, message) {
      let publishing: unknown
      try {
        if (message === '') return sent
        publishing = groups.publish(group, message)
      } catch (error) {
        publishing = Promise.reject(error)
      }
      if (!isThenable(publishing)) return sent
      const done = Promise.resolve(publishing).then(() => {})
      done.catch((err: unknown) => report(instance.log, 'error', err, { group }, 'a message to a group was not sent'))
      return done
    },
    disconnect (target, code, reason) {
      const done = disconnector.disconnect(target, code, reason)
      done.catch((err: unknown) => report(instance.log, 'error', err, {}, 'connections were not ended'))
      return done
    },
    get schemas () {
      return { ...envelopes, handlers: registry.schemas() }
    },
    get connections () {
      return connections.live
    },
    health () {
      const broker = health()
      return { ok: broker.ok && !connections.draining, broker, connections: connections.live.size, draining: connections.draining }
    },
    drain: () => connections.drain()
  }
  const whole: Rohrpost = Object.setPrototypeOf(own, common)
  return whole
}
