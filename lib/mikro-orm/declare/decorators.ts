/** Class decorators `@NotifyOnCreate` to `@NotifyOnChange`, which attach notification rules to entity classes. */
import type { EntityMetadata } from '@mikro-orm/core'
import {
  notifyOnChange,
  notifyOnCreate,
  notifyOnDelete,
  notifyOnUpdate,
  type NotifyOptions,
  type NotifyRule
} from './rules.ts'

/**
 * Property of a decorated class that holds its rules. The symbol is registered: two copies of the package use the same
 * one.
 */
const RULES = Symbol.for('fastify-rohrpost.rules')

/** A class, including an abstract one, as ES and legacy decorators receive it. */
type DecoratedClass<Entity extends object> = abstract new (...args: never[]) => Entity

/** A class decorator that works in ES and in legacy mode. */
export type NotifyDecorator<Entity extends object> = (
  target: DecoratedClass<Entity>,
  context?: ClassDecoratorContext
) => void

/** Decorator form of `notifyOnCreate`. @throws RP_ERR_INVALID_OPTION, RP_ERR_UNKNOWN_OPTION */
export function NotifyOnCreate<Entity extends object> (options?: NotifyOptions<Entity>): NotifyDecorator<Entity> {
  return (target) => declare(target, notifyOnCreate(target, options))
}

/** Decorator form of `notifyOnUpdate`. @throws RP_ERR_INVALID_OPTION, RP_ERR_UNKNOWN_OPTION */
export function NotifyOnUpdate<Entity extends object> (options?: NotifyOptions<Entity>): NotifyDecorator<Entity> {
  return (target) => declare(target, notifyOnUpdate(target, options))
}

/** Decorator form of `notifyOnDelete`. @throws RP_ERR_INVALID_OPTION, RP_ERR_UNKNOWN_OPTION */
export function NotifyOnDelete<Entity extends object> (options?: NotifyOptions<Entity>): NotifyDecorator<Entity> {
  return (target) => declare(target, notifyOnDelete(target, options))
}

/** Decorator form of `notifyOnChange`. @throws RP_ERR_INVALID_OPTION, RP_ERR_UNKNOWN_OPTION */
export function NotifyOnChange<Entity extends object> (options?: NotifyOptions<Entity>): NotifyDecorator<Entity> {
  return (target) => declare(target, notifyOnChange(target, options))
}

function declare (target: object, rule: NotifyRule): void {
  // decorators are applied from the bottom up: the list has the order of the source
  Object.defineProperty(target, RULES, { value: [rule, ...ownRules(target)], configurable: true })
}

function ownRules (target: object): readonly NotifyRule[] {
  return Object.hasOwn(target, RULES) ? (target as { [RULES]: readonly NotifyRule[] })[RULES] : []
}

/** Collects the rules that decorators attached to entity classes and their parent classes, each once. */
export function declaredRules (entities: readonly EntityMetadata[]): Set<NotifyRule> {
  const rules = new Set<NotifyRule>()
  for (const { class: entity } of entities) {
    for (let target: unknown = entity; typeof target === 'function'; target = Object.getPrototypeOf(target)) {
      for (const rule of ownRules(target)) rules.add(rule)
    }
  }
  return rules
}
