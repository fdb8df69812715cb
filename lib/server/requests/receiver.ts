/**
 * Backpressure inside the parser of `ws`. `socket.pause()` stops the socket, but the receiver still emits every message of the chunk that it has
 * read already, and it keeps each small chunk of an unfinished message in a buffer of its own. Both are bounded here. `ws` has no public way, so
 * this file alone touches its internals; a receiver of another shape is left as it is.
 */
import type { Duplex, Writable } from 'node:stream'
import type { WebSocket } from 'ws'

const kStopped = Symbol('stopped')

type Done = (error?: Error | null) => void

/** The parts of the `Receiver` of `ws` 8 that are used. */
interface Receiver extends Writable {
  /** Chunks that are not parsed yet. */
  _buffers: Buffer[]
  /** Payloads of the fragments of the message that is being received. */
  _fragments: Buffer[]
  /** Whether the loop below goes on. */
  _loop: boolean
  /** Parses what is there, then calls `done`, unless it waits for something. */
  startLoop (done: Done): void
  [kStopped]?: Stop | undefined
}

interface Carrier extends WebSocket {
  _receiver?: Partial<Receiver> | null
  _socket: Duplex
}

/** A receiver that is stopped. */
interface Stop {
  /** Ends the write that came meanwhile. */
  done: Done | undefined
  /** Lets the receiver end when the socket has closed: `ws` waits for it with the 'close' event. */
  onClose: () => void
}

/** Number of pieces that are kept as they are. */
const PIECES = 32
/** Pieces up to this size are always merged, in bytes. */
const SMALL = 1024
const NOTHING = Buffer.alloc(0)

/** Has a socket merge the small pieces of a message that it receives. Costs one function call for each chunk. */
export function mergePieces (socket: WebSocket): void {
  const receiver = receiverOf(socket)
  if (receiver !== undefined) receiver._write = write
}

/** Stops reading, also between two messages that came in one chunk. To be called while a message is handled. */
export function stopReading (socket: WebSocket): void {
  socket.pause()
  const receiver = receiverOf(socket)
  if (receiver === undefined || receiver[kStopped] !== undefined) return

  const stop: Stop = { done: undefined, onClose: () => resume(receiver) }
  receiver[kStopped] = stop
  receiver._loop = false
  receiver.startLoop = (done) => { stop.done = done }
  lineOf(socket).once('close', stop.onClose)
}

/** Reads on. Messages that were read already come in a later turn of the event loop. */
export function readOn (socket: WebSocket): void {
  socket.resume()
  const receiver = receiverOf(socket)
  const stop = receiver?.[kStopped]
  if (receiver === undefined || stop === undefined) return

  setImmediate(() => {
    if (socket.isPaused) return
    lineOf(socket).off('close', stop.onClose)
    resume(receiver)
  })
}

function resume (receiver: Receiver): void {
  const stop = receiver[kStopped]
  if (stop === undefined) return

  receiver[kStopped] = undefined
  // the method of the class is there again
  delete (receiver as Partial<Receiver>).startLoop
  if (stop.done !== undefined) receiver.startLoop(stop.done)
  else if (receiver.writable) receiver.write(NOTHING)
}

/** Replaces the method of the class: a piece that is received is merged with those before it, once there are many. */
function write (this: Receiver, chunk: Buffer, encoding: BufferEncoding, done: Done): void {
  if (this._buffers.length >= PIECES) merge(this._buffers)
  if (this._fragments.length >= PIECES) merge(this._fragments)
  Object.getPrototypeOf(this)._write.call(this, chunk, encoding, done)
}

/** Merges the last pieces, as many as are no larger than all after them together: so each byte is copied a few times at most. */
function merge (pieces: Buffer[]): void {
  let from = pieces.length - 1
  let bytes = sizeAt(pieces, from)
  while (from > 0 && sizeAt(pieces, from - 1) <= Math.max(bytes, SMALL)) bytes += sizeAt(pieces, --from)
  if (from === pieces.length - 1) return

  const merged = Buffer.allocUnsafeSlow(bytes)
  let at = 0
  for (const piece of pieces.splice(from)) at += piece.copy(merged, at)
  pieces.push(merged)
}

function sizeAt (pieces: Buffer[], index: number): number {
  return Number(pieces[index]?.length)
}

function receiverOf (socket: WebSocket): Receiver | undefined {
  const receiver = (socket as Carrier)._receiver
  return Array.isArray(receiver?._buffers) && Array.isArray(receiver._fragments) && typeof receiver.startLoop === 'function'
    ? receiver as Receiver
    : undefined
}

/** The socket below, also after `ws` has let go of it. */
function lineOf (socket: WebSocket): Duplex {
  return (socket as Carrier)._socket
}
