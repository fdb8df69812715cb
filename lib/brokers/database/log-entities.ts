/** The tables of the log as MikroORM entities, so that its schema generator and its migrations know them. */
import { BigIntType, defineEntity, p, type EntityProperty, type Platform, Type } from '@mikro-orm/core'
import { Database, databaseOf, isMySql } from '../../util/platforms.ts'

/** A number of 64 bits that the database draws; SQLite draws numbers for columns of the type `integer` only. */
class IdType extends BigIntType {
  override getColumnType (property: EntityProperty, platform: Platform): string {
    return databaseOf(platform) === Database.Sqlite ? 'integer' : super.getColumnType(property, platform)
  }
}

/** Text without a bound: `text` of MySQL and MariaDB ends at 64 KiB. */
class PayloadType extends Type<string | null, string | null> {
  override getColumnType (_property: EntityProperty, platform: Platform): string {
    return isMySql(databaseOf(platform)) ? 'longtext' : 'text'
  }
}

/** A message. Its `id` is its offset. */
export const LogEntry = defineEntity({
  name: 'RohrpostLog',
  tableName: 'rohrpost_log',
  indexes: [{ name: 'rohrpost_log_group_index', properties: ['groupName', 'id'] }],
  uniques: [{ name: 'rohrpost_log_token_unique', properties: ['token'] }],
  properties: {
    id: p.type(IdType).primary().autoincrement().fieldName('id'),
    groupName: p.string().length(200).fieldName('group_name'),
    /** `null` says that messages of the group before this row may be missing. */
    payload: p.type(PayloadType).nullable().fieldName('payload'),
    /** Set on the first row of an INSERT, so that an INSERT that is repeated after a lost connection is refused. */
    token: p.string().length(64).nullable().fieldName('token'),
    /** Milliseconds of Unix time, by the clock of the database. */
    createdAt: p.bigint().fieldName('created_at')
  }
})

/** State of the log that all processes share: its epoch, and how far it was cleaned. */
export const LogState = defineEntity({
  name: 'RohrpostLogState',
  tableName: 'rohrpost_log_state',
  properties: {
    name: p.string().length(32).primary().fieldName('name'),
    value: p.string().length(200).fieldName('value')
  }
})

/** Ids that readers no longer wait for, although their transactions were still open. */
export const PassedIds = defineEntity({
  name: 'RohrpostLogPassed',
  tableName: 'rohrpost_log_passed',
  properties: {
    first: p.bigint().primary().autoincrement(false).fieldName('first_id'),
    last: p.bigint().fieldName('last_id'),
    /** The transactions that may still write them. */
    holders: p.type(PayloadType).fieldName('holders')
  }
})

/** Messages of transactions that another broker has not confirmed: the option `outbox` of `rohrpostMikroOrm`. */
export const OutboxEntry = defineEntity({
  name: 'RohrpostOutbox',
  tableName: 'rohrpost_outbox',
  indexes: [{ name: 'rohrpost_outbox_claimed_index', properties: ['claimedAt'] }],
  properties: {
    id: p.string().length(64).primary().fieldName('id'),
    /** JSON text: the groups, payloads and row states of the messages. */
    messages: p.type(PayloadType).fieldName('messages'),
    /** The place of the transaction among the commits, if the broker uses stamps and the database has them. */
    stamp: p.string().length(500).nullable().fieldName('stamp'),
    /** Milliseconds of Unix time, by the clock of the database. */
    createdAt: p.bigint().fieldName('created_at'),
    /** When a process took over publishing the messages: first the one that created them. */
    claimedAt: p.bigint().fieldName('claimed_at'),
    /** The search that has taken over the row last. */
    owner: p.string().length(32).nullable().fieldName('owner')
  }
})

/** The entities of the database broker and of the outbox: `entities: [Todo, ...logEntities]`. */
export const logEntities = [LogEntry, LogState, PassedIds, OutboxEntry]
