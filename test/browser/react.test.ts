import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import { buildDemo } from '../../demo/app.ts'
import { findChromium, launchChromium } from '../support/chromium.ts'

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
    const app = await buildDemo()
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
    await two.getByLabel('Learn hooks').check()
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
})
