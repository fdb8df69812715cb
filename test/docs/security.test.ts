import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { readDocument, tableOf } from './support/markdown.ts'

const document = readDocument('SECURITY.md')
const rows = ['Getting in', 'Reading messages for others', 'Using more than its share', 'Breaking the server'].flatMap((heading) => tableOf(document, heading))

/** The title of the test that shows what a row says, and the file that it is in. */
function testOf ([, , cell = '']: string[]): { title: string, file: string } {
  const { title, file } = /^(?<title>.*) \(`(?<file>test\/[\w/-]+\.test\.ts)`\)$/.exec(cell)?.groups ?? {}
  return { title: title ?? '', file: file ?? '' }
}

/** The titles of the tests of a file, as patterns: `${…}` in one stands for any text. */
function titlesIn (file: string): RegExp[] {
  const calls = readDocument(file).text.matchAll(/^\s*test\((?:'(?<single>(?:\\.|[^'\\])*)'|"(?<double>(?:\\.|[^"\\])*)"|`(?<template>(?:\\.|[^`\\])*)`)/gm)
  return [...calls].map(({ groups: { single, double, template } = {} }) => {
    const parts = template?.split(/\$\{[^}]*\}/) ?? [single ?? double ?? '']
    return new RegExp(`^${parts.map((part) => escape(part.replaceAll(/\\(.)/g, '$1'))).join('.+')}$`)
  })
}

function escape (text: string): string {
  return text.replaceAll(/[\\^$.*+?()[\]{}|]/g, '\\$&')
}

suite('the threats', () => {
  test('are there, each with what holds and what shows it', () => {
    assert.ok(rows.length >= 40)
    for (const row of rows) {
      assert.equal(row.length, 3, row[0])
      assert.ok(row.every((cell) => cell !== ''), row[0])
    }
  })

  test('have a test each, and no test is named twice', () => {
    const titles = rows.map((row) => testOf(row).title)

    assert.deepEqual(titles.filter((title, index) => titles.indexOf(title) !== index), [])
  })

  for (const row of rows) {
    const { title, file } = testOf(row)

    test(`${row[0]}: its test is there`, () => {
      assert.ok(titlesIn(file).some((pattern) => pattern.test(title)), `no test '${title}' in '${file}'`)
    })
  }

  test('a test that is not there is not found', () => {
    const titles = titlesIn('test/docs/security.test.ts')

    assert.ok(titles.length >= 4)
    assert.ok(titles.some((pattern) => pattern.test('Anything: its test is there')))
    assert.equal(titles.some((pattern) => pattern.test('a test that is somewhere else')), false)
  })
})

test('every limit of the options that bounds a client is a row', () => {
  const text = rows.flat().join()

  for (const option of ['allowedOrigins', 'maxPayload', 'maxGroups', 'concurrency', 'maxPending', 'handlerTimeout', 'heartbeatInterval', 'highWaterMark', 'slowTimeout', 'maxUnsent', 'rateLimit']) {
    assert.ok(text.includes(`\`${option}\``), option)
  }
})
