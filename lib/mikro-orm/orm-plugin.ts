/** The Fastify side: connects an ORM's changes with the groups, and gives each message an EntityManager of its own. */
import { RequestContext, type MikroORM } from '@mikro-orm/core'
import type { FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import { checkNames } from '../util/checks.ts'
import { errors, show } from '../errors.ts'
import { internalsOf } from '../server/internals.ts'
import { makeNotify, type Notify } from './notify.ts'
import { toAnswer, type OrmErrorHandler } from './orm-errors.ts'
import { checkRules, type NotifyRule } from './declare/rules.ts'
import { ChangeSubscriber } from './change-subscriber.ts'

/** Options of `rohrpostMikroOrm`. */
export interface RohrpostMikroOrmOptions {
  /** The ORM whose changes are announced. It is not closed with the app. */
  orm: MikroORM
  /** What to announce, beside the rules that decorators declare. */
  notify?: readonly NotifyRule[]
  /**
   * The subscriber that was given to `MikroORM.init`; the rules in `notify` are added to its own.
   *
   * @defaultValue a new one, the last of the ORM's subscribers
   */
  subscriber?: ChangeSubscriber
  /**
   * Says what the client reads of an error that a handler throws. By default a violated unique constraint and an optimistic lock are
   * `conflict`, and an entity that is not found is `not_found`.
   */
  errorHandler?: OrmErrorHandler
}

/**
 * The Fastify plugin: announces changes of entities once they are committed, and runs every handler in a `RequestContext`.
 *
 * @throws RP_ERR_INVALID_OPTION, RP_ERR_UNKNOWN_OPTION, RP_ERR_ORM_ALREADY_REGISTERED, RP_ERR_UNKNOWN_ENTITY,
 * RP_ERR_INVALID_TEMPLATE, RP_ERR_UNKNOWN_PROPERTY
 */
export const rohrpostMikroOrm = fp(async function rohrpostMikroOrm (app: FastifyInstance, options: RohrpostMikroOrmOptions) {
  const { orm, notify, subscriber, errorHandler } = checkOptions(options)

  const subscribers = [...orm.em.getEventManager().getSubscribers()]
  if (subscribers.some((other) => isChangeSubscriber(other) && other.isConnected)) {
    throw new errors.RP_ERR_ORM_ALREADY_REGISTERED(orm.config.get('contextName'))
  }

  const internals = internalsOf(app.rohrpost)
  subscriber.connect({
    orm,
    notify,
    publish: internals.publishObject,
    log: app.log,
    notified: internals.addNotifiedGroups
  })
  app.addHook('onClose', async () => {
    // background work that still commits is announced before the broker closes
    await settles(subscriber.idle(), internals.drainTimeout)
    await subscriber.disconnect()
  })

  internals.notify = makeNotify(orm, subscriber, internals.notify as Notify | undefined)
  app.rohrpost.use((message, _connection, next) => {
    const fail = (error: unknown) => { throw toAnswer(error, message, errorHandler) }
    try {
      const result = runInContext(orm, next)
      return result instanceof Promise ? result.catch(fail) : result
    } catch (error) {
      return fail(error)
    }
  })
}, { fastify: '5.x', name: 'fastify-rohrpost-mikro-orm', dependencies: ['fastify-rohrpost'] })

/** Waits for a promise, for some time. */
async function settles (promise: Promise<void>, timeout: number): Promise<void> {
  const timer = Promise.withResolvers<void>()
  const timeoutId = setTimeout(timer.resolve, timeout)
  await Promise.race([promise, timer.promise])
  clearTimeout(timeoutId)
}

/** Runs a handler in a `RequestContext`, in which the ORMs that were registered before keep theirs. */
function runInContext (orm: MikroORM, next: () => unknown): unknown {
  const outer = RequestContext.currentRequestContext()?.map ?? []

  return RequestContext.create(orm.em, () => {
    const inner = RequestContext.currentRequestContext()?.map
    for (const [name, em] of outer) {
      if (inner?.has(name) === false) inner.set(name, em)
    }
    return next()
  })
}

function checkOptions (options: RohrpostMikroOrmOptions): Required<Omit<RohrpostMikroOrmOptions, 'errorHandler'>> & Pick<RohrpostMikroOrmOptions, 'errorHandler'> {
  // what every plugin may be given is without effect: the plugin has no routes
  checkNames(options, ['orm', 'notify', 'subscriber', 'errorHandler', 'prefix', 'logLevel', 'logSerializers', 'name'])
  const { orm, notify = [], subscriber = new ChangeSubscriber(), errorHandler } = options

  if (typeof orm?.em?.getEventManager !== 'function') throw new errors.RP_ERR_INVALID_OPTION('orm', 'a MikroORM instance', show(orm))
  if (!isChangeSubscriber(subscriber)) throw new errors.RP_ERR_INVALID_OPTION('subscriber', 'a ChangeSubscriber', show(subscriber))
  if (!['undefined', 'function'].includes(typeof errorHandler)) throw new errors.RP_ERR_INVALID_OPTION('errorHandler', 'a function', show(errorHandler))
  return { orm, notify: checkRules(notify), subscriber, ...(errorHandler && { errorHandler }) }
}

/** By its shape: the subscriber may be of another copy of the package. */
function isChangeSubscriber (value: object): value is ChangeSubscriber {
  return ['connect', 'disconnect', 'idle', 'announce'].every((method) => typeof Object(value)[method] === 'function')
}
