/**
 * Backpressure inside the receiver (frame parser) of `ws`. After `socket.pause()` the receiver still emits every
 * message of the chunk that it has already read, and it keeps each small chunk of an unfinished message in a buffer of
 * its own. Both are bounded here. `ws` has no public API for this, so this module alone accesses its internals; a
 * receiver with another shape is left as it is.
 */
import type { Duplex, Writable } from 'node:stream'
import type { WebSocket } from 'ws'

const kPause = Symbol('pause')

type Callback = (error?: Error | null) => void

/** Used parts of the `Receiver` of `ws` 8. */
interface WsReceiver extends Writable {
  /** Chunks that are not parsed yet. */
  _buffers: Buffer[]
  /** Payloads of the fragments of the unfinished message. */
  _fragments: Buffer[]
  /** Whether the parse loop continues. */
  _loop: boolean
  /** Parse loop over the buffered chunks. It calls `callback` at the end, unless it is paused. */
  startLoop (callback: Callback): void
  [kPause]?: ReceiverPause | undefined
}

interface WsInternals extends WebSocket {
  _receiver?: Partial<WsReceiver> | null
  _socket: Duplex
}

/** State of a paused receiver. */
interface ReceiverPause {
  /** Callback of the write that arrived during the pause. */
  callback: Callback | undefined
  /** Ends the pause when the TCP socket closes: `ws` emits 'close' only after the receiver has finished. */
  onClose: () => void
}

/** Number of chunks that are kept separately. */
const MAX_CHUNKS = 32
/** Chunks of at most this many bytes are always merged. */
const SMALL_CHUNK = 1024
const EMPTY = Buffer.alloc(0)

/** Makes a socket merge the small chunks of an unfinished message. It costs one function call for each chunk. */
export function mergeChunks (socket: WebSocket): void {
  const receiver = receiverOf(socket)
  if (receiver !== undefined) receiver._write = write
}

/**
 * Pauses a socket and its receiver, also between two messages of one chunk. It must be called while a message is
 * handled.
 */
export function pauseReading (socket: WebSocket): void {
  socket.pause()
  const receiver = receiverOf(socket)
  if (receiver === undefined || receiver[kPause] !== undefined) return

  const pause: ReceiverPause = { callback: undefined, onClose: () => resume(receiver) }
  receiver[kPause] = pause
  receiver._loop = false
  receiver.startLoop = (callback) => { pause.callback = callback }
  tcpSocketOf(socket).once('close', pause.onClose)
}

/**
 * Resumes a socket and its receiver. Messages of chunks that were already read follow in a later turn of the event
 * loop.
 */
export function resumeReading (socket: WebSocket): void {
  socket.resume()
  const receiver = receiverOf(socket)
  const pause = receiver?.[kPause]
  if (receiver === undefined || pause === undefined) return

  setImmediate(() => {
    if (socket.isPaused) return
    tcpSocketOf(socket).off('close', pause.onClose)
    resume(receiver)
  })
}

function resume (receiver: WsReceiver): void {
  const pause = receiver[kPause]
  if (pause === undefined) return

  receiver[kPause] = undefined
  // uncovers the method of the class
  delete (receiver as Partial<WsReceiver>).startLoop
  if (pause.callback !== undefined) receiver.startLoop(pause.callback)
  else if (receiver.writable) receiver.write(EMPTY)
}

/** Overrides `_write` of the receiver: once there are many chunks, the last ones are merged. */
function write (this: WsReceiver, chunk: Buffer, encoding: BufferEncoding, callback: Callback): void {
  if (this._buffers.length >= MAX_CHUNKS) mergeLast(this._buffers)
  if (this._fragments.length >= MAX_CHUNKS) mergeLast(this._fragments)
  Object.getPrototypeOf(this)._write.call(this, chunk, encoding, callback)
}

/**
 * Merges the last chunks, while each is at most as large as all chunks after it together: each byte is copied only a
 * few times.
 */
function mergeLast (chunks: Buffer[]): void {
  let from = chunks.length - 1
  let bytes = sizeAt(chunks, from)
  while (from > 0 && sizeAt(chunks, from - 1) <= Math.max(bytes, SMALL_CHUNK)) bytes += sizeAt(chunks, --from)
  if (from === chunks.length - 1) return

  const merged = Buffer.allocUnsafeSlow(bytes)
  let at = 0
  for (const chunk of chunks.splice(from)) at += chunk.copy(merged, at)
  chunks.push(merged)
}

function sizeAt (chunks: Buffer[], index: number): number {
  return Number(chunks[index]?.length)
}

function receiverOf (socket: WebSocket): WsReceiver | undefined {
  const receiver = (socket as WsInternals)._receiver
  const isKnown = Array.isArray(receiver?._buffers) && Array.isArray(receiver._fragments) &&
    typeof receiver.startLoop === 'function'
  return isKnown ? receiver as WsReceiver : undefined
}

/** Returns the TCP socket, even after `ws` has detached from it. */
function tcpSocketOf (socket: WebSocket): Duplex {
  return (socket as WsInternals)._socket
}
