/** Composition root: creates the parts of a server from the options and registers them with Fastify. */
import type { FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import { diagnostics } from './diagnostics.ts'
import { errors } from './errors.ts'
import { checkOptions, type RohrpostOptions } from './options.ts'
import { decorateApi } from './server/api.ts'
import { Connections } from './server/connections.ts'
import { Disconnector, DISCONNECTS } from './server/disconnector.ts'
import { Groups } from './server/groups/groups.ts'
import { Subscriptions } from './server/groups/subscriptions.ts'
import { report } from './server/report.ts'
import { MiddlewareChain } from './server/requests/middleware.ts'
import { pingHandler } from './server/requests/ping.ts'
import { Registry } from './server/requests/registry.ts'
import { SchemaCompiler } from './server/requests/schema.ts'
import { FlushScheduler } from './server/sending/flush-scheduler.ts'
import { stopWith } from './server/stop.ts'
import { addRoute } from './server/upgrade/route.ts'
import { Upgrades } from './server/upgrade/upgrades.ts'
import { effectiveMaxPayload, registerWebsocket } from './server/upgrade/websocket.ts'

/**
 * Fastify plugin: adds the WebSocket route and decorates the app with `app.rohrpost`.
 *
 * @throws RP_ERR_ALREADY_REGISTERED, RP_ERR_INVALID_OPTION, RP_ERR_UNKNOWN_OPTION; the rejection of `broker.open`
 */
export const rohrpost = fp(async function rohrpost (app: FastifyInstance, given: RohrpostOptions) {
  const options = checkOptions(given)
  if (app.hasDecorator('rohrpost')) throw new errors.RP_ERR_ALREADY_REGISTERED(options.path)
  const { broker } = options

  const schemas = await SchemaCompiler.load()
  const registry = new Registry(schemas)
  const middlewares = new MiddlewareChain()
  registry.add(app, 'ping', undefined, pingHandler(() => effectiveMaxPayload(app, options.maxPayload)), 'ping')
  const subscriptions = new Subscriptions(registry, schemas, middlewares, app)
  const groups = new Groups({
    broker,
    recoveryLimit: options.recoveryLimit,
    onError (err, group) {
      report(app.log, 'error', err, { group }, 'the broker failed to change a subscription or to read history')
    },
    onLost (group) {
      app.log.warn({ group }, 'messages of a group were lost')
      if (diagnostics.drop.hasSubscribers) diagnostics.drop.publish({ reason: 'lost', group })
    }
  })
  const shared = { registry, middlewares, groups, scheduler: new FlushScheduler(options), limits: options }
  const connections = new Connections(shared, options, app.log)
  const disconnector = new Disconnector(broker, connections, app.log)
  // all parts that receive from the broker exist by now: it may deliver before `open` resolves
  await broker.open({
    deliver (group, payload, position) {
      if (group === DISCONNECTS) disconnector.receive(payload)
      else groups.deliver(group, payload, position)
    },
    lost: (group, top) => groups.lost(group, top),
    error: (err, { stage }) => report(app.log, 'error', err, { stage }, 'the broker failed'),
    notice: (text, details) => app.log.warn(details, text)
  })

  stopWith(app, { drain: () => connections.drain(), timeout: options.drainTimeout })
  app.addHook('onReady', async () => {
    // with a `subscribe` handler of the application, group types are not declared
    const isBuiltIn = registry.get('subscribe')?.role === 'built-in'
    if (isBuiltIn) subscriptions.use.warnUndeclared((type) => subscriptions.has(type), app.log)
  })
  app.addHook('onClose', () => {
    disconnector.close()
    return broker.close()
  })
  // not awaited, so that the server starts while the broker is unavailable; called now, so that it is the first
  // subscription at the broker
  disconnector.open()
  await registerWebsocket(app, options)
  decorateApi(app, {
    schemas,
    registry,
    middlewares,
    subscriptions,
    groups,
    connections,
    disconnector,
    drainTimeout: options.drainTimeout,
    broker
  })
  Upgrades.of(app.server).wrapListeners(app.websocketServer)
  addRoute(app, options, connections)
}, { fastify: '5.x', name: 'fastify-rohrpost' })
