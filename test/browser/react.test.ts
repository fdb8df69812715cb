import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { suite, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import { buildDemo } from '../../demo/app.ts'
import { findChromium, launchChromium } from '../support/chromium.ts'
import { newFile } from '../support/demo.ts'

const chromium = await findChromium()
const path = (name: string) => fileURLToPath(new URL(`../../${name}`, import.meta.url))

suite('examples/react in the browser', { skip: chromium.skip, timeout: 120_000 }, () => {
  test('two pages follow each other, through a lost connection', async (t) => {
    const { outputFiles: [bundle] } = await build({
      entryPoints: [path('examples/react/todos.tsx')],
      alias: { 'fastify-rohrpost/client': path('lib/client/index.ts') },
      define: { 'process.env.NODE_ENV': '"production"' },
      bundle: true,
      format: 'esm',
      write: false
    })
    const app = await buildDemo(newFile(t))
    t.after(() => app.close())
    app.get('/react', (_request, reply) => reply.type('text/html').send('<!doctype html><div id="root"></div><script type="module" src="/react.js"></script>'))
    app.get('/react.js', (_request, reply) => reply.type('text/javascript').send(bundle?.text))
    const address = await app.listen({ port: 0, host: '127.0.0.1' })
    const browser = await launchChromium(chromium)
    t.after(() => browser.close())
    const errors: unknown[] = []
    const [one, two] = await Promise.all([0, 1].map(async () => {
      const page = await browser.newPage()
      page.on('pageerror', (error) => errors.push(error))
      await page.goto(`${address}/react`)
      await page.getByRole('listitem').nth(2).waitFor()
      return page
    }))
    assert.ok(one && two)

    await one.getByLabel('New to-do').fill('Learn hooks')
    await one.getByRole('button').click()
    await two.getByRole('listitem').getByText('Learn hooks').waitFor()
    await two.getByLabel('Learn hooks').click()
    await one.getByLabel('Learn hooks', { exact: true }).and(one.locator(':checked')).waitFor()

    for (const connection of app.rohrpost.connections) connection.close(1012)
    await two.getByRole('status').getByText('waiting').waitFor()
    await two.getByRole('status').getByText('open').waitFor()
    await two.getByLabel('New to-do').fill(' ')
    await two.getByRole('button').click()
    await two.getByRole('alert').getByText('Please give the to-do a title.').waitFor()
    assert.equal(await two.getByRole('listitem').count(), 4)
    assert.deepEqual(errors, [])
  })

  test('the hook of docs/client.md renders again when only the status changes', async (t) => {
    const [, hook] = /```ts\n(import \{ useSyncExternalStore \} from 'react'\n[^]*?)```/.exec(readFileSync(path('docs/client.md'), 'utf8')) ?? []
    assert.ok(hook)
    const { outputFiles: [bundle] } = await build({
      stdin: {
        contents: `
          import { createElement } from 'react'
          import { createRoot } from 'react-dom/client'
          import { RohrpostClient } from 'fastify-rohrpost/client'
          const client = new RohrpostClient(new URL('/ws/rohrpost', location.href.replace('http', 'ws')))
          ${hook.replaceAll(/^export |^import .* from 'react'$/gm, '')}
          function Todos () { return createElement('p', { role: 'status' }, useTodos().length + ' to do, ' + todos.status) }
          createRoot(document.getElementById('root')).render(createElement(Todos))
        `.replace('import { createElement }', 'import { createElement, useSyncExternalStore }'),
        resolveDir: path('.'),
        loader: 'ts'
      },
      alias: { 'fastify-rohrpost/client': path('lib/client/index.ts') },
      define: { 'process.env.NODE_ENV': '"development"' },
      bundle: true,
      format: 'esm',
      write: false
    })
    const app = await buildDemo(newFile(t))
    t.after(() => app.close())
    app.get('/hook', (_request, reply) => reply.type('text/html').send('<!doctype html><div id="root"></div><script type="module" src="/hook.js"></script>'))
    app.get('/hook.js', (_request, reply) => reply.type('text/javascript').send(bundle?.text))
    const address = await app.listen({ port: 0, host: '127.0.0.1' })
    const browser = await launchChromium(chromium)
    t.after(() => browser.close())
    const page = await browser.newPage()

    await page.goto(`${address}/hook`)
    await page.getByRole('status').getByText('3 to do, current').waitFor()
    for (const connection of app.rohrpost.connections) connection.close(1012)
    await page.getByRole('status').getByText('3 to do, stale').waitFor()
    await page.getByRole('status').getByText('3 to do, current').waitFor()
  })
})
