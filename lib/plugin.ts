/** The composition root: builds a server from the options and hangs it into Fastify. */
import websocket from '@fastify/websocket'
import type { FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import { diagnostics } from './diagnostics.ts'
import { errors } from './errors.ts'
import { checkOptions, type RohrpostOptions } from './options.ts'
import { ObjectText } from './protocol/object-text.ts'
import { NOTIFIED_GROUPS, type NotifiedGroups } from './protocol/group-name.ts'
import { BACKGROUND_WORK, type BackgroundWork } from './server/background-work.ts'
import type { Connection } from './server/connection.ts'
import { Connections } from './server/connections.ts'
import { Disconnector, DISCONNECTS } from './server/disconnector.ts'
import { Groups } from './server/groups/groups.ts'
import { implement } from './server/requests/implement.ts'
import { FlushScheduler } from './server/sending/flush-scheduler.ts'
import { answerPing } from './server/requests/ping.ts'
import { Registry } from './server/requests/registry.ts'
import { report } from './server/report.ts'
import { addRoute } from './server/upgrade/route.ts'
import { SchemaCompiler } from './server/requests/schema.ts'
import { stopWith } from './server/stop.ts'
import { Subscriptions } from './server/groups/subscriptions.ts'
import { isThenable } from './util/thenable.ts'
import type { RohrpostMessage, Rohrpost } from './server/types.ts'
import { Upgrades } from './server/upgrade/upgrades.ts'

/** Fragments of one message: as many as `ws` takes by default, and more where messages may be larger than so many of this size, in bytes. */
const MAX_FRAGMENTS = 16_384
const FRAGMENT = 64

/**
 * The Fastify plugin: adds the WebSocket route and decorates `app.rohrpost`.
 *
 * @throws RP_ERR_ALREADY_REGISTERED, RP_ERR_INVALID_OPTION, RP_ERR_UNKNOWN_OPTION; what `broker.open` rejects with
 */
export const rohrpost = fp(async function rohrpost (app: FastifyInstance, given: RohrpostOptions) {
  const options = checkOptions(given)
  if (app.hasDecorator('rohrpost')) throw new errors.RP_ERR_ALREADY_REGISTERED(options.path)
  const { broker } = options

  const schemas = await SchemaCompiler.load()
  const registry = new Registry(schemas)
  // an app that registered @fastify/websocket itself may allow less
  const maxPayload = () => Math.min(options.maxPayload, app.websocketServer.options.maxPayload || Infinity)
  registry.add(app, 'ping', undefined, (message: RohrpostMessage, connection: Connection) => answerPing(message, connection, maxPayload), 'ping')
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
  const connections = new Connections({ registry, groups, scheduler: new FlushScheduler(options), limits: options }, options, app.log)
  const disconnector = new Disconnector(broker, connections, app.log)
  // a broker may deliver before it is open
  await broker.open({
    deliver: (group, payload, position) => group === DISCONNECTS ? disconnector.receive(payload) : groups.deliver(group, payload, position),
    lost: (group, top) => groups.lost(group, top),
    error: (err, { stage }) => report(app.log, 'error', err, { stage }, 'the broker failed'),
    notice: (text, details) => app.log.warn(details, text)
  })

  stopWith(app, { drain: () => connections.drain(), patience: options.drainTimeout })
  app.addHook('onReady', async () => {
    // an app with a handler of its own for `subscribe` declares no types
    if (registry.get('subscribe')?.role === 'built-in') subscriptions.use.warnUndeclared((type) => subscriptions.has(type), app.log)
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
      options: { maxPayload: options.maxPayload, maxFragments: Math.max(MAX_FRAGMENTS, Math.ceil(options.maxPayload / FRAGMENT)), ...options.websocket.options }
    })
  }

  decorate(app, { schemas, registry, subscriptions, groups, connections, disconnector, health: () => disconnector.health(), drainTimeout: options.drainTimeout })

  Upgrades.of(app.server).take(app.websocketServer)
  addRoute(app, options, connections)
}, { fastify: '5.x', name: 'fastify-rohrpost' })

/** What `app.rohrpost` speaks for. */
interface Parts {
  schemas: SchemaCompiler
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
  const work: BackgroundWork = { [BACKGROUND_WORK]: [() => parts.connections.leaving] }
  const common = {
    ...work,
    drainTimeout: parts.drainTimeout,
    [NOTIFIED_GROUPS]: (groups: NotifiedGroups) => parts.subscriptions.use.notifies(groups)
  }
  const faces = new WeakMap<FastifyInstance, Rohrpost>()
  app.decorate('rohrpost', {
    getter (this: FastifyInstance) {
      let face = faces.get(this)
      if (face === undefined) faces.set(this, face = makeFace(this, parts, common))
      return face
    }
  })
}

function makeFace (instance: FastifyInstance, { schemas, registry, subscriptions, groups, connections, disconnector, health }: Parts, common: object): Rohrpost {
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
      // a part of the package that sends ready text reports its own failures, thousands of which may have one reason
      const isReported = ObjectText.of(message) !== undefined
      done.catch((err: unknown) => isReported || report(instance.log, 'error', err, { group }, 'a message to a group was not sent'))
      return done
    },
    disconnect (target, code, reason) {
      const done = disconnector.disconnect(target, code, reason)
      done.catch((err: unknown) => report(instance.log, 'error', err, {}, 'connections were not ended'))
      return done
    },
    get schemas () {
      return { ...schemas.protocol.envelopes, handlers: registry.schemas() }
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
