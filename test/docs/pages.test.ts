import assert from 'node:assert/strict'
import { statSync } from 'node:fs'
import { suite, test } from 'node:test'
import { readDocument, readDocuments, root } from './support/markdown.ts'

const readme = readDocument('README.md')

suite('the pages for readers', () => {
  for (const { name, text } of readDocuments('PROTOCOL.md', 'CONTRIBUTING.md', 'SECURITY.md', 'docs/')) {
    test(`${name} is linked from the README, and says first whom it is for`, () => {
      const [title = '', blank, first = ''] = text.split('\n')

      assert.ok(readme.text.includes(`](${name})`), 'linked')
      assert.match(title, /^# \S/)
      assert.equal(blank, '')
      assert.match(first, /^This page is for \S/)
    })
  }
})

test('the picture of the README is small, and moves', () => {
  const [path = ''] = /(?<=\]\()docs\/images\/[^)]+/.exec(readme.text) ?? []

  assert.ok(statSync(new URL(path, root)).size < 400_000)
  assert.ok(readDocument(path).text.slice(0, 100).includes('acTL'), 'an animated PNG')
})
