/** Changes of M:N collections, of which the ORM has no event: they are told from what a flush is about to do. */
import { ReferenceKind, type UnitOfWork } from '@mikro-orm/core'
import type { NotifiedEntity } from '../declare/entity-registry.ts'

/** The properties whose collections a flush changes, by entity; always those of the owning side. */
export function changedCollections (uow: UnitOfWork, notifiedEntity: (entity: object) => NotifiedEntity | undefined): Map<object, Set<string>> {
  const changes = new Map<object, Set<string>>()
  const add = (entity: object, name: string) => {
    if (notifiedEntity(entity) === undefined) return
    const fields = changes.get(entity) ?? new Set()
    changes.set(entity, fields.add(name))
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
  return changes
}
