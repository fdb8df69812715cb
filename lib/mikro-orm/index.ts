/** Change notifications from MikroORM; the subpath `fastify-rohrpost/mikro-orm`. */
export { NotifyOnChange, NotifyOnCreate, NotifyOnDelete, NotifyOnUpdate, type NotifyDecorator } from './decorators.ts'
export { type ManualNotifyOptions, type Notify } from './notify.ts'
export { type OrmErrorHandler } from './orm-errors.ts'
export { rohrpostMikroOrm, type RohrpostMikroOrmOptions } from './plugin.ts'
export {
  notifyOnChange,
  notifyOnCreate,
  notifyOnDelete,
  notifyOnUpdate,
  type ChangeContext,
  type ChangeType,
  type NotifyOptions,
  type NotifyRule
} from './rules.ts'
export { withoutNotifications } from './silence.ts'
export { ChangeSubscriber } from './subscriber.ts'
