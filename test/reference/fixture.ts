/**
 * The recordings as fixtures, one JSON object a line: what is sent, and what our server answers. Where that is not what the original
 * answered, the step also has the original's answer and the names of the differences. Frames are JSON values; generated text is
 * written as `[text, count]` pieces that are repeated and joined, where each `%` is the number of the repetition.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import type { Difference, Exclusion } from './differences.ts'

type Pieces = [text: string, count: number][]

/** What the clients see of one step: by client, the frames in order, and the code of a close. */
export interface Outcome<Frame = unknown> {
  answer?: Record<string, Frame[]>
  closed?: Record<string, number>
}

/** One thing that the client `on` does, and what comes of it. */
export interface Step extends Outcome {
  on: string
  text?: string
  gen?: Pieces
  /** Hexadecimal. */
  binary?: string
  open?: true
  close?: true
  differs?: Difference[]
  original?: Outcome
}

/** One recording. */
export interface Recording {
  name: string
  steps?: Step[]
  excluded?: Exclusion
}

export const areas = ['protocol', 'ping', 'errors', 'groups'] as const

/** Reads the recordings of an area. */
export function readRecordings (area: typeof areas[number]): Recording[] {
  const lines = readFileSync(new URL(`./fixtures/${area}.jsonl`, import.meta.url), 'utf8').trimEnd().split('\n')
  return lines.map((line) => parse(line) as Recording)
}

/** The payload that a step sends: text, or bytes for a binary frame. */
export function payloadOf ({ text, gen, binary }: Step): string | Buffer {
  if (binary !== undefined) return Buffer.from(binary, 'hex')
  return text ?? join(gen ?? [])
}

/** Demands that what was received are the frames of the fixture, as JSON values. */
export function assertOutcome (received: Outcome<string>, step: Outcome): void {
  const expected: Record<string, unknown[]> = {}
  const actual: Record<string, unknown[]> = {}
  for (const [client, frames] of Object.entries(received.answer ?? {})) {
    const wanted = (step.answer?.[client] ?? []).flatMap(expand)
    actual[client] = frames.map((frame, index) => readAs(frame, wanted[index]))
    expected[client] = wanted.map((frame, index) => adopt(frame, frames[index]))
  }

  assert.deepEqual({ answer: actual, closed: received.closed }, { answer: { ...step.answer, ...expected }, closed: step.closed })
}

function join (pieces: Pieces): string {
  return pieces.map(([text, count]) => Array.from({ length: count }, (_, n) => text.replaceAll('%', `${n}`)).join('')).join('')
}

/** `{ $each: [text, count] }` are many frames, everything else is one. */
function expand (frame: unknown): unknown[] {
  if (!has(frame, '$each')) return [frame]
  const [text, count] = frame.$each as [string, number]
  return Array.from({ length: count }, (_, n) => parse(text.replaceAll('%', `${n}`)))
}

/** A frame in the form in which the fixture has it: as text where that counts, else as a JSON value. */
function readAs (text: string, wanted: unknown): unknown {
  if (has(wanted, '$text')) return { $text: text }
  // compared as text: too large, or too deep, to be shown or walked through
  if (has(wanted, '$gen')) return { $gen: JSON.stringify(JSON.parse(text)) }
  return parse(text)
}

/** What the fixture expects. An error that only has to begin so (`$starts`) adopts the rest of the frame's own, an internal one its id. */
function adopt (wanted: unknown, text: string | undefined): unknown {
  if (text !== undefined && has(wanted, 'code') && wanted.code === 'internal') {
    const { error_id: errorId } = parse(text) as { error_id?: unknown }
    return { ...wanted, error_id: typeof errorId === 'string' ? errorId : 'an id' }
  }
  if (has(wanted, '$gen')) return { $gen: JSON.stringify(JSON.parse(join(wanted.$gen as Pieces))) }
  if (text === undefined || !has(wanted, 'error') || !has(wanted.error, '$starts')) return wanted

  const { error } = parse(text) as { error?: unknown }
  const start = String(wanted.error.$starts)
  return typeof error === 'string' && error.startsWith(start) && error.length > start.length ? { ...wanted, error } : wanted
}

function has<Key extends string> (value: unknown, key: Key): value is Record<Key, unknown> {
  return typeof value === 'object' && value !== null && Object.hasOwn(value, key)
}

/** As `JSON.parse`, but -0 is 0: the same JSON value. */
function parse (text: string): unknown {
  return JSON.parse(text, (_key, value: unknown) => value === 0 ? 0 : value)
}
