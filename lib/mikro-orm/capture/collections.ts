/**
 * M:N collections that a flush changes. MikroORM has no event for them, so they are read from the unit of work in
 * `onFlush`.
 */
import { ReferenceKind, type UnitOfWork } from '@mikro-orm/core'
import type { FindNotifiedEntity } from '../declare/entity-registry.ts'
import { isSilent } from './silence.ts'

/**
 * Finds the changed M:N properties of each notified entity. A change on the inverse side counts as a change of the
 * owners.
 *
 * @returns property names by owner
 */
export function changedCollections (uow: UnitOfWork, notifiedEntityOf: FindNotifiedEntity): Map<object, Set<string>> {
  const changed = new Map<object, Set<string>>()
  const add = (owner: object, property: string) => {
    if (isSilent() || notifiedEntityOf(owner) === undefined) return
    const properties = changed.get(owner) ?? new Set()
    changed.set(owner, properties.add(property))
  }

  for (const collection of uow.getCollectionUpdates()) {
    const { owner, property } = collection
    if (property.kind !== ReferenceKind.MANY_TO_MANY) continue

    if (property.owner) {
      add(owner, property.name)
    } else {
      const before = new Set<object>(collection.getSnapshot())
      const after = new Set<object>(collection.getItems(false))
      for (const item of [...before, ...after]) {
        if (!before.has(item) || !after.has(item)) add(item, property.mappedBy)
      }
    }
  }
  return changed
}
