/**
 * Tools that only the packed package is tried with: runtimes, a test runner, an old compiler. They are installed when
 * the tests of the package first ask for them, by the lockfile in `tools/`: `npm ci` of the project itself stays small.
 */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { cpSync, existsSync, globSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const source = fileURLToPath(new URL('tools', import.meta.url))
const cache = fileURLToPath(new URL('../../node_modules/.cache/fastify-rohrpost', import.meta.url))

/** A program, or why it is not there. */
export interface Binary {
  path: string
  skip: string | false
}

/** The installed tools. */
export interface Tools {
  /** Why there are none. */
  skip: string | false
  /** The path of a file of a package, such as `jest/bin/jest.js`. */
  path (file: string): string
  /** A runtime, in the package that its own package names for this platform. */
  binary (name: 'bun' | 'deno'): Binary
}

const patterns = { bun: '@oven/bun-*/bin/bun', deno: '@deno/*/deno' }

/**
 * Installs the tools, once for each lockfile.
 *
 * @throws Error with `CI=true` when they can't be installed; elsewhere that is the reason in `skip`
 */
export function installTools (): Tools {
  const lock = readFileSync(join(source, 'package-lock.json'))
  const folder = join(cache, `tools-${createHash('sha256').update(lock).digest('hex').slice(0, 16)}`)
  const skip = existsSync(folder) ? false : install(folder)
  return {
    skip,
    path: (file) => join(folder, 'node_modules', file),
    binary (name) {
      const [path = ''] = globSync(join(folder, 'node_modules', patterns[name]))
      return { path, skip: skip || (path === '' && `npm has no ${name} for ${process.platform} ${process.arch}`) }
    }
  }
}

function install (folder: string): string | false {
  const part = `${folder}.${process.pid}`
  try {
    mkdirSync(cache, { recursive: true })
    cpSync(source, part, { recursive: true })
    // scripts are not needed: the programs are in packages for the platform
    execFileSync('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund'], { cwd: part, encoding: 'utf8', stdio: 'pipe' })
    renameSync(part, folder)
    return false
  } catch (error) {
    if (process.env.CI === 'true') throw error
    return `the tools could not be installed: ${(error as Error).message.split('\n')[0]}`
  } finally {
    rmSync(part, { recursive: true, force: true })
  }
}
