/** Counts the frames of a server (RFC 6455, section 5.2) by their headers alone: what a load generator can afford. */

/** Opcodes from here on are not data. */
const FIRST_CONTROL = 0x8
const PING = 0x9

/** What came over one connection since it was last asked for. */
export class FrameCounter {
  /** Data frames that have the expected length. */
  frames = 0
  /** Data frames that have another: an error, most likely. */
  odd = 0
  /** Pings of the WebSocket protocol, and of socket.io. */
  pings = 0
  /** Closes and pongs. */
  others = 0
  /** Payload bytes of the last frame that are still to come. */
  #skip = 0
  /** The start of a header whose end is still to come. */
  #rest: Buffer | undefined

  /**
   * Reads the first bytes of a buffer.
   *
   * @param expected the length of a data frame's payload, 0 for any
   * @param heartbeat the length of the ping of socket.io, -1 for none
   */
  read (buffer: Buffer, end: number, expected: number, heartbeat: number): void {
    if (this.#rest !== undefined) {
      buffer = Buffer.concat([this.#rest, buffer.subarray(0, end)])
      end = buffer.length
      this.#rest = undefined
    }

    let position = this.#skip
    while (end - position >= 2) {
      const first = buffer[position] ?? 0
      const second = buffer[position + 1] ?? 0
      let header = 2
      let length = second & 0x7f
      if (length === 126) {
        header = 4
        if (end - position < header) break
        length = buffer.readUInt16BE(position + 2)
      } else if (length === 127) {
        header = 10
        if (end - position < header) break
        length = buffer.readUInt32BE(position + 6)
      }
      position += header + length
      this.#count(first & 0x0f, length, expected, heartbeat)
    }

    this.#skip = Math.max(0, position - end)
    if (position < end) this.#rest = Buffer.from(buffer.subarray(position, end))
  }

  #count (opcode: number, length: number, expected: number, heartbeat: number): void {
    if (opcode === PING || (opcode < FIRST_CONTROL && length === heartbeat)) this.pings++
    else if (opcode >= FIRST_CONTROL) this.others++
    else if (expected === 0 || length === expected) this.frames++
    else this.odd++
  }
}

/** A client's text frame, or another. The mask is 0: legal, and it costs nothing to apply. */
export function clientFrame (text: string, opcode = 0x1): Buffer {
  const payload = Buffer.from(text)
  const { length } = payload
  if (length > 0xffff) throw new RangeError('a request of more than 65535 bytes')

  const size = length < 126 ? [0x80 | length] : [0x80 | 126, length >> 8, length & 0xff]
  return Buffer.concat([Buffer.from([0x80 | opcode, ...size, 0, 0, 0, 0]), payload])
}
