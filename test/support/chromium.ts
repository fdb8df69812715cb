/** The Chromium of browser tests: found, on Debian installed, or a reason to skip them. */
import { execFile } from 'node:child_process'
import { accessSync, constants, readFileSync } from 'node:fs'
import { promisify } from 'node:util'
import { chromium, type Browser } from 'playwright-core'

const DEBIANS = '/usr/bin/chromium'
const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync'
]

/** Where Chromium is, and what to tell the test runner as `skip`. */
export interface Chromium {
  executablePath: string
  skip: string | false
}

/**
 * Looks for Chromium at `CHROMIUM`, by default where Debian has it. Root on Debian gets it installed; test files that do so at the same
 * time wait for each other.
 *
 * @throws Error with `CI=true` when there is none; elsewhere that is the reason in `skip`
 */
export async function findChromium (): Promise<Chromium> {
  const executablePath = process.env.CHROMIUM || DEBIANS
  const problem = isExecutable(executablePath) ? undefined : await install(executablePath)
  if (problem !== undefined && process.env.CI === 'true') throw new Error(problem)
  return { executablePath, skip: problem ?? false }
}

/** Starts what was found, without a window; the caller closes it. */
export function launchChromium ({ executablePath }: Chromium): Promise<Browser> {
  return chromium.launch({ executablePath, args: FLAGS })
}

/** Returns what stands in the way, `undefined` if Chromium is there now. */
async function install (executablePath: string): Promise<string | undefined> {
  if (executablePath !== DEBIANS) return `CHROMIUM is ${executablePath}, where no program is`
  if (!isDebian() || process.getuid?.() !== 0) return `no Chromium at ${DEBIANS}: install it, or set CHROMIUM to its path`

  // the lock makes others wait, who then find it there
  const command = `test -x ${DEBIANS} || { apt-get update && apt-get install -y --no-install-recommends chromium; }`
  try {
    await promisify(execFile)('flock', ['/var/lib/apt', 'sh', '-c', command], {
      env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
      maxBuffer: Infinity
    })
  } catch (error) {
    const { message, stdout } = error as Error & { stdout: string }
    return `Chromium could not be installed. ${message}\n${stdout}`
  }
  return isExecutable(DEBIANS) ? undefined : `Debian's chromium was installed, but is not at ${DEBIANS}`
}

function isExecutable (path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

function isDebian (): boolean {
  try {
    return /^ID=debian$/m.test(readFileSync('/etc/os-release', 'utf8'))
  } catch {
    return false
  }
}
