/** Finds the programs that tests need. On Debian, root installs missing ones. */
import { execFile } from 'node:child_process'
import { accessSync, constants, globSync, readFileSync } from 'node:fs'
import { promisify } from 'node:util'

/**
 * Finds a program.
 *
 * @param pattern its path, with wildcards for a version
 * @param debian the Debian package that contains it
 * @returns its path, or an Error with the reason why it is missing
 */
export async function findProgram (pattern: string, debian: string): Promise<string | Error> {
  const found = find(pattern)
  if (found !== undefined) return found
  if (!isDebian() || process.getuid?.() !== 0) return new Error(`there is no ${pattern}: install ${debian}`)

  try {
    // test files that install at the same time wait for each other
    await promisify(execFile)('flock', ['/var/lib/apt', 'sh', '-c', `apt-get update && apt-get install -y --no-install-recommends ${debian}`], {
      env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
      maxBuffer: Infinity
    })
  } catch (error) {
    const { message, stdout } = error as Error & { stdout: string }
    return new Error(`${debian} could not be installed. ${message}\n${stdout}`)
  }
  return find(pattern) ?? new Error(`Debian's ${debian} was installed, but there is no ${pattern}`)
}

function find (pattern: string): string | undefined {
  return globSync(pattern).find((path) => {
    try {
      accessSync(path, constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}

function isDebian (): boolean {
  try {
    return /^ID=debian$/m.test(readFileSync('/etc/os-release', 'utf8'))
  } catch {
    return false
  }
}
