/** Notifications of the groups of a row, and the committed change of the row that causes them. */
import type { ChangeDropReason } from '../../diagnostics.ts'
import type { Row } from '../row.ts'
import type { ChangeType } from './rules.ts'

/** The outcome of a transaction for one row. */
export interface CommittedChange {
  readonly type: ChangeType
  /**
   * Row before the transaction; `undefined` if there was none. The same object as `after` if the groups depend on the
   * primary key only.
   */
  readonly before: Row | undefined
  /** Row as it was committed; `undefined` if it was deleted. */
  readonly after: Row | undefined
  /** Changed properties; `undefined` if the ORM does not name them. */
  readonly fields: readonly string[] | undefined
}

/** A notification: the message to one group about the change of a row. */
export interface Notification {
  /** Name of the entity. */
  entity: string
  group: string
  type: ChangeType
  /** JSON text of the data of the row. */
  object: string
  /** Identifies the row within the group, in all processes. */
  key: string
  /** The properties of the row that the message carries, as `Stamp.part` names them. */
  part: string
  /** Set if the change is dropped: then this only records the reason, and the texts of the message are empty. */
  drop?: { reason: ChangeDropReason, key: string | undefined }
}

/** Records a dropped change in the place of its notifications. */
export function droppedNotification (
  reason: ChangeDropReason,
  entity: string,
  key: string | undefined,
  type: ChangeType
): Notification {
  return { entity, group: '', type, object: '', key: '', part: '', drop: { reason, key } }
}
