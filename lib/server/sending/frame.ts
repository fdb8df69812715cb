/**
 * Texts longer than this, in characters, are large: an `incoming` message precedes them where the client asked for it.
 */
const LARGE_TEXT = 32_768
/** First byte of an unfragmented text frame. */
const FIN_TEXT = 0x81

/**
 * A WebSocket text frame (RFC 6455, section 5.2) for any number of clients. Servers do not mask frames, so the bytes
 * are the same for every client; they are made once, when the first socket needs them.
 */
export class Frame {
  readonly text: string
  #bytes: Buffer | undefined
  #incoming: Frame | undefined

  constructor (text: string) {
    this.text = text
  }

  /** Header and payload in one buffer. */
  get bytes (): Buffer {
    this.#bytes ??= toBytes(this.text)
    return this.#bytes
  }

  /**
   * The `incoming` message (PROTOCOL.md) that precedes a large frame: the client receives no `pong` until the large
   * frame has arrived, and must not take that for a dead connection. `undefined` for all other frames.
   */
  get incoming (): Frame | undefined {
    if (this.text.length <= LARGE_TEXT) return undefined
    this.#incoming ??= new Frame(`{"type":"incoming","bytes":${Buffer.byteLength(this.text)}}`)
    return this.#incoming
  }
}

function toBytes (text: string): Buffer {
  const length = Buffer.byteLength(text)
  const header = length < 126 ? 2 : length < 65_536 ? 4 : 10
  const bytes = Buffer.allocUnsafe(header + length)
  bytes[0] = FIN_TEXT
  if (header === 2) {
    bytes[1] = length
  } else if (header === 4) {
    bytes[1] = 126
    bytes.writeUInt16BE(length, 2)
  } else {
    bytes[1] = 127
    bytes.writeUInt32BE(0, 2)
    bytes.writeUInt32BE(length, 6)
  }
  bytes.write(text, header)
  return bytes
}
