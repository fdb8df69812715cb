/** The Fastify side: connects an ORM's changes with the groups, and gives each message an EntityManager of its own. */
import { RequestContext, type MikroORM } from '@mikro-orm/core'
import type { FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import { checkNames } from '../checks.ts'
import { errors, show } from '../errors.ts'
import { NOTIFIED_GROUPS } from '../protocol/group-name.ts'
import { ObjectText } from '../protocol/object-text.ts'
import { makeNotify } from './notify.ts'
import { checkRules, type NotifyRule } from './rules.ts'
import { ChangeSubscriber } from './subscriber.ts'

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
   * Whether to ask PostgreSQL and MariaDB, before the COMMIT of a transaction that is to be announced, if they still have it: they
   * may have rolled it back after an error that nobody saw, and not say so. Costs one small query.
   *
   * @defaultValue true
   */
  probe?: boolean
}

/**
 * The Fastify plugin: announces changes of entities once they are committed, and runs every handler in a `RequestContext`.
 *
 * @throws RP_ERR_INVALID_OPTION, RP_ERR_UNKNOWN_OPTION, RP_ERR_ORM_ALREADY_REGISTERED, RP_ERR_UNKNOWN_ENTITY,
 * RP_ERR_INVALID_TEMPLATE, RP_ERR_UNKNOWN_PROPERTY
 */
export const rohrpostMikroOrm = fp(async function rohrpostMikroOrm (app: FastifyInstance, options: RohrpostMikroOrmOptions) {
  const { orm, notify, subscriber, probe } = checkOptions(options)

  const subscribers = [...orm.em.getEventManager().getSubscribers()]
  if (subscribers.some((other) => isChangeSubscriber(other) && other.isConnected)) {
    throw new errors.RP_ERR_ORM_ALREADY_REGISTERED(orm.config.get('contextName'))
  }

  const { rohrpost } = app
  subscriber.connect({
    orm,
    notify,
    probe,
    // it reports its own failures
    publish: (group, payload) => { rohrpost.sendToGroup(group, new ObjectText(payload)) },
    log: app.log,
    notified: Reflect.get(rohrpost, NOTIFIED_GROUPS)
  })
  app.addHook('onClose', () => subscriber.disconnect())

  // each Fastify instance has an `app.rohrpost` of its own; they inherit from one object
  const common: Partial<FastifyInstance['rohrpost']> = Object.getPrototypeOf(app.rohrpost)
  common.notify = makeNotify(orm, subscriber, common.notify)
  app.rohrpost.use((_message, _connection, next) => runInContext(orm, next))
}, { fastify: '5.x', name: 'fastify-rohrpost-mikro-orm', dependencies: ['fastify-rohrpost'] })

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

function checkOptions (options: RohrpostMikroOrmOptions): Required<RohrpostMikroOrmOptions> {
  // what every plugin may be given is without effect: the plugin has no routes
  checkNames(options, ['orm', 'notify', 'subscriber', 'probe', 'prefix', 'logLevel', 'logSerializers', 'name'])
  const { orm, notify = [], subscriber = new ChangeSubscriber(), probe = true } = options

  if (typeof orm?.em?.getEventManager !== 'function') throw new errors.RP_ERR_INVALID_OPTION('orm', 'a MikroORM instance', show(orm))
  if (!isChangeSubscriber(subscriber)) throw new errors.RP_ERR_INVALID_OPTION('subscriber', 'a ChangeSubscriber', show(subscriber))
  if (typeof probe !== 'boolean') throw new errors.RP_ERR_INVALID_OPTION('probe', 'true or false', show(probe))
  return { orm, notify: checkRules(notify), subscriber, probe }
}

/** By its shape: the subscriber may be of another copy of the package. */
function isChangeSubscriber (value: object): value is ChangeSubscriber {
  return ['connect', 'disconnect', 'announce'].every((method) => typeof Object(value)[method] === 'function')
}
