/** The files of lib/: no circle of imports, no name twice, and none that is too long to read in one sitting. */
import assert from 'node:assert/strict'
import { globSync, readFileSync } from 'node:fs'
import { basename, dirname, join, sep } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'

const MAX_LINES = 300

const root = fileURLToPath(new URL('../..', import.meta.url))
const paths = globSync('lib/**/*.{ts,tsx}', { cwd: root }).map((path) => path.split(sep).join('/'))
const sources = new Map(paths.map((path) => [path, readFileSync(join(root, path), 'utf8')]))

/** The files of lib/ that a file imports or exports from, types included. */
function importsOf (path: string, text: string): string[] {
  const code = text.replaceAll(/\/\*[^]*?\*\//g, '').replaceAll(/^\s*\/\/.*$/gm, '')
  return [...code.matchAll(/(?:from|import)\s*\(?\s*'(?<specifier>\.[^']+)'/g)].map(({ groups }) => {
    return join(dirname(path), String(groups?.specifier)).split(sep).join('/')
  })
}

/** Finds circles in a graph. @returns a path for each circle that a depth-first search meets */
function circlesOf (graph: ReadonlyMap<string, readonly string[]>): string[][] {
  const circles: string[][] = []
  const done = new Set<string>()
  const visit = (node: string, above: readonly string[]): void => {
    const at = above.indexOf(node)
    if (at >= 0) circles.push([...above.slice(at), node])
    if (at >= 0 || done.has(node)) return
    for (const next of graph.get(node) ?? []) visit(next, [...above, node])
    done.add(node)
  }
  for (const node of graph.keys()) visit(node, [])
  return circles
}

test('finds circles, also those of types', () => {
  const graph = new Map(Object.entries({
    'lib/a.ts': "import { b } from './b.ts'\nimport c from 'c'\n",
    'lib/b.ts': "export type { C } from './x/c.ts'\n// import { a } from './a.ts'\n",
    'lib/x/c.ts': "import type {\n  A\n} from '../a.ts'\n",
    'lib/d.ts': "import './a.ts'\nconst b = await import('./b.ts')\n"
  }).map(([path, text]) => [path, importsOf(path, text)]))

  assert.deepEqual(graph.get('lib/d.ts'), ['lib/a.ts', 'lib/b.ts'])
  assert.deepEqual(circlesOf(graph), [['lib/a.ts', 'lib/b.ts', 'lib/x/c.ts', 'lib/a.ts']])
})

test('imports make no circle, type-only imports included', () => {
  const graph = new Map([...sources].map(([path, text]) => [path, importsOf(path, text)]))

  for (const [path, imports] of graph) {
    for (const each of imports) assert.ok(graph.has(each), `${path} imports ${each}, which is not there`)
  }
  assert.deepEqual(circlesOf(graph).map((circle) => circle.join(' -> ')), [])
})

test('no file name exists twice, except index.ts', () => {
  const names = paths.map((path) => basename(path)).filter((name) => !/^index\.tsx?$/.test(name))

  assert.deepEqual(names.filter((name, index) => names.indexOf(name) !== index), [])
})

test(`a file has at most ${MAX_LINES} lines`, () => {
  const lengths = [...sources].map(([path, text]) => ({ path, lines: text.split('\n').length - 1 }))

  assert.deepEqual(lengths.filter(({ lines }) => lines > MAX_LINES), [])
})
