/** Databases, recognized by the platform class of MikroORM: the packages of the drivers are not imported. */
import type { Platform } from '@mikro-orm/core'

/** The databases that the package knows. */
export const Database = {
  PostgreSql: 'postgresql',
  MariaDb: 'mariadb',
  MySql: 'mysql',
  Sqlite: 'sqlite',
  Other: 'other'
} as const
export type Database = typeof Database[keyof typeof Database]

const PLATFORMS: Readonly<Record<string, Database>> = {
  BasePostgreSqlPlatform: Database.PostgreSql,
  MariaDbPlatform: Database.MariaDb,
  BaseMySqlPlatform: Database.MySql,
  SqlitePlatform: Database.Sqlite
}

/** Expressions for the milliseconds of Unix time, by the clock of the database. */
export const UNIX_TIME: Readonly<Record<Exclude<Database, typeof Database.Other>, string>> = {
  [Database.PostgreSql]: '(extract(epoch from clock_timestamp()) * 1000)::bigint',
  [Database.MariaDb]: 'cast(unix_timestamp(sysdate(3)) * 1000 as unsigned)',
  [Database.MySql]: 'cast(unix_timestamp(sysdate(3)) * 1000 as unsigned)',
  [Database.Sqlite]: "cast((julianday('now') - 2440587.5) * 86400000 as integer)"
}

/** Returns the database of a platform. */
export function databaseOf (platform: Platform): Database {
  for (let type: unknown = platform.constructor; typeof type === 'function'; type = Object.getPrototypeOf(type)) {
    const database = Object.hasOwn(PLATFORMS, type.name) ? PLATFORMS[type.name] : undefined
    if (database !== undefined) return database
  }
  return Database.Other
}

/** Whether a database is MySQL or MariaDB. */
export function isMySql (database: Database): boolean {
  return database === Database.MariaDb || database === Database.MySql
}
