/** The process that makes the load: opens connections, sends requests, counts frames. Started by the benchmark. */
import { connect as connectTo, type Socket } from 'node:net'
import { Client, type Load } from './lib/client.ts'
import { protocols, type ProtocolName } from './lib/protocols.ts'
import { serve } from './lib/remote.ts'

/** What to connect. */
export interface ConnectOptions {
  port: number
  protocol: ProtocolName
  /** For each connection the groups that it joins. */
  groups: string[][]
  /** Where connections come from; the addresses take turns. */
  localAddresses: string[]
}

const clients: Client[] = []
let load: Load | undefined
let reports: Socket | undefined
let reportEvery = 0
let nextReport = Infinity
let awaited: { frames: number, resolve: (at: number) => void } | undefined

/** Connections that are being made at once. */
const CONCURRENCY = 128

function getLoad (): Load {
  if (load === undefined) throw new Error('not connected')
  return load
}

function counted (): void {
  const { frames } = getLoad().totals
  if (frames >= nextReport) report(frames)
  if (awaited !== undefined && frames >= awaited.frames) {
    awaited.resolve(Number(process.hrtime.bigint()))
    awaited = undefined
  }
}

function report (frames: number): void {
  const bytes = Buffer.allocUnsafe(8)
  bytes.writeDoubleLE(frames)
  reports?.write(bytes)
  nextReport = frames + reportEvery
}

const generator = {
  /** Opens all connections. Gives the time that it took, in milliseconds, and how many failed. */
  async connect ({ port, protocol, groups, localAddresses }: ConnectOptions) {
    load = { protocol: protocols[protocol], totals: { frames: 0, odd: 0, closed: 0 }, expected: 0, requesting: false, counted }
    const waiting = groups.entries()
    const failures: string[] = []
    const start = performance.now()

    await Promise.all(Array.from({ length: CONCURRENCY }, async () => {
      for (const [index, names] of waiting) {
        const localAddress = localAddresses[index % localAddresses.length]
        const client = new Client(getLoad(), { port, ...(localAddress !== undefined && { localAddress }) }, names)
        clients.push(client)
        await client.ready.catch((error: unknown) => { failures.push(String(error)) })
      }
    }))
    return { ms: performance.now() - start, failed: failures.length, failure: failures[0] }
  },

  /** Counts frames of this length from now on: events, or the answers to requests of a type. 0 is for any. */
  expect (length: number) {
    getLoad().expected = length
  },

  totals: () => ({ ...getLoad().totals }),

  /** Tells a port how many frames have come: now, as the last report may be long ago, and whenever so many more have come. */
  report ({ port, every }: { port: number, every: number }) {
    if (reports === undefined) {
      reports = connectTo({ port, host: '127.0.0.1', noDelay: true })
      reports.on('error', () => { reports = undefined })
    }
    reportEvery = every
    report(getLoad().totals.frames)
  },

  /** Resolves with the time, in nanoseconds of the monotonic clock, when so many frames have come in all. */
  reach (frames: number): Promise<number> {
    const { promise, resolve } = Promise.withResolvers<number>()
    awaited = { frames, resolve }
    counted()
    return promise
  },

  /** Has every connection send requests, so many at once, until {@link stopRequests}. */
  startRequests ({ type, inFlight }: { type: string, inFlight: number }) {
    const all = getLoad()
    all.expected = all.protocol.answerLength(type)
    all.requesting = true
    const text = all.protocol.request(type)
    for (const client of clients) client.request(text, inFlight)
  },

  /** Sends no more requests. */
  stopRequests () {
    getLoad().requesting = false
    return clients.reduce((sum, { sent }) => sum + sent, 0)
  },

  /** Resets all connections. */
  close () {
    for (const client of clients) client.destroy()
  }
}

export type Generator = typeof generator

serve(generator)
