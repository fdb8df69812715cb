/** Messages on their way to Redis, and their form as arguments of the publish script. */
import type { PublishOptions } from '../broker.ts'
import { CallStates } from './call-states.ts'
import { encodeLengths } from './channel-message.ts'

/** Consecutive messages of one group in one turn. They share a promise. */
export interface GroupBatch {
  group: string
  payloads: string[]
  /** The options of the payloads, with holes at payloads without stamps. */
  options: (PublishOptions | undefined)[]
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
  const states = new CallStates()
  let group: string | undefined
  let payloads: string[] = []
  const end = () => {
    if (group !== undefined) args.push(group, encodeLengths(payloads), String(payloads.length), ...payloads)
  }
  for (const { batches } of turns) {
    for (const batch of batches) {
      if (batch.group !== group) {
        end()
        group = batch.group
        payloads = []
        states.beginBatch(group)
      }
      for (const [index, options] of batch.options.entries()) {
        if (options !== undefined) states.add(payloads.length + index, options)
      }
      payloads.push(...batch.payloads)
    }
  }
  end()
  return [...states.encode(), ...args]
}
