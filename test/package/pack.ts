/**
 * The tarball of the package. `node --test --test-global-setup=test/package/pack.ts` packs it once for all test files;
 * a test file that runs alone packs it itself.
 */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../..', import.meta.url))

/** A packed package. */
export interface Tarball {
  path: string
  /** The paths of its files. */
  files: string[]
}

let folder: string | undefined
let tarball: Tarball | undefined

export function globalSetup (): void {
  process.env.PACKED_TARBALL = JSON.stringify(pack())
}

export function globalTeardown (): void {
  if (folder !== undefined) rmSync(folder, { recursive: true, force: true })
}

/** The tarball of the global setup; without one it is packed at the first call. */
export function findTarball (): Tarball {
  const { PACKED_TARBALL } = process.env
  if (PACKED_TARBALL !== undefined) return JSON.parse(PACKED_TARBALL)
  if (tarball === undefined) {
    process.once('exit', globalTeardown)
    tarball = pack()
  }
  return tarball
}

function pack (): Tarball {
  folder = mkdtempSync(join(tmpdir(), 'rohrpost-tarball-'))
  const args = ['pack', '--json', '--silent', '--pack-destination', folder]
  const output = execFileSync('npm', args, { cwd: root, encoding: 'utf8' })
  // the build that precedes it may print lines of its own
  const [{ filename, files }] = JSON.parse(output.replace(/^[^[]*/, ''))
  return { path: join(folder, filename), files: files.map(({ path }: { path: string }) => path) }
}
