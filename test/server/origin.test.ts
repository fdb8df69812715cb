import assert from 'node:assert/strict'
import { test } from 'node:test'
import rohrpost from '../../lib/index.ts'
import { isOriginAllowed } from '../../lib/server/upgrade/origin.ts'
import { createApp, start } from '../support/server.ts'

test('checks origins against the host, a list, a function, or not at all', async () => {
  const asks = (allowed: Parameters<typeof isOriginAllowed>[0], origin: string | undefined, host = 'example.org') =>
    isOriginAllowed(allowed, { headers: { origin }, host } as Parameters<typeof isOriginAllowed>[1])
  const cases: [boolean, ...Parameters<typeof asks>][] = [
    [true, undefined, undefined],
    [true, undefined, 'https://example.org'],
    [true, undefined, 'https://example.org', 'example.org:443'],
    [true, undefined, 'http://example.org:8080', 'example.org:8080'],
    [true, undefined, 'https://EXAMPLE.org'],
    [false, undefined, 'https://example.org', 'example.org:8443'],
    [false, undefined, 'https://example.org.evil.example'],
    [false, undefined, 'null'],
    [false, undefined, 'not an origin'],
    [false, undefined, 'https://example.org', ''],
    [false, undefined, 'file://', ''],
    [true, ['https://app.example'], 'https://app.example'],
    [false, ['https://app.example'], 'https://example.org'],
    [true, ['capacitor://localhost'], 'capacitor://localhost'],
    [true, ['file://'], 'file://'],
    [false, ['capacitor://localhost'], 'ionic://localhost'],
    [true, ['https://*.example.org'], 'https://app.example.org'],
    [true, ['https://*.example.org'], 'https://eu.app_2.example.org'],
    [true, ['https://*.example.org:8443'], 'https://app.example.org:8443'],
    [false, ['https://*.example.org'], 'https://example.org'],
    [false, ['https://*.example.org'], 'https://.example.org'],
    [false, ['https://*.example.org'], 'https://a..example.org'],
    [false, ['https://*.example.org'], 'http://app.example.org'],
    [false, ['https://*.example.org'], 'https://app.example.org:8443'],
    [false, ['https://*.example.org:8443'], 'https://app.example.org'],
    [false, ['https://*.example.org'], 'https://app.example.org.evil.example'],
    [false, ['https://*.example.org'], 'https://evil-example.org'],
    [false, ['https://*.example.org'], 'https://evil.example/.example.org'],
    [false, ['https://*.example.org'], 'https://user:pass@app.example.org'],
    [false, ['https://*.example.org'], 'https://evil.example:443#.example.org'],
    [false, ['https://*.example.org'], 'null'],
    [true, (origin, { host }) => origin.endsWith(host), 'https://sub.example.org'],
    [true, async () => true, 'https://example.org'],
    [false, async () => false, 'https://example.org'],
    [false, (() => 'yes') as never, 'https://example.org'],
    [true, true, 'null']
  ]
  for (const [expected, ...args] of cases) assert.equal(await asks(...args), expected, args.join(' '))
})

test('allows the origins of mobile apps and browser extensions', async (t) => {
  for (const origin of ['capacitor://localhost', 'tauri://localhost', 'chrome-extension://abcdefghijklmnopabcdefghijklmnop', 'moz-extension://0d6b7b8e-0a1b-4c5d-8e9f-001122334455']) {
    const server = await start(t, { allowedOrigins: [origin] })

    const client = await server.connect(undefined, { origin })

    assert.equal((await client.call('ping')).type, 'pong')
    assert.equal(await server.refused(undefined, { origin: `${origin}x` }), 403)
  }
})

test('allows all subdomains with a wildcard', async (t) => {
  const server = await start(t, { allowedOrigins: ['https://*.example.org', 'http://*.localhost:5173'] })

  for (const origin of ['https://app.example.org', 'http://app.localhost:5173']) {
    assert.equal((await (await server.connect(undefined, { origin })).call('ping')).type, 'pong')
  }
  assert.equal(await server.refused(undefined, { origin: 'https://example.org' }), 403)
})

test('refuses origins that no browser sends, with a suggestion', async (t) => {
  const wrong: [unknown, RegExp][] = [
    ['https://example.org/', /no browser sends "https:\/\/example\.org\/": write 'https:\/\/example\.org'\)/],
    ['https://example.org/app?a#b', /write 'https:\/\/example\.org'\)/],
    ['https://EXAMPLE.org', /write 'https:\/\/example\.org'\)/],
    ['https://example.org:443', /write 'https:\/\/example\.org'\)/],
    ['http://example.org:80', /write 'http:\/\/example\.org'\)/],
    ['https://user@example.org', /write 'https:\/\/example\.org'\)/],
    ['https://b\u00fccher.example', /write 'https:\/\/xn--bcher-kva\.example'\)/],
    ['wss://example.org', /write 'https:\/\/example\.org'\)/],
    ['ws://example.org:8080', /write 'http:\/\/example\.org:8080'\)/],
    ['example.org', /write 'https:\/\/example\.org'\)/],
    ['localhost:5173', /write 'https:\/\/localhost:5173'\)/],
    ['capacitor://Localhost/', /write 'capacitor:\/\/localhost'\)/],
    ['file:///', /write 'file:\/\/'\)/],
    ['moz-extension://', /write scheme, host and port/],
    ['not an origin', /write scheme, host and port/],
    ['null', /write true for any origin, or a function/],
    ['*', /write true for any origin/],
    [5, /no browser sends 5: write true for any origin/],
    ['https://*', /write a full origin, or 'https:\/\/\*\.example\.org'/],
    ['https://app.*.org', /write a full origin, or/],
    ['https://*example.org', /write a full origin, or/],
    ['chrome-extension://*', /write a full origin, or/],
    ['https://*.org', /a host of at least two labels after '\*\.'/],
    ['https://*.example.org/', /write 'https:\/\/\*\.example\.org'\)/],
    ['https://*.example.org:443', /write 'https:\/\/\*\.example\.org'\)/],
    ['https://*.*.example.org', /write a full origin, or/],
    ['https://*.example.*.org', /write a full origin, or/]
  ]
  for (const [origin, message] of wrong) {
    const app = createApp()
    t.after(() => app.close())
    const options = { allowedOrigins: ['https://example.org', origin] } as object

    await assert.rejects(async () => { await app.register(rohrpost, options) }, { code: 'RP_ERR_INVALID_OPTION', message }, String(origin))
  }
})

test('suggests a list for a single origin', async (t) => {
  const app = createApp()
  t.after(() => app.close())

  await assert.rejects(async () => { await app.register(rohrpost, { allowedOrigins: 'https://example.org' as never }) }, { message: /write \['https:\/\/example\.org'\]/ })
})
