/**
 * Determines what the messages of a rule say of a row, as brokers need it to recognize the messages that a newer one
 * replaces.
 */
import { createHash } from 'node:crypto'
import type { EntityMetadata } from '@mikro-orm/core'
import { StampPart } from '../../protocol/stamp.ts'
import type { Row } from '../row.ts'
import type { ChangeContext, ChangeType, NotifyRule } from './rules.ts'

/** The source of a function without parameters, so that it sends the same properties of a row at each change. */
const WITHOUT_PARAMETERS = /^[^()]*\(\s*\)/
const OTHER_INPUT = /\barguments\b|\[native code\]/

/**
 * The part of a row's state that a rule sends: the same text in all processes for rules that send the same properties,
 * another for all others.
 *
 * @param index the place of the rule among those of its entity: functions may have one source and send different
 * properties
 * @param sent the names of the sent properties, unless a function decides
 */
export function statePartOf (
  { options: { data } }: NotifyRule,
  { prototype }: EntityMetadata,
  index: number,
  sent: readonly string[] | undefined
): string {
  if (sent !== undefined) return hash('properties', ...sent.toSorted())
  if (data !== undefined) return hash('data', String(index), String(data))

  const method: unknown = prototype.getPushNotificationData
  if (typeof method !== 'function') return hash('key')
  const source = String(method)
  return WITHOUT_PARAMETERS.test(source) && !OTHER_INPUT.test(source) ? hash('method', source) : StampPart.Some
}

/**
 * Makes the context of a data function. @param onRead called if the function reads it: it may send other properties at
 * each change then
 */
export function observedContext (type: ChangeType, updatedFields: string[], onRead: () => void): ChangeContext {
  return {
    get type () {
      onRead()
      return type
    },
    get updatedFields () {
      onRead()
      return updatedFields
    }
  }
}

/** Identifies a row in all processes. */
export function stateKeyOf ({ meta: { root }, tableSchema, key }: Row): string {
  return `${root.className}:${tableSchema}:${key}`
}

function hash (...texts: string[]): string {
  return `s${createHash('sha1').update(JSON.stringify(texts)).digest('hex').slice(0, 12)}`
}
