/** What is said on the wire, for the servers that speak the protocol of this project and for socket.io. */

/** The change of a row, some 200 bytes of JSON. */
export interface ChangeEvent {
  type: 'change'
  group: string
  data: object
}

/** Numbers on the wire have nine digits, so that all frames of a kind have one length. */
export const FIRST_ID = 100_000_000

/** A name of constant length. */
export function groupName (index: number): string {
  return `group-${String(index).padStart(5, '0')}`
}

export function changeEvent (index: number, group: string): ChangeEvent {
  return {
    type: 'change',
    group,
    data: {
      entity: 'Book',
      op: 'update',
      id: FIRST_ID + index,
      changes: { title: 'A tale of two sockets', price: 1999, stock: 17, updatedAt: '2026-01-01T00:00:00.000Z' }
    }
  }
}

const data = { text: 'hello world', n: 42, flag: true }
const sample = changeEvent(0, groupName(0))

/** How a client talks to a server. */
export interface Protocol {
  path: string
  /** What the client says after the upgrade, and how many frames it waits for. */
  greeting?: { text: string, frames: number }
  join: (groups: readonly string[]) => string
  /** A request with the id {@link FIRST_ID}. */
  request: (type: string) => string
  answerLength: (type: string) => number
  eventLength: number
  /** The length of a ping that is a data frame, and its answer. */
  heartbeat?: { length: number, answer: string }
}

export const protocols = {
  rohrpost: {
    path: '/ws',
    join: (groups) => JSON.stringify({ id: 1, type: 'join', data: { groups } }),
    request: (type) => JSON.stringify({ id: FIRST_ID, type, data }),
    answerLength: (type) => JSON.stringify({ id: FIRST_ID, type: type === 'ping' ? 'pong' : type, data }).length,
    eventLength: JSON.stringify(sample).length
  },
  'socket.io': {
    path: '/socket.io/?EIO=4&transport=websocket',
    greeting: { text: '40', frames: 2 },
    join: (groups) => `421${JSON.stringify(['join', { groups }])}`,
    request: (type) => `42${FIRST_ID}${JSON.stringify([type, data])}`,
    answerLength: () => `43${FIRST_ID}${JSON.stringify([data])}`.length,
    eventLength: `42${JSON.stringify(['change', sample])}`.length,
    heartbeat: { length: 1, answer: '3' }
  }
} as const satisfies Record<string, Protocol>

export type ProtocolName = keyof typeof protocols
