/** A receiver for tests of brokers: records each call, and waits for expected ones. */
import { AssertionError } from 'node:assert'
import type { Position, Receiver } from '../brokers/broker.ts'

/** A recorded call of `deliver` or `lost`. */
export type RecordedEvent =
  | { kind: 'message', group: string, payload: string, position: Position | undefined }
  | { kind: 'lost', group: string, position: Position | undefined }

/** Milliseconds that a test waits for an expected event. */
const WAIT_TIMEOUT = 20_000

export class Recorder implements Receiver {
  /** Messages and losses, in the order of the calls. */
  readonly events: RecordedEvent[] = []
  readonly errors: Error[] = []
  readonly notices: { text: string, stage: string, failures?: number }[] = []
  readonly #checks = new Set<() => void>()

  deliver (group: string, payload: string, position?: Position): void {
    this.events.push({ kind: 'message', group, payload, position })
    this.#checkAll()
  }

  lost (group: string, position?: Position): void {
    this.events.push({ kind: 'lost', group, position })
    this.#checkAll()
  }

  error (error: Error): void {
    this.errors.push(error)
  }

  notice (text: string, details: { stage: string, failures?: number }): void {
    this.notices.push({ text, ...details })
    this.#checkAll()
  }

  /** The events of a group. */
  of (group: string): RecordedEvent[] {
    return this.events.filter((event) => event.group === group)
  }

  /** The payloads of a group's messages, in order. */
  payloads (group: string): string[] {
    return this.of(group).flatMap((event) => event.kind === 'message' ? [event.payload] : [])
  }

  /** The positions of a group's messages, in order. */
  positions (group: string): (Position | undefined)[] {
    return this.of(group).flatMap((event) => event.kind === 'message' ? [event.position] : [])
  }

  /** Resolves when a message has been delivered. */
  async until (group: string, payload: string): Promise<void> {
    const what = `message '${payload.slice(0, 80)}' in group '${group}'`
    await this.when(what, () => this.events.some((event) => {
      return event.kind === 'message' && event.group === group && event.payload === payload
    }))
  }

  /** Resolves when a condition holds. @throws AssertionError after 20 seconds */
  async when (what: string, holds: () => boolean): Promise<void> {
    if (holds()) return
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const timer = setTimeout(() => {
      const message = `There was no ${what}, only ${JSON.stringify(this.events.slice(-5))}`
      reject(new AssertionError({ message }))
    }, WAIT_TIMEOUT)
    const check = () => { if (holds()) resolve() }
    this.#checks.add(check)
    try {
      await promise
    } finally {
      clearTimeout(timer)
      this.#checks.delete(check)
    }
  }

  #checkAll (): void {
    for (const check of this.#checks) check()
  }
}

/** Checks a condition every 5 milliseconds until it holds. @throws AssertionError after 20 seconds */
export async function poll (what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  let isLate = false
  const timer = setTimeout(() => { isLate = true }, WAIT_TIMEOUT)
  try {
    while (!await holds()) {
      if (isLate) throw new AssertionError({ message: `There was no ${what}` })
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
  } finally {
    clearTimeout(timer)
  }
}
