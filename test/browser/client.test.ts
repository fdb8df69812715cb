/** What only a browser has: rendering, network events, hidden pages, a WebSocket that tells of whole messages only. */
import assert from 'node:assert/strict'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { after, before, suite, test, type TestContext } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import type { FastifyInstance } from 'fastify'
import type { Browser, Page } from 'playwright-core'
import { findChromium, launchChromium } from '../support/chromium.ts'
import { start } from '../support/server.ts'

const ROWS = 500
const chromium = await findChromium()
let browser: Browser
let script = ''

/** A page that shows a live collection with React, and hands the client to the test. */
const SOURCE = `
import { createElement, useSyncExternalStore } from 'react'
import { createRoot } from 'react-dom/client'
import { RohrpostClient } from 'fastify-rohrpost/client'

const options = JSON.parse(new URLSearchParams(location.search).get('options') ?? '{}')
const url = new URLSearchParams(location.search).get('url') ?? location.origin.replace('http', 'ws') + '/ws/rohrpost'
const client = new RohrpostClient(url, options)
const rows = client.live({ type: 'rows' }, { load: () => client.call('rows') })
const seen = Object.assign(window, { client, rows, renders: 0, states: [] })
client.on('state', (state, { reason }) => seen.states.push(state + ' ' + reason))

function Rows () {
  const objects = useSyncExternalStore(rows.subscribe, rows.getSnapshot)
  seen.renders++
  return createElement('ul', { id: rows.status }, objects.map(({ id, title }) => createElement('li', { key: id }, title)))
}
createRoot(document.body).render(createElement(Rows))
`

suite('the client in Chromium', { skip: chromium.skip, timeout: 120_000 }, () => {
  before(async () => {
    const { outputFiles: [bundle] } = await build({
      stdin: { contents: SOURCE, resolveDir: fileURLToPath(new URL('.', import.meta.url)) },
      alias: { 'fastify-rohrpost/client': fileURLToPath(new URL('../../lib/client/index.ts', import.meta.url)) },
      define: { 'process.env.NODE_ENV': '"development"' },
      bundle: true,
      format: 'esm',
      write: false
    })
    script = bundle?.text ?? ''
    browser = await launchChromium(chromium)
  })
  after(() => browser.close())

  test('a commit of 500 rows renders a few times, and the last time all of them', async (t) => {
    const { page, app } = await open(t)
    await page.locator('#current').waitFor()
    await page.evaluate('window.renders = 0')
    const began = performance.now()
    for (let id = 0; id < ROWS; id++) publish(app, id, 'new')
    await page.locator(`li:has-text("new"):nth-child(${ROWS})`).waitFor()
    await page.waitForFunction(`document.querySelectorAll('li').length === ${ROWS} && [...document.querySelectorAll('li')].every((li) => li.textContent === 'new')`)

    const renders = Number(await page.evaluate('window.renders'))
    t.diagnostic(`${renders} renders, ${Math.round(performance.now() - began)} ms`)
    assert.ok(renders <= 20, `${renders} renders`)
    await page.evaluate('window.renders = 0')
    publish(app, 7, 'single')
    await page.locator('li', { hasText: 'single' }).waitFor()
    assert.equal(await page.evaluate('window.renders'), 1)
  })

  test('offline gives the connection up, online brings it back at once', async (t) => {
    const { page } = await open(t, { backoff: { min: 1, max: 60_000 } })
    await page.locator('#current').waitFor()
    await page.context().setOffline(true)
    await page.waitForFunction("window.states.includes('waiting offline')")
    await page.context().setOffline(false)
    await page.waitForFunction("window.client.state === 'open' && window.rows.status === 'current'")
  })

  test('a hidden page lets its connection go, and is current again when it is shown', async (t) => {
    const { page, app } = await open(t, { disconnectWhenHidden: 50 })
    await page.locator('#current').waitFor()
    await show(page, 'hidden')
    await page.waitForFunction("window.client.state === 'idle'")
    while (app.rohrpost.connections.size > 0) await new Promise(setImmediate)
    publish(app, 7, 'changed meanwhile')
    await show(page, 'visible')
    await page.locator('#current').waitFor()

    assert.deepEqual(await page.evaluate('window.states'), ['open opened', 'idle hidden', 'connecting wake', 'open opened'])
  })

  test('a large message over a slow line is no silence', async (t) => {
    const { page } = await open(t, { pingInterval: 1000 }, throttle)
    await page.locator('#current').waitFor()
    assert.equal(await page.evaluate("window.client.call('large', null, { timeout: 0 }).then((text) => text.length)"), 200_000)

    assert.deepEqual(await page.evaluate('window.states'), ['open opened'])
  })
})

/** A server with rows, and a page that shows them; the page's WebSocket goes through a proxy, if there is one. */
async function open (t: TestContext, options: object = {}, proxy?: (t: TestContext, port: number) => Promise<number>): Promise<{ page: Page, app: FastifyInstance }> {
  const titles = Array.from({ length: ROWS }, () => 'old')
  const { app, http } = await start(t, {
    allowedOrigins: true,
    with: (app) => {
      app.rohrpost
        .group('rows', { id: false, authorize: () => true })
        .handle('rows', () => titles.map((title, id) => ({ id, title })))
        .handle('large', () => 'x'.repeat(200_000))
      app.get('/', (_request, reply) => reply.type('text/html').send('<!doctype html><body><script type="module" src="/page.js"></script>'))
      app.get('/page.js', (_request, reply) => reply.type('text/javascript').send(script))
    }
  })
  const port = proxy === undefined ? undefined : await proxy(t, Number(new URL(http).port))
  const context = await browser.newContext()
  t.after(() => context.close())
  const page = await context.newPage()
  const errors: unknown[] = []
  page.on('pageerror', (error) => errors.push(error))
  t.after(() => assert.deepEqual(errors, []))
  const query = new URLSearchParams({ options: JSON.stringify(options), ...(port !== undefined && { url: `ws://127.0.0.1:${port}/ws/rohrpost` }) })
  await page.goto(`${http}/?${query}`)
  return { page, app }
}

function publish (app: FastifyInstance, id: number, title: string): void {
  app.rohrpost.sendToGroup('rows', { id: 1, type: 'subscription-update', data: { group: 'rows', type: 'update', object: { id, title } } })
}

async function show (page: Page, state: 'visible' | 'hidden'): Promise<void> {
  await page.evaluate(`Object.defineProperty(document, 'hidden', { value: ${state === 'hidden'}, configurable: true }); document.dispatchEvent(new Event('visibilitychange'))`)
}

/** A line that carries about 100 kB each second from the server, and as much as it gets to it. @returns its port */
async function throttle (t: TestContext, port: number): Promise<number> {
  const sockets = new Set<Socket>()
  const proxy = createServer((near) => {
    const far = connect(port, '127.0.0.1')
    for (const socket of [near, far]) {
      sockets.add(socket)
      socket.on('error', () => {}).on('close', () => {
        near.destroy()
        far.destroy()
      })
    }
    near.pipe(far)
    const carry = async () => {
      for await (const chunk of far as AsyncIterable<Buffer>) {
        for (let at = 0; at < chunk.length; at += 5000) {
          near.write(chunk.subarray(at, at + 5000))
          await delay(100)
        }
      }
    }
    carry().catch(() => {})
  })
  t.after(() => {
    proxy.close()
    for (const socket of sockets) socket.destroy()
  })
  await new Promise<void>((resolve) => { proxy.listen(0, '127.0.0.1', resolve) })
  return (proxy.address() as AddressInfo).port
}
