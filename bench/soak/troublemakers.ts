/** The clients that behave badly: some don't read, some send rubbish. Started by the soak. */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { connect as connectTo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { WebSocket } from 'ws'
import { serve } from '../lib/remote.ts'
import { connect } from './client.ts'
import type { Cast } from './plan.ts'

/** Milliseconds for which a client does not read: longer than the server bears it. */
const DEAF = 40_000
/** Milliseconds between two pieces of rubbish of one client. */
const EVERY = 200

const counts = { rubbish: 0, ended: 0 }
const ending = new AbortController()

const text = (bytes: number) => randomBytes(bytes).toString('base64')

/** What is sent, one after another. Those that violate WebSocket, or are too large, cost the connection. */
const rubbish: ((socket: WebSocket) => void)[] = [
  (socket) => socket.send(''),
  (socket) => socket.send(text(50)),
  (socket) => socket.send(randomBytes(50)),
  (socket) => socket.send('[1,2,3]'),
  (socket) => socket.send('{"id":{},"type":"ping"}'),
  (socket) => socket.send('{"id":1,"type":"__proto__","data":{"__proto__":1}}'),
  (socket) => socket.send(`{"id":1,"type":"${text(200)}"}`),
  (socket) => socket.send('{"id":1,"type":"echo","data":5}'),
  (socket) => socket.send('{"id":1,"type":"subscribe","data":{"type":"secret","id":1}}'),
  (socket) => socket.send('{"id":1,"type":"unsubscribe","data":{"type":"room","id":"x"}}'),
  (socket) => socket.send(`{"id":1,"type":"ping","data":${'['.repeat(5000)}${']'.repeat(5000)}}`),
  (socket) => { for (let id = 0; id < 300; id++) socket.send(JSON.stringify({ id, type: 'later', data: id })) },
  (socket) => socket.send('x', { fin: false }),
  (socket) => socket.send(Buffer.from([0xff, 0xfe]), { binary: false }),
  (socket) => socket.send('x'.repeat(2 * 1024 * 1024)),
  (socket) => socket.terminate()
]

async function open (port: number): Promise<WebSocket> {
  const socket = connect(port)
  socket.on('error', () => {})
  socket.on('close', () => { counts.ended++ })
  await Promise.race([once(socket, 'open'), once(socket, 'close')])
  return socket
}

async function rest (ms: number): Promise<void> {
  await sleep(ms, undefined, { signal: ending.signal }).catch(() => {})
}

async function sendRubbish (port: number): Promise<void> {
  await rest(Math.random() * 5 * EVERY)
  const first = Math.floor(Math.random() * rubbish.length)
  for (let socket: WebSocket | undefined, index = first; !ending.signal.aborted; index++) {
    if (socket?.readyState !== 1) {
      callNames(port)
      socket = await open(port)
    }
    rubbish[index % rubbish.length]?.(socket)
    counts.rubbish++
    await rest(EVERY)
  }
}

/** What is no request at all. */
function callNames (port: number): void {
  const socket = connectTo({ port, host: '127.0.0.1' })
  socket.on('error', () => {})
  // an answer that is not read would keep the socket open for ever
  socket.resume().end(randomBytes(200))
}

async function beDeaf (port: number): Promise<void> {
  while (!ending.signal.aborted) {
    const socket = await open(port)
    socket.send('{"id":1,"type":"subscribe","data":{"type":"bulk"}}')
    socket.send('{"id":2,"type":"subscribe","data":{"type":"news"}}')
    await once(socket, 'message')
    socket.pause()
    await rest(DEAF)
    socket.terminate()
  }
}

const clients = {
  begin ({ port, cast }: { port: number, cast: Cast }) {
    for (let count = 0; count < cast.garbage; count++) sendRubbish(port)
    for (let count = 0; count < cast.slow; count++) beDeaf(port)
  },

  end () {
    ending.abort()
    return counts
  }
}

export type Troublemakers = typeof clients

serve(clients)
