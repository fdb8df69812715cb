/** A receiver that writes down what it is told, for tests that wait until they have heard enough. */
import { AssertionError } from 'node:assert'
import type { Position, Receiver } from '../brokers/broker.ts'

/** Something that a broker told. */
export type Heard =
  | { kind: 'message', group: string, payload: string, position: Position | undefined }
  | { kind: 'lost', group: string, position: Position | undefined }

/** How long a test waits for what must come, in milliseconds. */
const PATIENCE = 20_000

export class Recorder implements Receiver {
  readonly heard: Heard[] = []
  readonly errors: Error[] = []
  readonly notices: { text: string, stage: string, failures?: number }[] = []
  readonly #checks = new Set<() => void>()

  deliver (group: string, payload: string, position?: Position): void {
    this.heard.push({ kind: 'message', group, payload, position })
    this.#checkAll()
  }

  lost (group: string, position?: Position): void {
    this.heard.push({ kind: 'lost', group, position })
    this.#checkAll()
  }

  error (error: Error): void {
    this.errors.push(error)
  }

  notice (text: string, details: { stage: string, failures?: number }): void {
    this.notices.push({ text, ...details })
    this.#checkAll()
  }

  /** What was told about a group. */
  of (group: string): Heard[] {
    return this.heard.filter((heard) => heard.group === group)
  }

  /** The payloads of a group, in order. */
  payloads (group: string): string[] {
    return this.of(group).flatMap((heard) => heard.kind === 'message' ? [heard.payload] : [])
  }

  /** The positions of a group's messages, in order. */
  positions (group: string): (Position | undefined)[] {
    return this.of(group).flatMap((heard) => heard.kind === 'message' ? [heard.position] : [])
  }

  /** Resolves when a message has come. */
  async until (group: string, payload: string): Promise<void> {
    await this.when(`message '${payload.slice(0, 80)}' in group '${group}'`, () => this.heard.some((heard) => heard.kind === 'message' && heard.group === group && heard.payload === payload))
  }

  /** Resolves when something is so. @throws AssertionError when it is not within 20 seconds */
  async when (what: string, isSo: () => boolean): Promise<void> {
    if (isSo()) return
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const timer = setTimeout(() => reject(new AssertionError({ message: `There was no ${what}, only ${JSON.stringify(this.heard.slice(-5))}` })), PATIENCE)
    const check = () => { if (isSo()) resolve() }
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

/** Asks again and again whether something is so. @throws AssertionError when it is not within 20 seconds */
export async function poll (what: string, isSo: () => boolean | Promise<boolean>): Promise<void> {
  let isLate = false
  const timer = setTimeout(() => { isLate = true }, PATIENCE)
  try {
    while (!await isSo()) {
      if (isLate) throw new AssertionError({ message: `There was no ${what}` })
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
  } finally {
    clearTimeout(timer)
  }
}
