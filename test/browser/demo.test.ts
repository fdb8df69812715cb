import assert from 'node:assert/strict'
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { createInterface } from 'node:readline'
import { after, before, suite, test, type TestContext } from 'node:test'
import type { FastifyInstance } from 'fastify'
import type { Browser, Page } from 'playwright-core'
import { buildDemo } from '../../demo/app.ts'
import { findChromium, launchChromium } from '../support/chromium.ts'
import { newFile } from '../support/demo.ts'

const chromium = await findChromium()
let browser: Browser

suite('the demo in the browser', { skip: chromium.skip, timeout: 300_000 }, () => {
  before(async () => { browser = await launchChromium(chromium) })
  after(() => browser.close())

  test('what is done in one window shows in both', async (t) => {
    const { windows: [one, two] } = await openTwice(t)

    await add(one, 'Buy capsules')
    await row(one, 'Buy capsules').waitFor()
    await row(two, 'Buy capsules').waitFor()

    await row(two, 'Buy capsules').getByRole('button', { name: 'Edit' }).click()
    await two.keyboard.type(' of brass')
    await two.keyboard.press('Enter')
    await row(one, 'Buy capsules of brass').waitFor()
    await row(two, 'Buy capsules of brass').waitFor()

    await row(one, 'Buy capsules of brass').getByRole('checkbox').check()
    await row(two, 'Buy capsules of brass').getByRole('checkbox', { checked: true }).waitFor()
    await two.getByText('2 of 4 done').waitFor()

    await row(two, 'Buy capsules of brass').getByRole('button', { name: 'Delete' }).click()
    await row(one, 'Buy capsules of brass').waitFor({ state: 'detached' })
    await row(two, 'Buy capsules of brass').waitFor({ state: 'detached' })
  })

  test('the frames are shown as they pass, can be paused and cleared', async (t) => {
    const { windows: [one, two] } = await openTwice(t)

    await add(one, 'Watch the wire')

    await frame(one, 'sent', 'todo.add').waitFor()
    await frame(one, 'received', 'todo.add').waitFor()
    await frame(one, 'received', 'subscription-update').getByText('"Watch the wire"').waitFor()
    await frame(two, 'received', 'subscription-update').getByText('"Watch the wire"').waitFor()

    await two.getByRole('button', { name: 'Clear' }).click()
    await two.locator('#frames:empty').waitFor()
    await two.getByRole('button', { name: 'Pause' }).click()
    await row(one, 'Watch the wire').getByRole('button', { name: 'Delete' }).click()
    await two.getByRole('button', { name: 'Resume (1)' }).click()
    await frame(two, 'received', 'subscription-update').getByText('"delete"').waitFor()
  })

  test('a title is text, whatever is in it', async (t) => {
    const { windows: [one, two] } = await openTwice(t)
    const title = '<img src=x onerror="document.title=1">'

    await add(one, title)

    for (const page of [one, two]) {
      await row(page, title).waitFor()
      await frame(page, 'received', 'subscription-update').waitFor()
      assert.equal(await page.locator('img[src=x]').count(), 0)
    }
  })

  test('a title that is refused stays, with the reason', async (t) => {
    const { windows: [page] } = await openTwice(t)

    await add(page, '   ')
    await page.getByRole('alert').getByText('Please give the to-do a title.').waitFor()

    await row(page, 'Start the server').getByRole('button', { name: 'Edit' }).click()
    await page.getByRole('textbox', { name: 'Title' }).fill('x'.repeat(201))
    await page.keyboard.press('Enter')
    await page.getByRole('alert').getByText('up to 200 characters').waitFor()
    assert.equal(await page.getByRole('textbox', { name: 'Title' }).inputValue(), 'x'.repeat(201))

    await page.keyboard.press('Escape')
    await row(page, 'Start the server').waitFor()
  })

  test('a change that overtakes the list is not lost', async (t) => {
    const { url, windows: [one] } = await openTwice(t)
    const late = await newWindow(t)
    const listed = Promise.withResolvers<void>()
    await late.routeWebSocket(/rohrpost/, (socket) => {
      let list = ''
      socket.connectToServer().onMessage((text) => {
        const { type } = JSON.parse(String(text))
        if (type === 'todo.list') {
          list = String(text)
          return listed.resolve()
        }
        socket.send(text)
        if (type === 'subscription-update') socket.send(list)
      })
    })

    await late.goto(url)
    await listed.promise
    await add(one, 'Faster than the list')

    await row(late, 'Faster than the list').waitFor()
    await late.getByText('1 of 4 done').waitFor()
  })

  test('a restart of the server is not the end: both windows come back by themselves', async (t) => {
    const { app, file, url, windows: [one, two] } = await openTwice(t)
    await add(one, 'Written before the restart')
    await row(two, 'Written before the restart').waitFor()

    await app.close()
    for (const page of [one, two]) await page.locator('#state', { hasNotText: 'Live' }).waitFor()
    await start(t, file, Number(new URL(url).port))

    for (const page of [one, two]) await page.locator('#state', { hasText: 'Live' }).waitFor()
    await add(two, 'Written after the restart')
    for (const page of [one, two]) {
      await row(page, 'Written after the restart').waitFor()
      await row(page, 'Written before the restart').waitFor()
      assert.equal(await page.locator('#todos > li').count(), 5)
    }
  })

  test('neither is a server that is killed: both windows are current again, without a reload and without doubles', async (t) => {
    const file = newFile(t)
    const first = await startProcess(t, file)
    const windows = await openWindows(t, first.url, first.url)
    for (const page of windows) await page.evaluate("document.body.dataset.loaded = 'once'")
    await add(windows[0], 'Written before the kill')
    await row(windows[1], 'Written before the kill').waitFor()

    first.child.kill('SIGKILL')
    for (const page of windows) await page.locator('#state', { hasNotText: 'Live' }).waitFor()
    const second = await startProcess(t, file, new URL(first.url).port)

    assert.equal(second.url, first.url)
    for (const page of windows) await page.locator('#state', { hasText: 'Live' }).waitFor()
    await add(windows[1], 'Written after the kill')
    for (const page of windows) {
      await row(page, 'Written after the kill').waitFor()
      await row(page, 'Written before the kill').waitFor()
      assert.equal(await page.locator('#todos > li').count(), 5)
      assert.equal(await page.evaluate('document.body.dataset.loaded'), 'once')
    }
  })

  test('two processes share the list: what is done in a page of one shows in a page of the other', async (t) => {
    const file = newFile(t)
    // both make the tables of the new file
    const [first, second] = await Promise.all([startProcess(t, file), startProcess(t, file)])
    const [one, two] = await openWindows(t, first.url, second.url)

    await add(one, 'Said in the first process')
    await row(two, 'Said in the first process').waitFor()
    await row(two, 'Said in the first process').getByRole('checkbox').check()
    await one.getByText('2 of 4 done').waitFor()

    await one.getByRole('button', { name: 'Cut the line' }).click()
    await add(two, 'Said while the first page was away')
    await row(one, 'Said while the first page was away').waitFor()
    await one.locator('#state', { hasText: 'Live' }).waitFor()
    assert.equal(await one.locator('#todos > li').count(), 5)
  })

  test('a line that was cut is mended by the page, without a reload and without doubles', async (t) => {
    const { windows: [one, two] } = await openTwice(t)
    for (const page of [one, two]) await page.evaluate("document.body.dataset.loaded = 'once'")

    for (let times = 1; times <= 2; times++) {
      const closed = frameNote(one, 'connection lost (4000)').nth(times - 1)
      await one.getByRole('button', { name: 'Cut the line' }).click()
      await closed.waitFor()
      await add(two, `Said while it was cut, ${times}`)
      await one.locator('#state', { hasText: 'Live' }).waitFor()
      await row(one, `Said while it was cut, ${times}`).waitFor()
    }
    await add(one, 'Said when it was mended')

    for (const page of [one, two]) {
      await row(page, 'Said when it was mended').waitFor()
      assert.equal(await page.locator('#todos > li').count(), 6)
      assert.equal(await page.evaluate('document.body.dataset.loaded'), 'once')
    }
  })
})

test('a to-do that is gone is not found', { timeout: 30_000 }, async (t) => {
  const app = await buildDemo(newFile(t))
  t.after(() => app.close())
  await app.ready()
  const socket = await app.injectWS('/ws/rohrpost')

  socket.send(JSON.stringify({ id: 1, type: 'todo.update', data: { id: 99, done: true } }))

  const [reply] = await once(socket, 'message')
  socket.terminate()
  assert.deepEqual(JSON.parse(String(reply)), {
    id: 1,
    type: 'todo.update',
    error: 'This to-do is not on the list any more.',
    code: 'not_found'
  })
})

async function start (t: TestContext, file: string, port = 0): Promise<FastifyInstance> {
  const app = await buildDemo(file)
  t.after(() => app.close())
  await app.listen({ port, host: '127.0.0.1' })
  return app
}

/** The demo in a process of its own, as `npm start` runs it. */
async function startProcess (t: TestContext, file: string, port = '0'): Promise<{ child: ChildProcess, url: string }> {
  const child = spawn(process.execPath, ['demo/server.ts'], {
    env: { ...process.env, PORT: port, DATABASE: file }, stdio: ['ignore', 'pipe', 'inherit']
  })
  t.after(() => child.kill('SIGKILL'))
  for await (const line of createInterface(child.stdout)) {
    const [url] = /http:\/\/localhost:\d+\//.exec(line) ?? []
    if (url !== undefined) return { child, url }
  }
  return assert.fail('the demo printed no address')
}

/** The demo, live in two windows. */
async function openTwice (t: TestContext) {
  const file = newFile(t)
  const app = await start(t, file)
  const url = `http://127.0.0.1:${(app.server.address() as AddressInfo).port}/`
  return { app, file, url, windows: await openWindows(t, url, url) }
}

/** Two windows that are live. */
async function openWindows (t: TestContext, ...urls: [string, string]): Promise<[Page, Page]> {
  const windows: [Page, Page] = [await newWindow(t), await newWindow(t)]
  for (const [index, page] of windows.entries()) {
    await page.goto(urls[index] ?? '')
    await page.locator('#state', { hasText: 'Live' }).waitFor()
  }
  return windows
}

/** A window whose errors, violations of the content security policy included, fail the test. */
async function newWindow (t: TestContext): Promise<Page> {
  const page = await browser.newPage()
  const errors: unknown[] = []
  page.on('pageerror', (error) => errors.push(error))
  page.on('console', (message) => /content security policy/i.test(message.text()) && errors.push(message.text()))
  t.after(async () => {
    await page.close()
    assert.deepEqual(errors, [])
  })
  return page
}

async function add (page: Page, title: string) {
  await page.getByLabel('New to-do').fill(title)
  await page.getByRole('button', { name: 'Add' }).click()
}

function row (page: Page, title: string) {
  return page.locator('#todos > li').filter({ has: page.getByText(title, { exact: true }) })
}

function frameNote (page: Page, text: string) {
  return page.locator('#frames > .note').getByText(text)
}

function frame (page: Page, direction: 'sent' | 'received', type: string) {
  return page.locator(`#frames > .${direction}`).filter({ has: page.getByText(type, { exact: true }) })
}
