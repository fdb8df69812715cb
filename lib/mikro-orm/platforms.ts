/** What differs between databases, by the platform class of MikroORM: the packages of the drivers are not imported. */
import type { EntityManager } from '@mikro-orm/core'

/** The databases of which the outcome of a COMMIT, locks and committed rows are known. */
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

/** The database of an `EntityManager`. */
export function databaseOf (em: EntityManager): Database {
  for (let type: unknown = em.getPlatform().constructor; typeof type === 'function'; type = Object.getPrototypeOf(type)) {
    const database = Object.hasOwn(PLATFORMS, type.name) ? PLATFORMS[type.name] : undefined
    if (database !== undefined) return database
  }
  return Database.Other
}
