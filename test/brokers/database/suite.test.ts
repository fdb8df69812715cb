/** The database broker passes the published suite on each database, with history and without. */
import { after, suite, test } from 'node:test'
import { databaseBroker } from '../../../lib/brokers/database/index.ts'
import { brokerSuite } from '../../../lib/testing/index.ts'
import { openLine } from '../../support/line.ts'
import { lockSqlite, makeDatabase, portOf, type DatabaseName, skips, type TestDatabase } from './support.ts'

const TTL = 60_000
const names: DatabaseName[] = ['SQLite', 'PostgreSQL', 'MariaDB']

for (const name of names) {
  for (const history of [undefined, { size: 100, ttl: TTL }]) {
    suite(`the database broker ${history ? 'with' : 'without'} history on ${name}`, { skip: skips[name] }, async () => {
      const database = await makeDatabase(name, after)
      const { orm, disconnect, away } = name === 'SQLite' ? file(database) : await server(name, database)

      brokerSuite({
        test,
        open: async (receiver) => {
          const broker = databaseBroker({ orm, ...(history && { history }) })
          await broker.open(receiver)
          return broker
        },
        capabilities: { processes: true, ...(history && { history: { size: history.size } }) },
        fault: {
          disconnect,
          away,
          forget: async () => {
            if (name === 'PostgreSQL') await database.run('truncate rohrpost_log restart identity')
            else if (name === 'MariaDB') await database.run('truncate rohrpost_log')
            else await forgetFile(database)
          },
          expire: async () => { await database.run('update rohrpost_log set created_at = created_at - ?', [TTL]) }
        }
      })
    })
  }
}

/** A file can be locked by another program. */
function file (database: TestDatabase) {
  const away = async () => lockSqlite(String(database.orm.config.get('dbName')))
  return { orm: database.orm, disconnect: async () => (await away())(), away }
}

/** A server can be away, and its connections can be cut. */
async function server (name: 'PostgreSQL' | 'MariaDB', database: TestDatabase) {
  const line = await openLine({ after }, portOf(name))
  return {
    orm: await database.connect(database.through(line)),
    disconnect: () => line.cut(),
    away: async () => {
      line.target = 1
      line.cut()
      return () => { line.target = portOf(name) }
    }
  }
}

async function forgetFile ({ run }: TestDatabase): Promise<void> {
  await run('delete from rohrpost_log')
  await run("delete from sqlite_sequence where name = 'rohrpost_log'")
}
