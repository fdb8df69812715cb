/**
 * The text frame of a message (RFC 6455, section 5.2). What a server sends is not masked, so the bytes are the same for every client and are
 * made once, when the first one needs them.
 */
export class Frame {
  readonly text: string
  #bytes: Buffer | undefined
  #notice: Frame | undefined

  constructor (text: string) {
    this.text = text
  }

  /** Header and payload in one buffer. */
  get bytes (): Buffer {
    this.#bytes ??= toBytes(this.text)
    return this.#bytes
  }

  /** What announces a large frame: while it is on its way, a client hears nothing else. `undefined` for all others. */
  get notice (): Frame | undefined {
    if (this.text.length <= LARGE) return undefined
    this.#notice ??= new Frame(`{"type":"incoming","bytes":${Buffer.byteLength(this.text)}}`)
    return this.#notice
  }
}

/** Texts longer than this, in characters, are announced to clients that asked for it. */
const LARGE = 32_768
/** A final frame with text. */
const FIN_TEXT = 0x81

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
