/** What a server under test is, and how the four of them are found. */
import type { MikroORM } from '@mikro-orm/sql'
import type { ProtocolName } from '../lib/protocols.ts'

/** What a server is started with. */
export interface ServerOptions {
  /** Given, the subject announces changes of its rows, and has a context of it for each request. */
  orm?: MikroORM
  /** How the others have such a context. */
  inContext?: (work: () => void) => void
  /** Given, groups are shared with other servers through the Redis on this port. */
  redis?: RedisOptions
}

/** How groups are shared. */
export interface RedisOptions {
  port: number
  /** Whether the last messages are kept; the subject alone can do that. */
  history: boolean
}

/** A server that listens. */
export interface Server {
  port: number
  /** Sends an event to all members of a group. */
  publish (group: string, event: object): void
}

/**
 * Starts a server with what clients ask for: `ping`, answered with the same data, by what the server has built in; `echo`, the same by
 * a handler as an application has it; `join`, which makes the connection a member of groups.
 */
export type StartServer = (options: ServerOptions) => Promise<Server>

/** The subject, and those that it is compared with. */
export const servers = {
  rohrpost: { file: './rohrpost.ts', protocol: 'rohrpost' },
  ws: { file: './ws.ts', protocol: 'rohrpost' },
  '@fastify/websocket': { file: './fastify-websocket.ts', protocol: 'rohrpost' },
  'socket.io': { file: './socket-io.ts', protocol: 'socket.io' }
} as const satisfies Record<string, { file: string, protocol: ProtocolName }>

export type ServerName = keyof typeof servers

/** Loopback only. The queue of the kernel holds as many connections as one burst of a load generator. */
export const LISTEN = { port: 0, host: '127.0.0.1', backlog: 4096 } as const
