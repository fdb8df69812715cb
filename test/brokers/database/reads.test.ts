/** What a broker reads of messages to groups that have no members in its process. */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { after, suite, test } from 'node:test'
import { poll } from '../../support/broker.ts'
import { intercepted } from './intercept.ts'
import { makeDatabase, openBroker, skips, type DatabaseName } from './support.ts'

const names: DatabaseName[] = ['SQLite', 'PostgreSQL', 'MariaDB']
const MESSAGES = 50
const SIZE = 10_000

for (const name of names) {
  suite(`reading the log on ${name}`, { skip: skips[name] }, async () => {
    const database = await makeDatabase(name, after)

    test('a process without members of a group reads no payload of it', async (t) => {
      const { settings, hook } = intercepted(database.orm)
      const [other, own] = [randomUUID(), randomUUID()]
      const { broker: publisher } = await openBroker(t, database)
      const { broker: bystander, recorder } = await openBroker(t, database, settings)
      await bystander.subscribe(own)
      let characters = 0
      const read = new Set<unknown>()
      hook.intercept = async (_sql, run) => {
        const rows = await run()
        for (const row of rows) {
          for (const value of Object.values(row)) characters += String(value).length
          if (typeof row.payload === 'string') read.add(row.payload)
        }
        return rows
      }

      const payload = JSON.stringify({ text: 'x'.repeat(SIZE) })
      for (let count = 0; count < MESSAGES; count++) await publisher.publish(other, payload)
      await publisher.publish(own, '{"text":"the last one"}')
      await poll(() => recorder.payloads(own).length === 1)

      assert.deepEqual([...read], ['{"text":"the last one"}'])
      // ids, names and marks: less than one of the payloads in each ten messages
      assert.ok(characters < MESSAGES * SIZE / 10, `${characters} characters`)
    })
  })
}
