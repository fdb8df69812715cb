import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { test } from 'node:test'
import { readDocument, root, tableOf } from './support/markdown.ts'

const document = readDocument('docs/architecture.md')

/** What one folder may import. */
interface Zone {
  target: string
  from: string
  except: string[]
}

interface Config {
  rules?: { 'import-x/no-restricted-paths'?: [string, { zones: Zone[] }] }
}

const { default: configs }: { default: Config[] } = await import(new URL('eslint.config.js', root).href)
const zones = configs.flatMap(({ rules }) => rules?.['import-x/no-restricted-paths']?.[1].zones ?? [])

test('each file that the page names is there', () => {
  const [before = '', after = ''] = document.text.split(/^\| in \|[^]*?\n\n/m)
  const paths = [
    ...pathsIn(before),
    ...pathsIn(after),
    ...zones.flatMap(({ target, from, except }) => [target, ...except.map((path) => `${from}/${path}`)])
  ]

  assert.ok(paths.length > 100)
  assert.deepEqual(paths.filter((path) => !existsSync(new URL(path, root))), [])
})

test('a file that is not there is found', () => {
  assert.deepEqual(pathsIn('1. `lib/gone.ts` and `tsconfig.json`, not `decode`'), ['lib/gone.ts', 'tsconfig.json'])
})

test('the table of imports is that of the linter', () => {
  const rows = tableOf(document, 'Folders and their imports').map((cells) => `| ${cells.join(' | ')} |`)

  assert.equal(rows.join('\n'), zones.map(toRow).join('\n'))
})

/** Paths of files and folders in backticks. */
function pathsIn (text: string): string[] {
  return [...text.matchAll(/`((?:[\w-]+\/)*[\w.-]+\.(?:ts|js|json|md)|(?:[\w-]+\/)+)`/g)].map(([, path = '']) => path)
}

function toRow ({ target, from, except }: Zone): string {
  const own = target.slice(from.length + 1)
  const others = except.map((path) => path.slice(2)).filter((path) => path !== own).map((path) => `\`${path}\``)
  const base = from === './lib' || others.length === 0 ? '' : ` of \`${from.slice(2)}\``
  return `| \`${target.slice(2)}\` | ${others.join(', ') || 'nothing'}${base} |`
}
