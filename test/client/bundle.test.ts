import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'
import { build } from 'esbuild'

/** Bytes, minified and gzipped. */
const BUDGET = 7500

test('the bundle for browsers is within its budget, and contains only the client', async (t) => {
  const { outputFiles, metafile } = await build({
    entryPoints: [fileURLToPath(new URL('../../lib/client/index.ts', import.meta.url))],
    bundle: true,
    minify: true,
    format: 'esm',
    platform: 'browser',
    target: 'es2022',
    metafile: true,
    write: false
  })

  const size = gzipSync(outputFiles[0]?.contents ?? assert.fail()).length
  t.diagnostic(`${size} bytes`)
  assert.ok(size <= BUDGET, `${size} bytes, the budget is ${BUDGET}`)
  const files = Object.keys(metafile.inputs).sort()
  assert.deepEqual(files.filter((file) => !file.startsWith('lib/client/')), [])
})
