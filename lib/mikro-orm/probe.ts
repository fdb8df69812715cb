/** Finds out, just before a COMMIT, whether the database has already given up the transaction without saying so. */
import type { EntityManager, Transaction } from '@mikro-orm/core'

/** What shows that a transaction still lives, by the platform of MikroORM. */
const probes: Readonly<Record<string, { sql: string, isAlive: (row: { alive: unknown }) => boolean }>> = {
  // after an SQL error that was swallowed, every statement fails, and COMMIT is a ROLLBACK that reports no error
  BasePostgreSqlPlatform: { sql: 'select 1 as alive', isAlive: () => true },
  // a deadlock rolls back all of a transaction, and what follows it is committed by itself
  MariaDbPlatform: { sql: 'select @@in_transaction as alive', isAlive: ({ alive }) => Number(alive) === 1 }
}

/** Whether a COMMIT would really commit; `true` for databases that tell by themselves, and for those that can't be asked. */
export async function isAlive (em: EntityManager, transaction: Transaction): Promise<boolean> {
  const probe = findProbe(em.getPlatform())
  if (probe === undefined) return true

  try {
    return probe.isAlive(await em.getConnection('write').execute(probe.sql, [], 'get', transaction))
  } catch {
    return false
  }
}

function findProbe (platform: object): typeof probes[string] | undefined {
  for (let type: unknown = platform.constructor; typeof type === 'function'; type = Object.getPrototypeOf(type)) {
    if (Object.hasOwn(probes, type.name)) return probes[type.name]
  }
}
