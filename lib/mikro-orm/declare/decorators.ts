/** The rules of `notifyOnCreate` and its siblings as class decorators. */
import type { EntityMetadata } from '@mikro-orm/core'
import { notifyOnChange, notifyOnCreate, notifyOnDelete, notifyOnUpdate, type NotifyOptions, type NotifyRule } from './rules.ts'

/** Rules lie on the class that they decorate, for children to inherit. */
const RULES = Symbol.for('fastify-rohrpost.rules')

/** A class, as both kinds of decorators get it; `abstract` ones too. */
type EntityClass<Entity extends object> = abstract new (...args: never[]) => Entity

/** A decorator for classes, in ES and in legacy mode. */
export type NotifyDecorator<Entity extends object> = (target: EntityClass<Entity>, context?: ClassDecoratorContext) => void

/** Announces new rows of the class, as `notifyOnCreate` does. @throws RP_ERR_INVALID_OPTION, RP_ERR_UNKNOWN_OPTION */
export function NotifyOnCreate<Entity extends object> (options?: NotifyOptions<Entity>): NotifyDecorator<Entity> {
  return (target) => declare(target, notifyOnCreate(target, options))
}

/** Announces changes of rows of the class, as `notifyOnUpdate` does. @throws RP_ERR_INVALID_OPTION, RP_ERR_UNKNOWN_OPTION */
export function NotifyOnUpdate<Entity extends object> (options?: NotifyOptions<Entity>): NotifyDecorator<Entity> {
  return (target) => declare(target, notifyOnUpdate(target, options))
}

/** Announces the end of rows of the class, as `notifyOnDelete` does. @throws RP_ERR_INVALID_OPTION, RP_ERR_UNKNOWN_OPTION */
export function NotifyOnDelete<Entity extends object> (options?: NotifyOptions<Entity>): NotifyDecorator<Entity> {
  return (target) => declare(target, notifyOnDelete(target, options))
}

/** Announces all that happens to rows of the class, as `notifyOnChange` does. @throws RP_ERR_INVALID_OPTION, RP_ERR_UNKNOWN_OPTION */
export function NotifyOnChange<Entity extends object> (options?: NotifyOptions<Entity>): NotifyDecorator<Entity> {
  return (target) => declare(target, notifyOnChange(target, options))
}

function declare (target: object, rule: NotifyRule): void {
  // decorators run from the bottom up
  Object.defineProperty(target, RULES, { value: [rule, ...ownRules(target)], configurable: true })
}

function ownRules (target: object): readonly NotifyRule[] {
  return Object.hasOwn(target, RULES) ? (target as { [RULES]: readonly NotifyRule[] })[RULES] : []
}

/** The rules on the classes of entities and on those that they extend, each once. */
export function declaredRules (entities: readonly EntityMetadata[]): Set<NotifyRule> {
  const rules = new Set<NotifyRule>()
  for (const { class: entity } of entities) {
    for (let target: unknown = entity; typeof target === 'function'; target = Object.getPrototypeOf(target)) {
      for (const rule of ownRules(target)) rules.add(rule)
    }
  }
  return rules
}
