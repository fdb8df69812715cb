import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { test } from 'node:test'
import { readDocument, readDocuments, root, type Document } from './support/markdown.ts'

for (const document of readDocuments('README.md', 'PROTOCOL.md', 'CHANGELOG.md', 'CONTRIBUTING.md', 'SECURITY.md', 'bench/', 'docs/')) {
  test(`the links in ${document.name} lead somewhere`, () => {
    const lost = linksOf(document).filter((link) => !leadsSomewhere(document, link))

    assert.deepEqual(lost, [])
  })
}

test('a link that leads nowhere is found', () => {
  const document = { name: 'docs/lost.md', text: '# Lost\n[a](nowhere.md) [b](errors.md#nothing) [c](errors.md#codes) [d](#lost) `[e](f)`\n' }

  assert.deepEqual(linksOf(document).filter((link) => !leadsSomewhere(document, link)), ['nowhere.md', 'errors.md#nothing'])
})

/** Links within the project, without those in code. */
function linksOf ({ text }: Document): string[] {
  const prose = text.replaceAll(/^\s*```[^]*?^\s*```$/gm, '').replaceAll(/`[^`\n]*`(?!\])/g, '')
  return [...prose.matchAll(/\]\((?<link>[^)\s]+)\)/g)].map(({ groups }) => groups?.link ?? '').filter((link) => !/^[a-z]+:/.test(link))
}

function leadsSomewhere (from: Document, link: string): boolean {
  const { pathname, hash } = new URL(link, `file:///${from.name}`)
  const name = decodeURIComponent(pathname.slice(1))
  if (hash === '') return existsSync(new URL(name, root))
  if (name !== from.name && !existsSync(new URL(name, root))) return false
  return anchorsOf(name === from.name ? from : readDocument(name)).includes(decodeURIComponent(hash.slice(1)))
}

/** The anchors of headings, as GitHub makes them. */
function anchorsOf ({ text }: Document): string[] {
  return [...text.matchAll(/^#+ (?<heading>.*)$/gm)]
    .map(({ groups }) => (groups?.heading ?? '').toLowerCase().replaceAll(/[^\p{L}\p{N} _-]/gu, '').replaceAll(' ', '-'))
}
