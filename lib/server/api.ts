/**
 * `app.rohrpost`: the API object of a Fastify instance. All API objects of a server share its registry, groups and
 * connections.
 */
import type { FastifyInstance } from 'fastify'
import type { Broker } from '../brokers/broker.ts'
import { errors } from '../errors.ts'
import { checkNames } from '../util/checks.ts'
import { isThenable } from '../util/thenable.ts'
import type { Connections } from './connections.ts'
import type { Disconnector } from './disconnector.ts'
import type { Groups } from './groups/groups.ts'
import type { Subscriptions } from './groups/subscriptions.ts'
import { INTERNALS, type Internals } from './internals.ts'
import { report } from './report.ts'
import { implement } from './requests/implement.ts'
import type { MiddlewareChain } from './requests/middleware.ts'
import type { Registry } from './requests/registry.ts'
import type { SchemaCompiler } from './requests/schema.ts'
import type { Rohrpost, SendToGroupOptions } from './types.ts'

/** The parts of one server that its API objects use. */
export interface ServerParts {
  readonly schemas: SchemaCompiler
  readonly registry: Registry
  readonly middlewares: MiddlewareChain
  readonly subscriptions: Subscriptions
  readonly groups: Groups
  readonly connections: Connections
  readonly disconnector: Disconnector
  /** Milliseconds that running handlers have to answer when the server stops. */
  readonly drainTimeout: number
  readonly broker: Broker
}

/** Result of `sendToGroup` where the broker takes a message synchronously. */
const PUBLISHED = Promise.resolve()

/**
 * Decorates an app and its child instances with `app.rohrpost`. Each Fastify instance has an API object of its own, so
 * that a handler runs with the instance on which it was registered.
 */
export function decorateApi (app: FastifyInstance, server: ServerParts): void {
  const internals = createInternals(server)
  const apis = new WeakMap<FastifyInstance, Rohrpost>()
  app.decorate('rohrpost', {
    getter (this: FastifyInstance) {
      let api = apis.get(this)
      if (api === undefined) apis.set(this, api = createApi(this, server, internals))
      return api
    }
  })
}

function createInternals ({ connections, groups, subscriptions, drainTimeout, broker }: ServerParts): Internals {
  return {
    broker,
    backgroundWork: [() => connections.leaving],
    drainTimeout,
    usesStamps: broker.usesStamps === true,
    publishObject: (group, text, options) => toPromise(groups.publishText(group, text, options)),
    addNotifiedGroups: (notified) => subscriptions.use.notifies(notified),
    joinTransaction (_em, group) { throw new errors.RP_ERR_UNKNOWN_ENTITY_MANAGER(group) },
    notify: undefined
  }
}

function createApi (app: FastifyInstance, server: ServerParts, internals: Internals): Rohrpost {
  const { schemas, registry, middlewares, subscriptions, groups, connections, disconnector } = server
  const send = (group: string, message: unknown, { em }: SendToGroupOptions): void | Promise<void> => {
    if (em === undefined) return groups.publish(group, message)
    const payload = groups.toPayload(group, message)
    if (!internals.joinTransaction(em, group, payload)) return groups.publishText(group, payload)
  }

  const api: Rohrpost & { readonly [INTERNALS]: Internals, readonly notify: unknown } = {
    [INTERNALS]: internals,

    handle (type: unknown, ...rest: unknown[]) {
      const [options, handler] = rest.length > 1 ? rest : [undefined, rest[0]]
      registry.add(app, type, options, handler)
      return api
    },
    group (type, options) {
      subscriptions.declare(app, type, options)
      return api
    },
    implement (contract, implementation) {
      implement(api, contract, implementation)
      return api
    },
    use (middleware) {
      middlewares.use(app, middleware)
      return api
    },
    sendToGroup (group, message, options = {}) {
      let publishing: Promise<void> | undefined
      try {
        checkNames(options, ['em'])
        if (message !== '') publishing = toPromise(send(group, message, options))
      } catch (error) {
        publishing = Promise.reject(error)
      }
      publishing?.catch((err: unknown) => report(app.log, 'error', err, { group }, 'a message to a group was not sent'))
      return publishing ?? PUBLISHED
    },
    disconnect (target, code, reason) {
      const disconnecting = disconnector.disconnect(target, code, reason)
      disconnecting.catch((err: unknown) => report(app.log, 'error', err, {}, 'connections were not closed'))
      return disconnecting
    },
    get notify () {
      // only the MikroORM plugin declares the type
      return internals.notify as never
    },
    get schemas () {
      return { ...schemas.protocol.envelopes, handlers: registry.schemas() }
    },
    get connections () {
      return connections.live
    },
    health () {
      const broker = disconnector.health()
      const { draining, live } = connections
      return { ok: broker.ok && !draining, broker, connections: live.size, draining }
    },
    drain: () => connections.drain()
  }
  return api
}

/** Returns the result of a broker call as a promise; `undefined` if the call was synchronous. */
function toPromise (publishing: void | Promise<void>): Promise<void> | undefined {
  return isThenable(publishing) ? Promise.resolve(publishing).then(() => {}) : undefined
}
