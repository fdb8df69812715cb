/** The Chromium of browser tests: found, on Debian installed, or a reason to skip them. */
import { chromium, type Browser } from 'playwright-core'
import { findProgram } from './install.ts'

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
 * Looks for Chromium at `CHROMIUM`, by default where Debian has it.
 *
 * @throws Error with `CI=true` when there is none; elsewhere that is the reason in `skip`
 */
export async function findChromium (): Promise<Chromium> {
  const executablePath = process.env.CHROMIUM || '/usr/bin/chromium'
  const found = await findProgram(executablePath, 'chromium')
  if (found instanceof Error && process.env.CI === 'true') throw found
  return { executablePath, skip: found instanceof Error && found.message }
}

/** Starts what was found, without a window; the caller closes it. */
export function launchChromium ({ executablePath }: Chromium): Promise<Browser> {
  return chromium.launch({ executablePath, args: FLAGS })
}
