/** Database files for tests of the demo and the examples. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TestContext } from 'node:test'

/** Gives the path of a file that does not exist, in a folder that ends with the test. */
export function newFile (t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'rohrpost-demo-'))
  t.after(() => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }))
  return join(folder, 'demo.sqlite')
}
