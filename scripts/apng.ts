/** Animated PNG with a palette (https://www.w3.org/TR/png-3/). Later pictures hold the changed pixels only. */
import { crc32, deflateSync, inflateSync } from 'node:zlib'

/** A screenshot, and how long it stands in milliseconds. */
export interface Picture {
  png: Buffer
  duration: number
}

interface Pixels {
  width: number
  height: number
  /** One colour each, as 0xRRGGBB. */
  colors: Uint32Array
}

interface Frame {
  x: number
  y: number
  width: number
  height: number
  duration: number
  /** Rows of indexes into the palette, each behind the byte of its filter. */
  rows: Buffer
}

const SIGNATURE = Buffer.from('89504e470d0a1a0a', 'hex')
/** Index of the palette that shows the picture before. */
const TRANSPARENT = 0

/** Puts pictures of one size into one file, which repeats without end. */
export function animate (pictures: Picture[]): Buffer {
  const decoded = pictures.map(({ png }) => decode(png))
  const palette = new Palette(decoded)
  const frames: Frame[] = []
  for (const [index, pixels] of decoded.entries()) {
    const { duration = 0 } = pictures[index] ?? {}
    const frame = changedPart(pixels, decoded[index - 1], palette, duration)
    const last = frames.at(-1)
    if (frame !== undefined) frames.push(frame)
    else if (last !== undefined) last.duration += duration
  }
  const [first, ...others] = frames
  if (first === undefined) throw new Error('there are no pictures')

  let sequence = 0
  const data = [frameControl(sequence++, first), chunk('IDAT', compress(first))]
  for (const frame of others) {
    data.push(frameControl(sequence++, frame), chunk('fdAT', numbers(sequence++), compress(frame)))
  }
  return Buffer.concat([
    SIGNATURE,
    chunk('IHDR', numbers(first.width, first.height), Buffer.from([8, 3, 0, 0, 0])), // 8 bits, indexed
    chunk('acTL', numbers(frames.length, 0)),
    chunk('PLTE', palette.bytes),
    chunk('tRNS', Buffer.from([0])),
    ...data,
    chunk('IEND')
  ])
}

/** The most frequent colours of all pictures. */
class Palette {
  readonly bytes: Buffer
  readonly #indexes = new Map<number, number>()
  readonly #colors: number[]

  constructor (pictures: Pixels[]) {
    const counts = new Map<number, number>()
    for (const { colors } of pictures) for (const color of colors) counts.set(color, (counts.get(color) ?? 0) + 1)
    this.#colors = [...counts].sort(([, one], [, other]) => other - one).slice(0, 255).map(([color]) => color)
    this.bytes = Buffer.from([0, ...this.#colors].flatMap((color) => [color >> 16, color >> 8 & 255, color & 255]))
  }

  /** The index of the nearest colour. */
  indexOf (color: number): number {
    const known = this.#indexes.get(color)
    if (known !== undefined) return known
    const distances = this.#colors.map((other) => distance(color, other))
    const index = 1 + distances.indexOf(Math.min(...distances))
    this.#indexes.set(color, index)
    return index
  }
}

function distance (one: number, other: number): number {
  const [red = 0, green = 0, blue = 0] = [16, 8, 0].map((shift) => (one >> shift & 255) - (other >> shift & 255))
  return 2 * red ** 2 + 4 * green ** 2 + 3 * blue ** 2
}

/** The smallest rectangle that holds all changed pixels; `undefined` if there are none. */
function changedPart (pixels: Pixels, before: Pixels | undefined, palette: Palette, duration: number) {
  const { width, height, colors } = pixels
  const isChanged = (at: number) => colors[at] !== before?.colors[at]
  let [left, top, right, bottom] = [width, height, -1, -1]
  for (let at = 0; at < colors.length; at++) {
    if (!isChanged(at)) continue
    const [x, y] = [at % width, Math.floor(at / width)]
    left = Math.min(left, x)
    right = Math.max(right, x)
    top = Math.min(top, y)
    bottom = Math.max(bottom, y)
  }
  if (right === -1) return

  const frame: Omit<Frame, 'rows'> = { x: left, y: top, width: right - left + 1, height: bottom - top + 1, duration }
  const rows = Buffer.alloc((frame.width + 1) * frame.height)
  for (let y = 0; y < frame.height; y++) {
    for (let x = 0; x < frame.width; x++) {
      const at = (top + y) * width + left + x
      rows[y * (frame.width + 1) + 1 + x] = isChanged(at) ? palette.indexOf(colors[at] ?? 0) : TRANSPARENT
    }
  }
  return { ...frame, rows }
}

function frameControl (sequence: number, { x, y, width, height, duration }: Frame): Buffer {
  const end = Buffer.alloc(6)
  end.writeUInt16BE(duration)
  end.writeUInt16BE(1000, 2)
  end[5] = 1 // keep what is there, and blend over it
  return chunk('fcTL', numbers(sequence, width, height, x, y), end)
}

function compress ({ rows }: Frame): Buffer {
  return deflateSync(rows, { level: 9, memLevel: 9 })
}

/** Decodes what Chromium writes: 8 bits of red, green and blue, with or without alpha, not interlaced. */
function decode (png: Buffer): Pixels {
  const [width, height, channels] = [png.readUInt32BE(16), png.readUInt32BE(20), png[25] === 6 ? 4 : 3]
  const parts: Buffer[] = []
  for (let at = SIGNATURE.length; at < png.length;) {
    const end = at + 8 + png.readUInt32BE(at)
    if (png.toString('latin1', at + 4, at + 8) === 'IDAT') parts.push(png.subarray(at + 8, end))
    at = end + 4 // the checksum
  }
  const data = inflateSync(Buffer.concat(parts))
  const stride = width * channels
  const bytes = new Uint8Array(stride * height)
  for (let y = 0; y < height; y++) {
    const filter = data[y * (stride + 1)]
    for (let x = 0; x < stride; x++) {
      const at = y * stride + x
      const left = x < channels ? 0 : bytes[at - channels] ?? 0
      const up = y === 0 ? 0 : bytes[at - stride] ?? 0
      const corner = x < channels || y === 0 ? 0 : bytes[at - stride - channels] ?? 0
      const predicted = [0, left, up, left + up >> 1, paeth(left, up, corner)][filter ?? 0] ?? 0
      bytes[at] = (data[y * (stride + 1) + 1 + x] ?? 0) + predicted
    }
  }
  const colors = Uint32Array.from({ length: width * height }, (_, pixel) => {
    const [red = 0, green = 0, blue = 0] = bytes.subarray(pixel * channels)
    return red << 16 | green << 8 | blue
  })
  return { width, height, colors }
}

function paeth (left: number, up: number, corner: number): number {
  const estimate = left + up - corner
  const [toLeft, toUp, toCorner] = [Math.abs(estimate - left), Math.abs(estimate - up), Math.abs(estimate - corner)]
  return toLeft <= toUp && toLeft <= toCorner ? left : toUp <= toCorner ? up : corner
}

function chunk (name: string, ...data: Buffer[]): Buffer {
  const body = Buffer.concat([Buffer.from(name), ...data])
  return Buffer.concat([numbers(body.length - 4), body, numbers(crc32(body))])
}

/** Numbers of 32 bits. */
function numbers (...values: number[]): Buffer {
  const bytes = Buffer.alloc(4 * values.length)
  for (const [index, value] of values.entries()) bytes.writeUInt32BE(value, 4 * index)
  return bytes
}
