/** docs/tutorial.md as a reader follows it: its commands and files, with the packed package and two Chromium windows. */
import assert from 'node:assert/strict'
import { execFile, execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { after, before, suite, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import type { Browser, Page } from 'playwright-core'
import { blocksOf, readDocument, type Block } from '../docs/support/markdown.ts'
import { findChromium, launchChromium } from '../support/chromium.ts'
import { freePort } from '../support/free-port.ts'
import { findProgram } from '../support/install.ts'
import { install, lockedVersion } from './install.ts'

const chromium = await findChromium()
const curl = await findProgram('/usr/bin/curl', 'curl')

const [, ...sections] = readDocument('docs/tutorial.md').text.split(/^## /m)
const steps = new Map(sections.map((text) => {
  const [heading = ''] = text.split('\n')
  return [heading, blocksOf({ name: 'docs/tutorial.md', text })]
}))

const env = { ...process.env, PATH: `${dirname(process.execPath)}${delimiter}${process.env.PATH}` }
/** The ports that stand for those of the page. */
const ports = { 3000: await freePort(), 3001: await freePort() }
const temporary = mkdtempSync(join(tmpdir(), 'rohrpost-tutorial-'))

/** The folder in which the reader is. */
let folder = temporary
/** What the last command printed. */
let printed = ''
/** The servers that run, by port. */
const servers = new Map<number, ChildProcess>()

suite('the tutorial', { skip: chromium.skip || (curl instanceof Error && curl.message), timeout: 600_000 }, () => {
  let browser: Browser
  const windows: Page[] = []
  const errors: unknown[] = []

  before(async () => { browser = await launchChromium(chromium) })

  after(async () => {
    for (const port of servers.keys()) await stop(port)
    await browser.close()
    rmSync(temporary, { recursive: true })
  })

  step('1. Install the packages')
  step('2. An ordinary app')
  step('3. Announce the changes')

  step('4. A page that stays current', async () => {
    for (let number = 1; number <= 2; number++) {
      const page = await browser.newPage()
      page.on('pageerror', (error) => errors.push(error))
      await page.goto(`http://localhost:${ports[3000]}/`)
      windows.push(page)
    }
    await inBoth('☐ Buy milk')
  })

  step('5. Two windows', () => inBoth('☐ Water the plants'), async () => {
    await windows[0]?.getByLabel('New to-do').fill('Read the tutorial')
    await windows[0]?.getByRole('button', { name: 'Add' }).click()
    await inBoth('☐ Read the tutorial')
  })

  step('6. Calls over the same connection', async () => {
    for (const page of windows) await page.reload()
    await windows[0]?.getByText('Buy milk').click()
    await inBoth('☑ Buy milk')
  })

  step('7. Restart the server', () => inBoth('current'), async () => {
    await stop(ports[3000])
    await inBoth('stale')
    await inBoth('☑ Buy milk')
  })

  step('8. A second process', async () => {
    await windows[1]?.goto(`http://localhost:${ports[3001]}/`)
    await windows[1]?.getByText('current', { exact: true }).waitFor()
    await windows[0]?.getByLabel('New to-do').fill('Start a second process')
    await windows[0]?.getByRole('button', { name: 'Add' }).click()
    await inBoth('☐ Start a second process')
    await windows[1]?.getByText('Start a second process').click()
    await inBoth('☑ Start a second process')
  })

  test('has no other steps, and its pages throw no errors', () => {
    assert.deepEqual([...steps].filter(([, blocks]) => blocks.length > 0).map(([heading]) => heading), [])
    assert.deepEqual(errors, [])
  })

  test('its server compiles', () => {
    const tsc = fileURLToPath(new URL('../../node_modules/typescript/bin/tsc', import.meta.url))
    const types = fileURLToPath(new URL('../../node_modules/@types', import.meta.url))
    execFileSync(process.execPath, [
      tsc, '--noEmit', '--strict', '--skipLibCheck', '--module', 'nodenext', '--target', 'es2024',
      '--allowImportingTsExtensions', '--typeRoots', types, '--types', 'node', 'server.ts'
    ], { cwd: folder, encoding: 'utf8' })
  })

  async function inBoth (text: string): Promise<void> {
    for (const page of windows) await page.getByText(text, { exact: true }).waitFor()
  }
})

/** Follows a step of the page. @param check what the reader sees after it @param act what the reader does before it */
function step (heading: string, check?: () => Promise<void>, act?: () => Promise<void>): void {
  test(heading, async () => {
    await act?.()
    const blocks = steps.get(heading)
    assert.ok(blocks, `no step '${heading}'`)
    for (const block of blocks) await follow(block)
    await check?.()
    steps.delete(heading)
  })
}

async function follow ({ language, marks, text }: Block): Promise<void> {
  const code = text.replaceAll(/(?<=localhost:|PORT \?\? |PORT=)(3000|3001)/g, (port) => String(ports[port as '3000']))
  const file = valueOf(marks, 'file')
  if (file !== undefined) {
    const path = join(folder, file)
    const [anchor, replaced] = [valueOf(marks, 'above'), valueOf(marks, 'in place of')]
    if (marks.includes('at the top')) writeFileSync(path, `${code}\n${readFileSync(path, 'utf8')}`)
    else if (anchor !== undefined) writeFileSync(path, insert(readFileSync(path, 'utf8'), anchor, 0, code))
    else if (replaced !== undefined) writeFileSync(path, insert(readFileSync(path, 'utf8'), replaced, 1, code))
    else writeFileSync(path, `${code}\n`)
  } else if (language === 'sh') {
    for (const command of code.split('\n')) await run(command)
  } else {
    assert.ok(marks.includes('prints'), `a ${language} block is neither a file nor the output of a command`)
    assert.equal(printed.trim(), code)
  }
}

async function run (command: string): Promise<void> {
  const [, names] = /^npm install (.*)/.exec(command) ?? []
  if (names !== undefined) return installByNames(names.split(' '))
  const [serves, PORT] = /^(?:PORT=(\d+) )?node server\.ts$/.exec(command) ?? []
  if (serves !== undefined) return startServer(PORT)

  const { stdout } = await promisify(execFile)('sh', ['-c', command], { cwd: folder, env })
  printed = stdout
  folder = join(folder, /cd ([\w-]+)$/.exec(command)?.[1] ?? '')
}

/** @param names of packages, some with a version that the reader needs to have */
async function installByNames (names: string[]): Promise<void> {
  const path = join(folder, 'package.json')
  const manifest = JSON.parse(readFileSync(path, 'utf8'))
  manifest.dependencies = Object.fromEntries(names.map((spec) => {
    const [, name = '', version] = /^(@?[^@]+)(?:@(.*))?$/.exec(spec) ?? []
    if (version !== undefined) assert.ok(lockedVersion(name).startsWith(version), spec)
    return [name, '']
  }))
  writeFileSync(path, JSON.stringify(manifest))
  await install(folder)
}

async function startServer (PORT: string | undefined): Promise<void> {
  const port = Number(PORT ?? ports[3000])
  await stop(port)
  const server = spawn(process.execPath, ['server.ts'], {
    cwd: folder, env: { ...env, PORT }, stdio: ['ignore', 'pipe', 'inherit']
  })
  servers.set(port, server)
  for await (const line of createInterface(server.stdout)) if (line === `Open http://localhost:${port}/`) return
  assert.fail('the server ended before it listened')
}

async function stop (port: number): Promise<void> {
  const server = servers.get(port)
  servers.delete(port)
  if (server === undefined || server.exitCode !== null) return
  const exit = once(server, 'exit')
  server.kill('SIGINT')
  await exit
}

/** Inserts code above a line, in place of so many lines. */
function insert (text: string, anchor: string, replaced: number, code: string): string {
  const lines = text.split('\n')
  const index = lines.findIndex((line) => line.trimStart().startsWith(anchor))
  assert.notEqual(index, -1, `no line begins with '${anchor}'`)
  return lines.toSpliced(index, replaced, code).join('\n')
}

function valueOf (marks: string[], name: string): string | undefined {
  return marks.find((mark) => mark.startsWith(`${name}: `))?.slice(name.length + 2)
}
