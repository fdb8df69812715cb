/** Names of tables in SQL. */
import type { MikroORM } from '@mikro-orm/core'

/** Returns the quoted name of the table of an entity, with its schema; `undefined` if the ORM lacks the entity. */
export function tableNameOf (orm: MikroORM, entity: string): string | undefined {
  const meta = [...orm.getMetadata().getAll().values()].find(({ className }) => className === entity)
  if (meta === undefined) return undefined
  const schema = meta.schema ?? orm.config.get('schema')
  const isDefault = schema === undefined || schema === '*'
  return orm.em.getPlatform().quoteIdentifier(isDefault ? meta.tableName : `${schema}.${meta.tableName}`)
}
