/** Connections of the broker with the options of the ORM, whose own pool can be as small as one connection. */
import type { MikroORM } from '@mikro-orm/core'

/** The part of a MikroORM connection that the dialects use. For servers it is a pool. */
export interface OwnConnection {
  connect (options: { skipOnConnect: boolean }): Promise<void>
  execute (
    sql: string, values: readonly unknown[], method: 'all', ctx: unknown, logging: { enabled: boolean }
  ): Promise<Record<string, unknown>[]>
  /** Begins a transaction. @returns what `execute` takes as `ctx` */
  begin (options: object): Promise<unknown>
  getNativeClient (): Promise<unknown>
  close (force: boolean): Promise<void>
}

/** Makes one more connection with the options of the ORM, not yet connected. */
export function openOwnConnection (orm: MikroORM): OwnConnection {
  const connection = orm.em.getConnection('write')
  const Connection = connection.constructor as new (config: unknown, options: undefined, type: 'write') => OwnConnection
  return new Connection(orm.config, undefined, 'write')
}
