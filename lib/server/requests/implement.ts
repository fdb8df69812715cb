/** Contracts on the server: what they name, as handlers and groups. */
import type { Static, TSchema } from '@sinclair/typebox'
import { errors, show } from '../../errors.ts'
import type { CallSchemas, Contract, GroupSchemas } from '../../protocol/contract.ts'
import type { GroupOptions, Handler, Rohrpost } from '../types.ts'

/** The static type of a schema, if there is one. */
type Typed<Schema> = Schema extends TSchema ? Static<Schema> : unknown

/** The handler of a call, or the handler with its option `parallel`. */
export type CallImplementation<Data, Reply> = Handler<Data, Reply> | { readonly parallel?: boolean, readonly handler: Handler<Data, Reply> }

/** The handlers of all calls of a contract. */
export type CallHandlers<Calls> = {
  readonly [Name in keyof Calls]: CallImplementation<
    Typed<Calls[Name] extends { readonly data: infer Data } ? Data : undefined>,
    Typed<Calls[Name] extends { readonly reply: infer Reply } ? Reply : undefined>
  >
}

/** Who may subscribe to the groups of a contract. */
export type GroupImplementations<Groups> = {
  readonly [Type in keyof Groups]: Pick<GroupOptions<Groups[Type] extends { readonly id: infer Id extends TSchema | false } ? Id : TSchema>, 'authorize'>
}

/** What a contract asks of the server: a handler for each call, `authorize` for each group type. */
export type Implementation<C extends Contract> =
  & (C extends { readonly calls: infer Calls } ? { readonly calls: CallHandlers<Calls> } : { readonly calls?: never })
  & (C extends { readonly groups: infer Groups } ? { readonly groups: GroupImplementations<Groups> } : { readonly groups?: never })

/** The same without names: what `implement` looks at. */
interface Parts {
  readonly calls?: Readonly<Record<string, unknown>>
  readonly groups?: Readonly<Record<string, { readonly authorize?: unknown } | undefined>>
}

/** Registers what a contract names. @throws as `Rohrpost.implement`; nothing is registered if a part is missing, or has no name in the contract */
export function implement (server: Rohrpost, { calls = {}, groups = {} }: Contract, given: Parts): void {
  const { calls: handlers = {}, groups: permissions = {} } = given
  checkNames('call', calls, handlers)
  checkNames('group', groups, permissions)

  for (const [name, { data, reply }] of Object.entries<CallSchemas>(calls)) {
    const { handler, ...options } = toOptions(handlers[name])
    server.handle(name, { ...options, ...(data && { data }), ...(reply && { reply }) } as Required<CallSchemas>, handler as Handler)
  }
  for (const [type, { id }] of Object.entries<GroupSchemas>(groups)) {
    server.group(type, { ...permissions[type], ...(id !== undefined && { id }) } as GroupOptions<TSchema | false>)
  }
}

/** A call's implementation in its long form. */
function toOptions (given: unknown): { handler?: unknown } {
  return typeof given === 'object' && given !== null ? given : { handler: given }
}

function checkNames (kind: string, promised: object, given: object): void {
  for (const name of Object.keys(promised)) {
    if (!Object.hasOwn(given, name)) throw new errors.RP_ERR_INVALID_HANDLER(`an implementation of the contract's ${kind} '${name}'`, 'none')
  }
  for (const name of Object.keys(given)) {
    if (!Object.hasOwn(promised, name)) throw new errors.RP_ERR_INVALID_HANDLER(`only ${kind}s of the contract`, show(name))
  }
}
