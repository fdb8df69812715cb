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

/** The entities of the database broker: `entities: [Todo, ...logEntities]`. */
export const logEntities = [LogEntry, LogState, PassedIds]
