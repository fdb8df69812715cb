import assert from 'node:assert/strict'
import { setImmediate } from 'node:timers/promises'
import { test } from 'node:test'
import { diagnostics, type ChangeDropEvent, type DropEvent } from '../../lib/index.ts'
import { record } from '../support/events.ts'
import { start } from '../support/server.ts'
import { codeOf, readDocument, tableOf } from './support/markdown.ts'

const document = readDocument('docs/diagnostics.md')
const channels = tableOf(document, 'Channels')

test('every channel is documented, and every documented channel is there', () => {
  assert.deepEqual(channels.map(([name]) => codeOf(name)), Object.values(diagnostics).map(({ name }) => name))
})

test('the events have the fields that the document says', async (t) => {
  const events = record(t, 'connect', 'disconnect', 'message', 'reply', 'publish', 'deliver')
  const server = await start(t, { onConnect: (connection) => { connection.join('a') } })
  const client = await server.connect()
  await client.call('ping')
  await server.app.rohrpost.sendToGroup('a', { data: 1 })
  client.socket.close()
  await client.closed
  await setImmediate()
  await server.app.close()

  for (const [name = '', , fields = ''] of channels) {
    const [event] = events[codeOf(name)?.slice('rohrpost:'.length) as keyof typeof diagnostics]
    if (event !== undefined) assert.deepEqual(Object.keys(event).sort(), fieldsOf(fields).sort(), name)
  }
  assert.deepEqual(new Set(events.order).size, 6)
})

test('every reason is documented, with the fields of its event', () => {
  // the compiler holds these to the types of the events
  const change: (keyof ChangeDropEvent)[] = ['entity', 'key', 'type', 'group', 'error']
  const reasons: Record<DropEvent['reason'], string[]> = {
    slow_consumer: ['connection', 'unsent'],
    lost: ['group'],
    not_loaded: change,
    failed: change,
    kind: change,
    unchanged: change,
    no_group: change,
    short_lived: change,
    rolled_back: change,
    unknown: change,
    missing: change
  }

  const rows = tableOf(document, 'What is not sent')
  assert.deepEqual(rows.map(([name]) => codeOf(name)), Object.keys(reasons))
  for (const [name, , fields = ''] of rows) {
    const known = reasons[codeOf(name) as keyof typeof reasons]
    const documented = [...fields.matchAll(/`(\w+)`/g)].map(([, field = '']) => field)
    assert.deepEqual(documented.filter((field) => !known.includes(field)), [], name)
  }
})

/** What stands in backticks in a list of fields, each before what is said of it. */
function fieldsOf (cell: string): string[] {
  return cell.split(', ').map((part) => codeOf(part) ?? part)
}
