/** The clients that must miss nothing: some stay, some come and go. Started by the soak. */
import { setTimeout as sleep } from 'node:timers/promises'
import { serve } from '../lib/remote.ts'
import { SoakClient } from './client.ts'
import { LISTS, type Cast } from './plan.ts'

/** Clients that connect at once. */
const WAVE = 200
/** Clients that follow each list of rows. */
const READERS = 5
/** Milliseconds until each client that stays has asked once. */
const ROUND = 10_000
const STEP = 50
/** The longest life of a client that comes and goes, and the longest time until the next one comes, in milliseconds. */
const LIFE = 10_000

const steady: SoakClient[] = []
const wrong: string[] = []
const counts = { wrong: 0, heard: 0, calls: 0, audits: 0, lives: 0 }
const loops: Promise<void>[] = []
const ending = new AbortController()
let setUp: { port: number, cast: Cast } | undefined

const random = (below: number) => Math.floor(Math.random() * below)

function takeStock ({ replica }: SoakClient): void {
  counts.heard += replica.heard
  counts.wrong += replica.wrong.length
  wrong.push(...replica.wrong.slice(0, 20 - wrong.length))
}

/** Asks what can be asked. */
async function ask (client: SoakClient): Promise<void> {
  const text = `${Math.random()}`
  const [echo, later] = await Promise.all([client.call('echo', { text }), client.call('later', text), client.audit()])
  if ((echo.data as { text: string }).text !== text) client.replica.wrong.push(`echo: ${JSON.stringify(echo)}`)
  if (later.data !== text) client.replica.wrong.push(`later: ${JSON.stringify(later)}`)
  counts.calls += 2
  counts.audits++
}

/** Waits, but not longer than the soak lasts. */
async function rest (ms: number): Promise<void> {
  await sleep(ms, undefined, { signal: ending.signal }).catch(() => {})
}

/** One client after another. */
async function comeAndGo ({ port, cast }: { port: number, cast: Cast }): Promise<void> {
  await rest(random(LIFE))
  while (!ending.signal.aborted) {
    const client = await SoakClient.open(port)
    const room = random(cast.rooms)
    await client.join('news')
    await client.join('room', room)
    await rest(random(LIFE))
    await ask(client)
    if (random(2) === 0) {
      await client.leave('room', room)
      await ask(client)
    }
    takeStock(client)
    await client.end(random(2) === 0)
    counts.lives++
    await rest(random(LIFE) / 4)
  }
}

async function askInTurn (): Promise<void> {
  const perStep = Math.ceil(steady.length * STEP / ROUND)
  for (let at = 0; !ending.signal.aborted; at = (at + perStep) % steady.length) {
    await rest(STEP)
    await Promise.all(steady.slice(at, at + perStep).map(ask))
  }
}

const clients = {
  /** Opens the clients that stay; they are in their groups before anything is sent. */
  async open (given: { port: number, cast: Cast }) {
    setUp = given
    const { port, cast } = given
    while (steady.length < cast.steady) {
      const wave = Array.from({ length: Math.min(WAVE, cast.steady - steady.length) }, (_, index) => openSteady(port, cast, steady.length + index))
      steady.push(...await Promise.all(wave))
    }
  },

  begin () {
    if (setUp === undefined) throw new Error('nothing is open')
    const given = setUp
    loops.push(askInTurn(), ...Array.from({ length: given.cast.fleeting }, () => comeAndGo(given)))
  },

  /** Comes to an end, when nothing is sent any more. Gives what was heard. */
  async end (rows: { id: number, n: number }[][]) {
    ending.abort()
    await Promise.all(loops)
    await Promise.all(steady.map(ask))
    for (const [index, client] of steady.entries()) {
      if (index < LISTS * READERS) client.replica.compare(rows[index % LISTS] ?? [])
      takeStock(client)
    }
    await Promise.all(steady.map((client) => client.end(true)))
    return { ...counts, examples: wrong }
  }
}

async function openSteady (port: number, cast: Cast, index: number): Promise<SoakClient> {
  const client = await SoakClient.open(port)
  await client.join('news')
  await client.join('room', index % cast.rooms)
  if (index < LISTS * READERS) await client.join('list', index % LISTS)
  await client.audit()
  return client
}

export type WellBehaved = typeof clients

serve(clients)
