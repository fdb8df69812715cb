/** The examples as a reader uses them: each folder is copied, installed with the packed package, and started. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { suite, test, type TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import manifest from '../../package.json' with { type: 'json' }
import { findChromium, launchChromium } from '../support/chromium.ts'
import { install } from './install.ts'

const chromium = await findChromium()

suite('examples', { concurrency: true, timeout: 600_000 }, () => {
  test('node: the list is followed on the command line', async (t) => {
    const folder = await copy(t, 'node')
    const url = await addressOf(npm(t, folder, ['start']), /ws:.*(?= \()/)

    const watch = npm(t, folder, ['run', 'watch', '--', url])
    const printed: string[] = []
    for await (const line of watch) {
      printed.push(line)
      if (line === '1 to-dos, 0 done') npm(t, folder, ['run', 'add', '--', 'Buy milk', url])
      if (line === 'create: Buy milk') break
    }

    assert.ok(printed.includes('open (opened)'), printed.join('\n'))
  })

  test('react: the list is the same in two windows', { skip: chromium.skip }, async (t) => {
    const folder = await copy(t, 'react')
    const url = await addressOf(npm(t, folder, ['start']), /http:.*(?= \()/)
    const [one, two] = await openPages(t, url, url)

    await one.getByLabel('New to-do').fill('Learn hooks')
    await one.getByRole('button').click()
    await two.getByLabel('Learn hooks').click()

    await one.getByLabel('Learn hooks').and(one.locator(':checked')).waitFor()
  })

  test('processes: a post on one process is shown by another', { skip: chromium.skip }, async (t) => {
    const folder = await copy(t, 'processes')
    const lines = npm(t, folder, ['start'])
    const [one, two] = await openPages(t, await addressOf(lines, /http:.*/), await addressOf(lines, /http:.*/))

    await one.getByText('Connected to process').waitFor()
    await one.getByLabel('Say something to everybody').fill('Hello')
    await one.getByRole('button').click()

    await two.getByText('Hello').waitFor()
  })

  for (const name of ['node', 'react', 'processes']) {
    test(`${name}: needs the packages in the versions that the project is tested with`, () => {
      const file = new URL(`../../examples/${name}/package.json`, import.meta.url)
      const { dependencies, devDependencies = {} } = JSON.parse(readFileSync(file, 'utf8'))
      const ranges: Record<string, string> = { ...dependencies, ...devDependencies }
      const tested: Record<string, string> = {
        ...manifest.devDependencies, ...manifest.dependencies, [manifest.name]: manifest.version
      }

      for (const [dependency, range] of Object.entries(ranges)) {
        assert.equal(range, `^${tested[dependency]?.replace('^', '')}`, dependency)
      }
    })
  }
})

/** Copies an example and installs what its `package.json` names. */
async function copy (t: TestContext, name: string): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), `rohrpost-example-${name}-`))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  cpSync(fileURLToPath(new URL(`../../examples/${name}`, import.meta.url)), folder, {
    recursive: true,
    // a database that the example has left here
    filter: (path) => !path.includes('.sqlite')
  })
  await install(folder)
  return folder
}

/** Runs npm on the project's own Node.js until the end of the test; gives the lines that it prints. */
function npm (t: TestContext, folder: string, args: string[]): AsyncIterableIterator<string> {
  const child = spawn('npm', args, {
    cwd: folder,
    env: { ...process.env, PORT: '0', PATH: `${dirname(process.execPath)}${delimiter}${process.env.PATH}` },
    stdio: ['ignore', 'pipe', 'inherit'],
    detached: true
  })
  t.after(async () => {
    if (child.exitCode !== null || child.pid === undefined) return
    const exit = once(child, 'exit')
    // a terminal sends Ctrl-C to the whole process group
    process.kill(-child.pid, 'SIGINT')
    await exit
  })
  return createInterface(child.stdout)[Symbol.asyncIterator]()
}

/** Reads lines up to the first that has an address. */
async function addressOf (lines: AsyncIterableIterator<string>, pattern: RegExp): Promise<string> {
  for (;;) {
    const { value = '', done } = await lines.next()
    assert.notEqual(done, true, 'no address was printed')
    const [address] = pattern.exec(value) ?? []
    if (address !== undefined) return address
  }
}

async function openPages (t: TestContext, ...urls: [string, string]) {
  const browser = await launchChromium(chromium)
  const errors: unknown[] = []
  t.after(async () => {
    await browser.close()
    assert.deepEqual(errors, [])
  })
  const open = async (url: string) => {
    const page = await browser.newPage()
    page.on('pageerror', (error) => errors.push(error))
    await page.goto(url)
    return page
  }
  return [await open(urls[0]), await open(urls[1])] as const
}
