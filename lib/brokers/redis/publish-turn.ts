/** Messages on their way to Redis, and their form as arguments of the publish script. */
import type { Stamp } from '../broker.ts'
import { encodeLengths } from './channel-message.ts'

/** Consecutive messages of one group in one turn. They share a promise. */
export interface GroupBatch {
  group: string
  payloads: string[]
  /** The stamps of the payloads, with holes at payloads without a stamp. */
  stamps: (Stamp | undefined)[]
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
  let stamps: string[] = []
  const end = () => {
    if (group === undefined) return
    const count = stamps.length === 0 ? String(payloads.length) : `${payloads.length} ${stamps.length / 2}`
    args.push(group, encodeLengths(payloads), count, ...payloads, ...stamps)
  }
  for (const { batches } of turns) {
    for (const batch of batches) {
      if (batch.group !== group) {
        end()
        group = batch.group
        payloads = []
        stamps = []
      }
      for (const [index, stamp] of batch.stamps.entries()) {
        if (stamp === undefined) continue
        const { key, part, clock, value } = stamp
        const age = `${part} ${clock} ${value}`
        const row = `${payloads.length + index} ${key.includes('\n') ? encodeURIComponent(key) : key}`
        // the messages of a transaction have one age
        if (stamps.at(-2) === age) stamps.push(`${stamps.pop()}\n${row}`)
        else stamps.push(age, row)
      }
      payloads.push(...batch.payloads)
    }
  }
  end()
  return args
}
