/** Change notifications from MikroORM; the subpath `fastify-rohrpost/mikro-orm`. */
export {
  NotifyOnChange,
  NotifyOnCreate,
  NotifyOnDelete,
  NotifyOnUpdate,
  type NotifyDecorator
} from './declare/decorators.ts'
export { type ManualNotifyOptions, type Notify } from './notify.ts'
export { type OrmErrorHandler } from './orm-errors.ts'
export { rohrpostMikroOrm, type RohrpostMikroOrmOptions } from './orm-plugin.ts'
export {
  notifyOnChange,
  notifyOnCreate,
  notifyOnDelete,
  notifyOnUpdate,
  type ChangeContext,
  type ChangeType,
  type NotifyOptions,
  type NotifyRule
} from './declare/rules.ts'
export { withoutNotifications } from './capture/silence.ts'
export { ChangeSubscriber } from './change-subscriber.ts'
