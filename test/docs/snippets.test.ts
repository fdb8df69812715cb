import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { readDocuments, type Document } from './support/markdown.ts'
import { compile, run, snippetsOf, type Snippet } from './support/snippets.ts'

const documents = readDocuments('README.md', 'PROTOCOL.md', 'docs/')
const snippets = documents.flatMap(snippetsOf)

const broken: Document = {
  name: 'docs/broken.md',
  text: [
    '```ts', 'const title: string = 5', '```', '',
    '```ts', 'const todo = { id: 5 }', '```', 'Then', '<!-- continues -->', '```ts', 'todo.done', '```', '',
    '```ts', "app.rohrpost.handel('todo')", '```'
  ].join('\n')
}

/** The types of PROTOCOL.md, each one held to that of the library both ways. */
const [protocol, ...others] = snippets.filter(({ document }) => document === 'PROTOCOL.md')
const compared: Snippet[] = protocol === undefined ? [] : [{ ...protocol, document: 'PROTOCOL.md against the library', code: protocol.code + comparison() }]

const problems = compile([...snippets, ...snippetsOf(broken), ...compared])

for (const { name } of documents) {
  test(`the TypeScript in ${name} compiles`, () => {
    assert.deepEqual(problems.filter((problem) => problem.startsWith(`${name}:`)), [])
  })
}

test('what the snippets take for granted compiles', () => {
  assert.deepEqual(problems.filter((problem) => /globals\.ts:/.test(problem)), [])
})

test('the types in PROTOCOL.md are those of the library', () => {
  assert.equal(compared.length, 1)
  assert.deepEqual(others, [], 'all TypeScript of the document is one module')
  assert.deepEqual(problems.filter((problem) => problem.startsWith('PROTOCOL.md against the library:')), [])
})

test('a snippet that does not compile is found, with its line', () => {
  assert.deepEqual(problems.filter((problem) => problem.startsWith('docs/broken.md:')), [
    "docs/broken.md:2: Type 'number' is not assignable to type 'string'.",
    "docs/broken.md:11: Property 'done' does not exist on type '{ id: number; }'.",
    "docs/broken.md:15: Property 'handel' does not exist on type 'Rohrpost'. Did you mean 'handle'?"
  ])
})

suite('documented code runs', { concurrency: 4 }, () => {
  for (const snippet of snippets.filter(({ run }) => run)) {
    test(`${snippet.document}:${snippet.line}`, () => runs(snippet))
  }

  test('and code that fails is found', async () => {
    await assert.rejects(runs(only('<!-- run -->\n```ts\nthrow new Error("thrown on purpose")\n```')), /thrown on purpose/)
  })

  test('and code that prints something else is found', async () => {
    await assert.rejects(runs(only('<!-- run -->\n```ts\nconsole.log(1)\n```\n<!-- output -->\n```text\n2\n```')), /Expected values to be strictly equal/)
  })
})

async function runs (snippet: Snippet): Promise<void> {
  const { code, stdout, stderr } = await run(snippet)

  assert.equal(code, 0, stderr)
  if (snippet.output !== undefined) assert.equal(stdout.trim(), snippet.output.trim())
}

function only (text: string): Snippet {
  const [snippet] = snippetsOf({ name: 'docs/broken.md', text })
  assert.ok(snippet)
  return snippet
}

function comparison (): string {
  const pairs = { Id: 'MessageId', Request: 'Request', Reply: 'Reply', ErrorMessage: 'ErrorMessage', SubscriptionUpdate: 'SubscriptionUpdate' }
  const comparisons = Object.entries(pairs).map(([here, there]) => `
    export const to${here} = (it: ${here}): library.${there} => it
    export const from${here} = (it: library.${there}): ${here} => it
  `)
  return `import type * as library from 'fastify-rohrpost/protocol'\n${comparisons.join('')}`
}
