/** The composition root: builds a server from the options and hangs it into Fastify. */
import websocket from '@fastify/websocket'
import type { FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import { diagnostics } from './diagnostics.ts'
import { errors } from './errors.ts'
import { checkOptions, type RohrpostOptions } from './options.ts'
import { decorateApi } from './server/api.ts'
import type { Connection } from './server/connection.ts'
import { Connections } from './server/connections.ts'
import { Disconnector, DISCONNECTS } from './server/disconnector.ts'
import { Groups } from './server/groups/groups.ts'
import { Turn } from './server/sending/outbox.ts'
import { answerPing } from './server/requests/ping.ts'
import { Registry } from './server/requests/registry.ts'
import { report } from './server/report.ts'
import { addRoute } from './server/upgrade/route.ts'
import { SchemaCompiler } from './server/requests/schema.ts'
import { stopWith } from './server/stop.ts'
import { Subscriptions } from './server/groups/subscriptions.ts'
import type { RohrpostMessage } from './server/types.ts'
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
  const connections = new Connections({ registry, groups, turn: new Turn(options), limits: options }, options, app.log)
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

  decorateApi(app, { schemas, registry, subscriptions, groups, connections, disconnector, drainTimeout: options.drainTimeout })

  Upgrades.of(app.server).take(app.websocketServer)
  addRoute(app, options, connections)
}, { fastify: '5.x', name: 'fastify-rohrpost' })
