/** Implementation of a contract: registers a handler for each of its calls and declares each of its group types. */
import type { TSchema } from '@sinclair/typebox'
import { errors, show } from '../../errors.ts'
import type { CallSchemas, Contract, GroupSchemas } from '../../protocol/contract.ts'
import type { GroupOptions, Handler, Rohrpost } from '../types.ts'

/** Untyped form of `Implementation`: names and shapes are checked at run time. */
interface UntypedImplementation {
  readonly calls?: Readonly<Record<string, unknown>>
  readonly groups?: Readonly<Record<string, { readonly authorize?: unknown } | undefined>>
}

/**
 * See `Rohrpost.implement`. Nothing is registered if a name of the contract is missing, or if a name is not in the
 * contract.
 */
export function implement (api: Rohrpost, contract: Contract, implementation: UntypedImplementation): void {
  const { calls = {}, groups = {} } = contract
  const { calls: handlers = {}, groups: groupOptions = {} } = implementation
  checkContractNames('call', calls, handlers)
  checkContractNames('group', groups, groupOptions)

  for (const [name, { data, reply }] of Object.entries<CallSchemas>(calls)) {
    const { handler, ...options } = toOptions(handlers[name])
    const schemas = { ...(data && { data }), ...(reply && { reply }) } as Required<CallSchemas>
    api.handle(name, { ...options, ...schemas }, handler as Handler)
  }
  for (const [type, { id }] of Object.entries<GroupSchemas>(groups)) {
    api.group(type, { ...groupOptions[type], ...(id !== undefined && { id }) } as GroupOptions<TSchema | false>)
  }
}

/** Returns the implementation of a call as an object: a handler may be given alone. */
function toOptions (call: unknown): { handler?: unknown } {
  return typeof call === 'object' && call !== null ? call : { handler: call }
}

function checkContractNames (kind: string, contract: object, implementation: object): void {
  for (const name of Object.keys(contract)) {
    if (!Object.hasOwn(implementation, name)) {
      throw new errors.RP_ERR_INVALID_HANDLER(`an implementation of the contract's ${kind} '${name}'`, 'none')
    }
  }
  for (const name of Object.keys(implementation)) {
    if (Object.hasOwn(contract, name)) continue
    throw new errors.RP_ERR_INVALID_HANDLER(`only ${kind}s of the contract`, show(name))
  }
}
