/** Messages on their way to Redis, and their form as arguments of the publish script. */
import { encodeLengths } from './batch.ts'

/** Consecutive messages of one group in one turn. They share a promise. */
export interface GroupBatch {
  group: string
  payloads: string[]
  done: PromiseWithResolvers<void>
}

/** The messages that are published in one turn of the event loop. They are sent, and expire, together. */
export interface PublishTurn {
  batches: GroupBatch[]
  messages: number
  bytes: number
  /** Start of the turn, by `performance.now()`. */
  since: number
  isSettled: boolean
}

/** Encodes the messages of a call as script arguments. Adjacent batches of one group become one. */
export function encodeTurns (turns: readonly PublishTurn[]): string[] {
  const args: string[] = []
  let group: string | undefined
  let payloads: string[] = []
  const end = () => {
    if (group !== undefined) args.push(group, encodeLengths(payloads), String(payloads.length), ...payloads)
  }
  for (const { batches } of turns) {
    for (const batch of batches) {
      if (batch.group === group) {
        payloads.push(...batch.payloads)
        continue
      }
      end()
      group = batch.group
      payloads = [...batch.payloads]
    }
  }
  end()
  return args
}
