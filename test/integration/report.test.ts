/** The report of the fault plan: what counts as a fault in the notes of clients. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { examine } from './faults/report.ts'
import type { Entry } from './faults/witness.ts'

const GROUPS = 20
const counts = { recovered: 0, refused: 0, resync: 0, lost: 0 }

/** One publisher, whose messages to group 0 have the numbers 20, 40, 60, … */
const publisher = { asked: 200, published: new Set(Array.from({ length: 200 }, (_, index) => index + 1)), failed: new Set<number>() }

function heard (n: number, epoch: string, offset: number): Entry {
  return { kind: 'heard', publisher: 0, n, position: { epoch, offset } }
}

function other (kind: 'begun' | 'recovered' | 'missed', epoch: string, offset: number): Entry {
  return { kind, position: { epoch, offset } }
}

/** The faults, by name, in the notes of clients that are all in group 0. */
function faults (...clients: Entry[][]): Record<string, number> {
  const accounts = clients.map((entries) => ({ group: 0, entries, counts }))
  const { repeated, reordered, silent, ambiguous, gaps, missed } = examine(accounts, [publisher], GROUPS, true)
  const all = { repeated, reordered, silent, ambiguous, gaps, missed }
  return Object.fromEntries(Object.entries(all).filter(([, count]) => count > 0))
}

suite('the report of the fault plan', () => {
  test('accepts a client that moves to a process in an older epoch, gets a resync, and receives the new epoch again', () => {
    assert.deepEqual(faults([
      other('begun', 'old', 0), heard(20, 'old', 1),
      // a process that is in the new epoch
      other('missed', 'new', 0), heard(40, 'new', 1), heard(60, 'new', 2), heard(80, 'new', 3),
      // a process that is still in the old one, and follows a moment later
      other('missed', 'old', 1),
      other('missed', 'new', 0), heard(40, 'new', 1), heard(60, 'new', 2), heard(80, 'new', 3), heard(100, 'new', 4)
    ]), {})
  })

  test('accepts messages that Redis published twice because it failed, if a resync is between them', () => {
    assert.deepEqual(faults([
      other('begun', 'old', 0), heard(20, 'old', 1), heard(40, 'old', 2), heard(60, 'old', 3),
      other('missed', 'new', 0), heard(40, 'new', 1), heard(60, 'new', 2), heard(80, 'new', 3)
    ]), {})
  })

  test('counts a missed message once, and not at all if it arrives later', () => {
    const notes = [other('begun', 'old', 0), heard(20, 'old', 1), other('missed', 'new', 1), heard(60, 'new', 2)]
    const again = [other('missed', 'new', 0), heard(40, 'new', 1), heard(60, 'new', 2)]

    assert.deepEqual(faults(notes, [...notes, ...again]), { missed: 1 })
  })

  test('finds a message after a later one, also after one from before a resync', () => {
    assert.deepEqual(faults([
      other('begun', 'old', 0), heard(20, 'old', 1), heard(40, 'old', 2), heard(60, 'old', 3), heard(80, 'old', 4),
      other('missed', 'new', 0), heard(60, 'new', 1), heard(40, 'new', 2)
    ]), { reordered: 2 }, 'in the notes of the client, and in the log')
  })

  test('finds a missing message after one from before a resync', () => {
    assert.deepEqual(faults([
      other('begun', 'old', 0), heard(20, 'old', 1), heard(40, 'old', 2), heard(60, 'old', 3),
      other('missed', 'new', 0), heard(20, 'new', 1), heard(60, 'new', 2)
    ]), { silent: 1 })
  })

  test('finds a message that arrives twice, and one at a second position of the same log', () => {
    assert.deepEqual(faults([other('begun', 'e', 0), heard(20, 'e', 1), heard(20, 'e', 1)]), { repeated: 1, gaps: 1 })
    assert.deepEqual(faults(
      [other('begun', 'e', 0), heard(20, 'e', 1), other('missed', 'e', 2)],
      [other('begun', 'e', 0), other('missed', 'e', 1), heard(20, 'e', 2)]
    ), { repeated: 1 }, 'in the log, though both clients were told')
  })

  test('finds a log that is out of order although every client got a resync in between', () => {
    assert.deepEqual(faults([
      other('begun', 'e', 0), heard(40, 'e', 1), other('missed', 'e', 1), heard(20, 'e', 2)
    ]), { silent: 1, reordered: 1 })
  })

  test('finds a position of two messages, and a skipped position', () => {
    assert.deepEqual(faults(
      [other('begun', 'e', 0), heard(20, 'e', 1)],
      [other('begun', 'e', 0), other('missed', 'e', 0), heard(40, 'e', 1)]
    ), { ambiguous: 1, missed: 1 })
    assert.deepEqual(faults([other('begun', 'e', 0), heard(20, 'e', 1), heard(40, 'e', 3)]), { gaps: 1 })
  })
})
