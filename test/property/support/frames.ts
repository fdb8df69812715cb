/** WebSocket frames as bytes (RFC 6455, section 5.2), including invalid ones. */
export const Opcode = { CONTINUATION: 0, TEXT: 1, BINARY: 2, CLOSE: 8, PING: 9, PONG: 10 } as const

const MASK = Buffer.from('37fa213d', 'hex')

export interface FrameOptions {
  opcode?: number
  fin?: boolean
  /** The three reserved bits, 4 the highest. */
  rsv?: number
  masked?: boolean
  /** The length in the header, if it is not the length of the payload. */
  length?: bigint
}

/** A frame of a client. */
export function frame (payload: string | Uint8Array, options: FrameOptions = {}): Buffer {
  const bytes = Buffer.from(payload)
  const { opcode = Opcode.TEXT, fin = true, rsv = 0, masked = true, length = BigInt(bytes.length) } = options

  const start = (fin ? 0x80 : 0) | (rsv << 4) | opcode
  const maskBit = masked ? 0x80 : 0
  let header: Buffer
  if (length < 126n) {
    header = Buffer.from([start, maskBit | Number(length)])
  } else if (length < 0x1_00_00n) {
    header = Buffer.from([start, maskBit | 126, 0, 0])
    header.writeUInt16BE(Number(length), 2)
  } else {
    header = Buffer.concat([Buffer.from([start, maskBit | 127]), Buffer.alloc(8)])
    header.writeBigUInt64BE(length, 2)
  }
  if (!masked) return Buffer.concat([header, bytes])
  for (let i = 0; i < bytes.length; i++) bytes[i] = Number(bytes[i]) ^ Number(MASK[i % 4])
  return Buffer.concat([header, MASK, bytes])
}

/** One message in fragments of at most `size` bytes. */
export function fragments (payload: string | Uint8Array, size: number, opcode: number = Opcode.TEXT): Buffer[] {
  const bytes = Buffer.from(payload)
  const count = Math.max(1, Math.ceil(bytes.length / size))
  return Array.from({ length: count }, (_, i) => frame(bytes.subarray(i * size, (i + 1) * size), {
    opcode: i === 0 ? opcode : Opcode.CONTINUATION,
    fin: i === count - 1
  }))
}

/** The complete frames in the bytes of a server, and the remaining bytes. */
export function parseFrames (bytes: Buffer): { frames: { opcode: number, payload: Buffer }[], rest: Buffer } {
  const frames: { opcode: number, payload: Buffer }[] = []
  let at = 0
  while (bytes.length - at >= 2) {
    const short = bytes.readUInt8(at + 1)
    const start = at + (short === 127 ? 10 : short === 126 ? 4 : 2)
    if (bytes.length < start) break

    const length = short === 127 ? Number(bytes.readBigUInt64BE(at + 2)) : short === 126 ? bytes.readUInt16BE(at + 2) : short
    if (bytes.length < start + length) break
    frames.push({ opcode: bytes.readUInt8(at) & 0x0f, payload: bytes.subarray(start, start + length) })
    at = start + length
  }
  return { frames, rest: bytes.subarray(at) }
}
