/** The import rules of eslint.config.js: each of them refuses an import that it has to refuse. */
import assert from 'node:assert/strict'
import { globSync } from 'node:fs'
import { dirname, join, relative, sep } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { ESLint } from 'eslint'

interface Zone {
  target: string
  from: string
  except: string[]
  message: string
}

const root = fileURLToPath(new URL('../..', import.meta.url))
const RULES = ['import-x/no-restricted-paths', 'import-x/no-cycle', 'no-restricted-imports', 'no-restricted-syntax']
const eslint = new ESLint({ cwd: root, ruleFilter: ({ ruleId }) => RULES.includes(ruleId) })
const files = globSync('lib/**/*.ts', { cwd: root }).map((path) => path.split(sep).join('/'))

/** Imports that the architecture forbids, by the folder or file of their zone. Each zone of the configuration has one. */
const FORBIDDEN: Record<string, string[]> = {
  'lib/protocol': ['lib/server/connection.ts', 'lib/client/client.ts', 'lib/errors.ts', 'lib/util/checks.ts'],
  'lib/util': [
    'lib/server/connection.ts', 'lib/options.ts', 'lib/brokers/broker.ts', 'lib/mikro-orm/row.ts',
    'lib/mikro-orm/capture/commit.ts'
  ],
  'lib/brokers': ['lib/server/types.ts', 'lib/plugin.ts', 'lib/diagnostics.ts', 'lib/mikro-orm/index.ts'],
  'lib/brokers/redis': ['lib/brokers/memory.ts', 'lib/server/types.ts', 'lib/protocol/codes.ts'],
  'lib/brokers/database': ['lib/brokers/memory.ts', 'lib/server/types.ts', 'lib/mikro-orm/row.ts'],
  'lib/server': ['lib/plugin.ts', 'lib/brokers/memory.ts', 'lib/mikro-orm/index.ts', 'lib/client/index.ts'],
  'lib/server/requests': ['lib/server/connection.ts', 'lib/server/groups/groups.ts', 'lib/server/sending/send-queue.ts'],
  'lib/server/sending': ['lib/server/connection.ts', 'lib/server/groups/group.ts', 'lib/server/requests/request.ts'],
  'lib/server/groups': ['lib/server/connection.ts', 'lib/server/connections.ts', 'lib/server/sending/send-queue.ts'],
  'lib/server/upgrade': ['lib/server/connection.ts', 'lib/server/groups/groups.ts'],
  'lib/mikro-orm': ['lib/server/types.ts', 'lib/plugin.ts', 'lib/brokers/broker.ts'],
  'lib/mikro-orm/row.ts': ['lib/mikro-orm/capture/commit.ts', 'lib/mikro-orm/notify.ts'],
  'lib/mikro-orm/declare': ['lib/mikro-orm/capture/change-log.ts', 'lib/mikro-orm/announce/announcer.ts'],
  'lib/mikro-orm/capture': ['lib/mikro-orm/announce/announcer.ts', 'lib/mikro-orm/change-subscriber.ts'],
  'lib/mikro-orm/announce': ['lib/mikro-orm/change-subscriber.ts', 'lib/mikro-orm/capture/flush.ts'],
  'lib/mikro-orm/outbox': ['lib/mikro-orm/announce/announcer.ts', 'lib/mikro-orm/capture/commit.ts'],
  'lib/mikro-orm/change-subscriber.ts': ['lib/mikro-orm/orm-plugin.ts', 'lib/mikro-orm/notify.ts'],
  'lib/client': ['lib/errors.ts', 'lib/server/types.ts', 'lib/protocol/schemas.ts', 'lib/util/checks.ts'],
  'lib/testing': ['lib/plugin.ts', 'lib/server/connection.ts', 'lib/brokers/memory.ts'],
  'lib/errors.ts': ['lib/options.ts', 'lib/util/checks.ts'],
  'lib/diagnostics.ts': ['lib/plugin.ts', 'lib/server/connection.ts']
}

/** Lints imports as the text of a file. @returns the refused imports of one rule, with the messages of the rule */
async function refused (file: string, imports: string[], rule: string): Promise<{ path: string, message: string }[]> {
  const [result] = await eslint.lintText(imports.map((path) => `import '${specifier(file, path)}'\n`).join(''), {
    filePath: join(root, file)
  })
  const messages = result?.messages ?? []
  assert.deepEqual(messages.filter(({ fatal }) => fatal), [])
  return messages.filter(({ ruleId }) => ruleId === rule).map(({ line, message }) => {
    return { path: String(imports[line - 1]), message }
  })
}

function specifier (file: string, path: string): string {
  const found = relative(dirname(file), path).split(sep).join('/')
  return found.startsWith('.') ? found : `./${found}`
}

/** A file of a zone: the zone itself, or a new file in its folder. */
function fileOf (zone: string): string {
  return zone.endsWith('.ts') ? zone : `${zone}/new-file.ts`
}

const isIn = (path: string, folder: string) => path === folder || path.startsWith(`${folder}/`)

async function zonesOf (file: string): Promise<Zone[]> {
  const config = await eslint.calculateConfigForFile(join(root, file))
  const [severity, { zones }] = config.rules['import-x/no-restricted-paths']
  assert.equal(severity, 2)
  return zones
}

test('each zone has a forbidden import here', async () => {
  const targets = (await zonesOf('lib/index.ts')).map(({ target }) => target.replace('./', ''))

  assert.deepEqual(targets.toSorted(), Object.keys(FORBIDDEN).toSorted())
})

for (const [zone, forbidden] of Object.entries(FORBIDDEN)) {
  test(`${zone} can't import ${forbidden.join(', ')}`, async () => {
    const found = await refused(fileOf(zone), forbidden, 'import-x/no-restricted-paths')

    assert.deepEqual(new Set(found.map(({ path }) => path)), new Set(forbidden))
    assert.ok(found.some(({ message }) => message.includes(`${zone} may import`)), JSON.stringify(found))
  })
}

test('a zone refuses every file of lib/ that it does not list', async () => {
  for (const { target, from, except } of await zonesOf('lib/index.ts')) {
    const [zone, folder] = [target.replace('./', ''), from.replace('./', '')]
    const allowed = except.map((path) => join(folder, path).split(sep).join('/'))
    const others = files.filter((path) => isIn(path, folder) && !allowed.some((each) => isIn(path, each)))

    const found = await refused(fileOf(zone), others, 'import-x/no-restricted-paths')

    assert.ok(others.length > 0, zone)
    assert.deepEqual([...new Set(found.map(({ path }) => path))].toSorted(), others.toSorted(), zone)
  }
})

test('zones list existing files and folders only', async () => {
  for (const { target, from, except } of await zonesOf('lib/index.ts')) {
    for (const path of [target, ...except.map((each) => join(from, each))]) {
      const normal = join(path).split(sep).join('/')
      assert.ok(files.some((file) => isIn(file, normal)), normal)
    }
  }
})

test('types cross no boundary either', async () => {
  const text = "import type { Connection } from '../server/connection.ts'\nexport type { Connection }\n"
  const [result] = await eslint.lintText(text, { filePath: join(root, 'lib/client/new-file.ts') })

  assert.deepEqual(result?.messages.map(({ ruleId }) => ruleId), ['import-x/no-restricted-paths'])
})

test('a circle of imports is refused', async () => {
  // memory.ts imports checks.ts by way of history.ts
  const found = await refused('lib/util/checks.ts', ['lib/brokers/memory.ts'], 'import-x/no-cycle')

  assert.equal(found.length, 1)
})

test('lib/client can import no package and no module of Node.js', async () => {
  const [result] = await eslint.lintText("import 'node:fs'\nimport 'ws'\nimport 'fastify'\nimport './error.ts'\n", {
    filePath: join(root, 'lib/client/new-file.ts')
  })

  assert.deepEqual(result?.messages.map(({ ruleId }) => ruleId), Array.from({ length: 3 }, () => 'no-restricted-imports'))
  assert.deepEqual(result?.messages.map(({ line }) => line), [1, 2, 3])
})

test('an index lists its exports by name', async () => {
  const [result] = await eslint.lintText("export * from './error.ts'\n", { filePath: join(root, 'lib/client/new-file.ts') })

  assert.deepEqual(result?.messages.map(({ ruleId }) => ruleId), ['no-restricted-syntax'])
})
