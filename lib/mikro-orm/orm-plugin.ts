/**
 * The Fastify plugin `rohrpostMikroOrm`: connects an ORM to the groups, and runs each handler in a `RequestContext`.
 */
import { RequestContext, type EntityManager, type MikroORM } from '@mikro-orm/core'
import type { FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import { transactionLogOf } from '../brokers/transaction-log.ts'
import { checkNames } from '../util/checks.ts'
import { errors, show } from '../errors.ts'
import { internalsOf } from '../server/internals.ts'
import { makeSafeLogger } from './announce/drops.ts'
import { makeNotify, type Notify } from './notify.ts'
import { toReplyError, type OrmErrorHandler } from './orm-errors.ts'
import { checkRules, type NotifyRule } from './declare/rules.ts'
import { Outbox } from './outbox/outbox.ts'
import { ChangeSubscriber } from './change-subscriber.ts'

/** Options of `rohrpostMikroOrm`. */
export interface RohrpostMikroOrmOptions {
  /** ORM whose changes are announced. The plugin does not close it. */
  orm: MikroORM
  /** Notification rules, in addition to those of decorators. */
  notify?: readonly NotifyRule[]
  /**
   * Subscriber that was passed to `MikroORM.init`. The rules in `notify` are added to its own.
   *
   * @defaultValue a new subscriber, registered behind those of the ORM
   */
  subscriber?: ChangeSubscriber
  /**
   * Maps an error that a handler throws to the error that the client reads. By default a violated unique constraint and
   * a failed optimistic lock have the code `conflict`, and an entity that is not found has `not_found`.
   */
  errorHandler?: OrmErrorHandler
  /**
   * Whether each transaction writes its notifications into a table of the database, from which they are deleted when
   * the broker has confirmed them. Then no notification is lost when a process is killed after the COMMIT, or when the
   * broker is away. Needs `logEntities` of `fastify-rohrpost/brokers/database` among the entities of the ORM.
   * `databaseBroker` on the same ORM needs no outbox.
   *
   * @defaultValue false
   */
  outbox?: boolean
}

/**
 * Fastify plugin that announces changes of entities when they are committed, and runs each handler in a
 * `RequestContext`.
 *
 * @throws RP_ERR_INVALID_OPTION, RP_ERR_UNKNOWN_OPTION, RP_ERR_ORM_ALREADY_REGISTERED, RP_ERR_UNKNOWN_ENTITY,
 * RP_ERR_INVALID_TEMPLATE, RP_ERR_UNKNOWN_PROPERTY, RP_ERR_TABLE_MISSING
 */
export const rohrpostMikroOrm = fp(async function rohrpostMikroOrm (
  app: FastifyInstance,
  options: RohrpostMikroOrmOptions
) {
  const { orm, notify, subscriber, errorHandler, outbox: hasOutbox } = checkOptions(options)

  const subscribers = [...orm.em.getEventManager().getSubscribers()]
  if (subscribers.some((other) => isChangeSubscriber(other) && other.isConnected)) {
    throw new errors.RP_ERR_ORM_ALREADY_REGISTERED(orm.config.get('contextName'))
  }

  const internals = internalsOf(app.rohrpost)
  const transactionLog = transactionLogOf(internals.broker, orm)
  if (hasOutbox && transactionLog !== undefined) {
    const expected = "no 'outbox' with 'databaseBroker' on the same ORM, whose transactions write to its log"
    throw new errors.RP_ERR_INVALID_OPTION('outbox', expected, show(true))
  }
  const { publishObject: publish, usesStamps } = internals
  const outbox = hasOutbox ? new Outbox({ orm, publish, usesStamps, log: makeSafeLogger(app.log) }) : undefined
  subscriber.connect({
    orm,
    notify,
    publish,
    usesStamps,
    transactionLog,
    outbox,
    log: app.log,
    notified: internals.addNotifiedGroups
  })
  internals.backgroundWork.push(() => subscriber.publishing)
  app.addHook('onClose', async () => {
    // a transaction that still runs is announced before the broker closes
    await settlesWithin(subscriber.idle(), internals.drainTimeout)
    if (outbox !== undefined) await settlesWithin(outbox.close(), internals.drainTimeout)
    await subscriber.disconnect()
  })
  await outbox?.open()

  const { joinTransaction } = internals
  internals.joinTransaction = (em, group, payload) => {
    if (!isManagerOf(orm, em)) return joinTransaction(em, group, payload)
    return subscriber.send({ group, payload }, em)
  }
  internals.notify = makeNotify(orm, subscriber, internals.notify as Notify | undefined)
  app.rohrpost.use((message, _connection, next) => {
    const fail = (error: unknown) => { throw toReplyError(error, message, errorHandler) }
    try {
      const result = runInContext(orm, next)
      return result instanceof Promise ? result.catch(fail) : result
    } catch (error) {
      return fail(error)
    }
  })
}, { fastify: '5.x', name: 'fastify-rohrpost-mikro-orm', dependencies: ['fastify-rohrpost'] })

/** Waits for a promise, but no longer than `timeout` milliseconds. */
async function settlesWithin (promise: Promise<void>, timeout: number): Promise<void> {
  const timer = Promise.withResolvers<void>()
  const timeoutId = setTimeout(timer.resolve, timeout)
  await Promise.race([promise, timer.promise])
  clearTimeout(timeoutId)
}

/**
 * Runs a handler in a `RequestContext` with a new EntityManager. The EntityManagers of ORMs registered earlier stay in
 * it.
 */
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

type CheckedOptions = Required<Omit<RohrpostMikroOrmOptions, 'errorHandler'>> &
  Pick<RohrpostMikroOrmOptions, 'errorHandler'>

function checkOptions (options: RohrpostMikroOrmOptions): CheckedOptions {
  // Fastify's own register options are accepted and have no effect, because the plugin has no routes
  const registerOptions = ['prefix', 'logLevel', 'logSerializers', 'name']
  checkNames(options, ['orm', 'notify', 'subscriber', 'errorHandler', 'outbox', ...registerOptions])
  const { orm, notify = [], subscriber = new ChangeSubscriber(), errorHandler, outbox = false } = options

  if (typeof orm?.em?.getEventManager !== 'function') {
    throw new errors.RP_ERR_INVALID_OPTION('orm', 'a MikroORM instance', show(orm))
  }
  if (!isChangeSubscriber(subscriber)) {
    throw new errors.RP_ERR_INVALID_OPTION('subscriber', 'a ChangeSubscriber', show(subscriber))
  }
  if (!['undefined', 'function'].includes(typeof errorHandler)) {
    throw new errors.RP_ERR_INVALID_OPTION('errorHandler', 'a function', show(errorHandler))
  }
  if (typeof outbox !== 'boolean') throw new errors.RP_ERR_INVALID_OPTION('outbox', 'true or false', show(outbox))
  return { orm, notify: checkRules(notify), subscriber, outbox, ...(errorHandler && { errorHandler }) }
}

/** Whether a value is an EntityManager of an ORM: all of them share its configuration. */
function isManagerOf (orm: MikroORM, em: unknown): em is EntityManager {
  return Object(em).config === orm.config
}

/** Checks the shape, not the class: the subscriber may come from another copy of the package. */
function isChangeSubscriber (value: object): value is ChangeSubscriber {
  const methods = ['connect', 'disconnect', 'idle', 'announce', 'send']
  return methods.every((method) => typeof Object(value)[method] === 'function')
}
