/** One group that this process hears. */
import type { Position } from '../broker.ts'
import type { Run } from './envelope.ts'

export interface Subscription {
  readonly group: string
  readonly channel: string
  /** The position of the last message that was delivered. */
  epoch: string
  offset: number
  /** Whether messages are held until Redis has been asked what was missed. */
  isBehind: boolean
  /** Whether Redis is being asked, and the answer still counts. */
  isAsked: boolean
  /** What came since it was asked. */
  held: Run[]
  /** Whether more came than is held. */
  isCut: boolean
  /** The caller that waits until the group is heard. */
  opening: PromiseWithResolvers<Position | undefined> | undefined
}
