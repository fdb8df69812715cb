/** Changes of M:N collections, of which the ORM has no event: they are told from what a flush is about to do. */
import { ReferenceKind, type UnitOfWork } from '@mikro-orm/core'
import type { Watched } from './registry.ts'
import { heldBy, type Held } from './row.ts'

/** What a flush changes of the collections of one entity. */
export interface CollectionChange {
  /** The names of the properties. */
  readonly fields: Set<string>
  /** What the entity held before. */
  readonly held: Held | undefined
}

/** The watched entities whose collections a flush changes; always those of the owning side. */
export function changedCollections (uow: UnitOfWork, watched: (entity: object) => Watched | undefined): Map<object, CollectionChange> {
  const changes = new Map<object, CollectionChange>()
  const add = (entity: object, name: string) => {
    const props = watched(entity)?.held
    if (props === undefined) return

    const change = changes.get(entity) ?? { fields: new Set(), held: heldBy(entity, props) }
    changes.set(entity, change)
    change.fields.add(name)
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
