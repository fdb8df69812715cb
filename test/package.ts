/**
 * The published package: packed, unpacked in empty projects, and used there. Run by `npm run test:package`.
 *
 * Each project has the package, its dependencies, Fastify and the types of Node.js. `project` adds TypeBox, since the
 * types of the package refer to it; each test names the other optional peers that it installs.
 */
import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { globSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join, normalize, sep } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { findTarball } from './package/pack.ts'
import { installTools } from './package/tools.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'rohrpost-package-'))
after(() => rmSync(folder, { recursive: true }))

const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
const { path: tarball, files: contents } = findTarball()

/** Makes a project with the package and TypeBox. @param optional other optional peers */
function project (name: string, ...optional: string[]): string {
  return bareProject(name, '@sinclair/typebox', ...optional)
}

/** Makes a project with the package alone. @param optional optional peers */
function bareProject (name: string, ...optional: string[]): string {
  const dir = join(folder, name)
  const modules = join(dir, 'node_modules')
  mkdirSync(join(modules, 'fastify-rohrpost'), { recursive: true })
  execFileSync('tar', ['xzf', tarball, '--strip-components=1', '-C', join(modules, 'fastify-rohrpost')])
  const needed = [...Object.keys(manifest.dependencies), 'fastify', '@types/node', ...optional]
  for (const dependency of needed) {
    mkdirSync(dirname(join(modules, dependency)), { recursive: true })
    symlinkSync(join(root, 'node_modules', dependency), join(modules, dependency))
  }
  writeFileSync(join(dir, 'package.json'), '{ "type": "module" }')
  return dir
}

function run (cwd: string, file: string, source: string, ...[command, ...args]: string[]): string {
  writeFileSync(join(cwd, file), source)
  const { status, stdout, stderr, error } = spawnSync(command ?? process.execPath, [...args, file], { cwd, encoding: 'utf8', timeout: 60_000 })
  assert.equal(status, 0, `${error ?? ''}${stdout}${stderr}`)
  return stdout.trim()
}

function check (command: string, ...args: string[]): void {
  const { status, stdout, stderr } = spawnSync(join(root, 'node_modules/.bin', command), args, { cwd: root, encoding: 'utf8' })
  assert.equal(status, 0, stdout + stderr)
}

/**
 * Compiles a file of a project. The types of all packages are checked too (`skipLibCheck: false`).
 *
 * @param tsc the compiler, by default that of this repository
 */
function typecheck (
  dir: string, options: object = {}, tsc = join(root, 'node_modules/typescript/bin/tsc'), file = 'app.ts'
): void {
  writeFileSync(join(dir, 'tsconfig.json'), JSON.stringify({
    compilerOptions: {
      module: 'nodenext',
      target: 'es2024',
      lib: ['es2024'],
      types: ['node'],
      strict: true,
      exactOptionalPropertyTypes: true,
      skipLibCheck: false,
      noEmit: true,
      ...options
    },
    files: [file]
  }))
  const { status, stdout } = spawnSync(process.execPath, [tsc, '-p', dir], { encoding: 'utf8' })
  assert.equal(status, 0, stdout)
}

const subpaths = Object.keys(manifest.exports).filter((path) => path !== './package.json').map((path) => path.replace(/^\./, 'fastify-rohrpost'))

test('has the documents and the build at its top level, and nothing else', () => {
  const names = new Set(contents.map((path) => path.split('/')[0]))

  assert.deepEqual([...names].toSorted(), [
    'CHANGELOG.md', 'CONTRIBUTING.md', 'LICENSE', 'PROTOCOL.md', 'README.md', 'SECURITY.md', 'bench', 'dist', 'docs', 'package.json'
  ])
  assert.deepEqual(contents.filter((path) => path.startsWith('bench/')), ['bench/README.md'])
})

test('has a module, types and a source map for each file of lib/, and nothing else in dist/', () => {
  const modules = globSync('lib/**/*.{ts,tsx}', { cwd: root }).map((path) => path.split(sep).slice(1).join('/'))

  assert.deepEqual(
    contents.filter((path) => path.startsWith('dist/')).toSorted(),
    modules.flatMap((path) => ['.js', '.js.map', '.d.ts'].map((ext) => `dist/${path.replace(/\.tsx?$/, ext)}`)).toSorted()
  )
})

test('has the files of each export', () => {
  const { exports, main, types, sideEffects } = manifest
  assert.deepEqual({ types, default: main }, exports['.'])
  assert.equal(sideEffects, false)

  for (const entry of Object.values<string | Record<string, string>>(exports)) {
    for (const path of typeof entry === 'string' ? [entry] : Object.values(entry)) {
      assert.ok(contents.includes(path.replace('./', '')), path)
    }
  }
  assert.deepEqual(Object.keys(exports), ['.', ...Object.keys(manifest.typesVersions['*']).map((name) => `./${name}`), './package.json'])
})

test('has source maps that lead to the text of the sources', () => {
  const dir = project('source-maps')

  const stack = run(dir, 'app.js', `
    import { redisBroker } from 'fastify-rohrpost/brokers/redis'
    try {
      redisBroker('redis://localhost')
    } catch (error) {
      console.log(error.stack)
    }
  `, process.execPath, '--enable-source-maps')

  const source = readFileSync(join(root, 'lib/brokers/redis/index.ts'), 'utf8').split('\n')
  const line = source.findIndex((text) => text.includes('checkRedisOptions(options)')) + 1
  assert.match(stack, new RegExp(`fastify-rohrpost/lib/brokers/redis/index\\.ts:${line}:`))
  for (const path of contents.filter((path) => path.endsWith('.js.map'))) {
    const map = join(dir, 'node_modules/fastify-rohrpost', path)
    const { sources, sourcesContent } = JSON.parse(readFileSync(map, 'utf8'))
    assert.ok(readFileSync(map.replace(/\.map$/, ''), 'utf8').trimEnd().endsWith(`//# sourceMappingURL=${basename(map)}`), path)
    assert.equal(sources.length, 1)
    assert.equal(sourcesContent[0], readFileSync(join(root, normalize(join(dirname(path), sources[0]))), 'utf8'), path)
  }
})

test('has no side effects: a bundler drops an import that nothing uses', () => {
  const dir = project('side-effects')
  writeFileSync(join(dir, 'app.js'), subpaths.map((name) => `import '${name}'\n`).join(''))

  const bundled = execFileSync(join(root, 'node_modules/.bin/esbuild'), [
    'app.js', '--bundle', '--format=esm', '--platform=node', '--log-level=error', '--external:@mikro-orm/core'
  ], { cwd: dir, encoding: 'utf8' })

  assert.equal(bundled.replaceAll(/^\s*\/\/.*$/gm, '').trim(), '')
})

test('has no broken links in its documents', () => {
  const dead = contents.filter((path) => path.endsWith('.md')).flatMap((path) => {
    const prose = readFileSync(join(root, path), 'utf8').replaceAll(/^\s*```[^]*?^\s*```$/gm, '').replaceAll(/`[^`\n]*`(?!\])/g, '')
    const links = [...prose.matchAll(/\]\((?<link>[^)\s#]+)[^)]*\)/g)].map(({ groups }) => groups?.link ?? '')
    return links.filter((link) => {
      const target = normalize(join(dirname(path), link)).replace(/\/$/, '')
      return !/^[a-z]+:/.test(link) && !contents.some((path) => path === target || path.startsWith(`${target}/`))
    }).map((link) => `${path}: ${link}`)
  })

  assert.deepEqual(dead, [])
})

test('passes publint', () => check('publint', 'run', '--strict', tarball))

test('passes attw', () => check('attw', '--profile', 'esm-only', tarball))

test('can be imported by each subpath', () => {
  const dir = project('import', '@mikro-orm/core', 'ioredis')

  const names = run(dir, 'all.js', `
    for (const path of ${JSON.stringify(subpaths)}) console.log(path, Object.keys(await import(path)).length > 0)
  `)

  assert.deepEqual(names.split('\n'), subpaths.map((path) => `${path} true`))
})

test('can be required, which returns the plugin', () => {
  const dir = project('require')

  const output = run(dir, 'app.cjs', `
    const rohrpost = require('fastify-rohrpost')
    const { memoryBroker } = rohrpost
    const app = require('fastify')()
    app.register(rohrpost, { path: '/ws', broker: memoryBroker() })
    app.ready(() => {
      console.log(typeof app.rohrpost.handle, rohrpost.default === rohrpost, rohrpost.rohrpost === rohrpost)
      console.log(Object.keys(require('fastify-rohrpost/protocol')).includes('envelopes'))
      app.close()
    })
  `)

  assert.equal(output, 'function true true\ntrue')
})

test('has client types that need the DOM and no types of Node.js', () => {
  const dir = project('browser')
  writeFileSync(join(dir, 'page.ts'), `
    import RohrpostClient, { type RohrpostError } from 'fastify-rohrpost/client'

    const client = new RohrpostClient(new URL('/ws/rohrpost', location.href), { token: async () => (await fetch('/token')).text(), WebSocket })
    const todos = client.live({ type: 'todos' }, { load: () => client.call('todo.list') })
    todos.subscribe((objects) => { document.title = String(objects.length) })
    client.call('todo.add').catch((error: RohrpostError) => { document.title = String(error.code) })
    // @ts-expect-error -- options are checked
    export const wrong = new RohrpostClient('ws://localhost', { pingInterval: 'often' })
  `)
  writeFileSync(join(dir, 'tsconfig.json'), JSON.stringify({
    compilerOptions: { module: 'esnext', moduleResolution: 'bundler', target: 'es2022', lib: ['es2022', 'dom', 'dom.iterable'], types: [], strict: true, exactOptionalPropertyTypes: true, noEmit: true },
    files: ['page.ts']
  }))
  check('tsc', '-p', dir)
})

test('has types of `notify` in the subpath of MikroORM', () => {
  const dir = project('mikro-orm', '@mikro-orm/core')
  writeFileSync(join(dir, 'app.ts'), `
    import { defineEntity, p, type MikroORM } from '@mikro-orm/core'
    import Fastify from 'fastify'
    import rohrpost from 'fastify-rohrpost'
    import { notifyOnChange, rohrpostMikroOrm } from 'fastify-rohrpost/mikro-orm'

    const Todo = defineEntity({ name: 'Todo', properties: { id: p.integer().primary(), title: p.string() } })
    declare const orm: MikroORM
    const app = Fastify()
    await app.register(rohrpost)
    await app.register(rohrpostMikroOrm, { orm, notify: [notifyOnChange(Todo, { group: 'todo-{id}', data: ['id', 'title'] })] })
    await app.rohrpost.notify(Todo, 5, 'update', { updatedFields: ['title'] })
    // @ts-expect-error -- there is no such property
    await app.rohrpost.notify(Todo, 5, 'update', { updatedFields: ['name'] })
  `)
  // MikroORM's own types do not compile with it
  typecheck(dir, { exactOptionalPropertyTypes: false })
})

/** An app that uses the subpaths without optional peers other than TypeBox. */
const APP = `
  import Fastify from 'fastify'
  import rohrpost, { memoryBroker, type RohrpostConnection, type RohrpostOptions } from 'fastify-rohrpost'
  import { redisBroker, type RedisClient } from 'fastify-rohrpost/brokers/redis'
  import { RohrpostClient } from 'fastify-rohrpost/client'
  import { CloseCode, contract, envelopes } from 'fastify-rohrpost/protocol'
  import { TestClient } from 'fastify-rohrpost/testing'
  import { Type } from '@sinclair/typebox'

  export const api = contract({ calls: { add: { data: Type.Object({ a: Type.Number() }), reply: Type.String() } } })
  declare const client: RedisClient
  const options: RohrpostOptions = {
    path: '/ws',
    broker: process.env.REDIS ? redisBroker({ client }) : memoryBroker(),
    onConnect: (connection: RohrpostConnection) => connection.join('all')
  }
  const app = Fastify()
  app.register(rohrpost, options)
  app.rohrpost.implement(api, { calls: { add: ({ data }) => data.a.toFixed(CloseCode.NORMAL) } })
  const text: Promise<string> = new RohrpostClient<typeof api>('ws://localhost').call('add', { a: 1 })
  // @ts-expect-error -- calls are typed by the contract
  new RohrpostClient<typeof api>('ws://localhost').call('add', { a: '1' })
  // @ts-expect-error -- a handler needs a type
  app.rohrpost.handle(5, () => 5)
  // @ts-expect-error -- an option that may be left out can't be undefined with exactOptionalPropertyTypes
  export const wrong: RohrpostOptions = { path: undefined }
  export { envelopes, TestClient, text }
`

for (const [module, moduleResolution] of [
  ['node16', 'node16'], ['nodenext', 'nodenext'], ['esnext', 'bundler'], ['preserve', 'bundler']
] as const) {
  // installs TypeBox
  test(`has types for module ${module} with moduleResolution ${moduleResolution}`, () => {
    const dir = project(`types-${module}`)
    writeFileSync(join(dir, 'app.ts'), APP)

    typecheck(dir, { module, moduleResolution })
  })
}

// installs TypeBox
test('is required by TypeScript that compiles to CommonJS', () => {
  const dir = project('types-commonjs')
  writeFileSync(join(dir, 'package.json'), '{}')
  writeFileSync(join(dir, 'app.ts'), `
    import { memoryBroker, type RohrpostConnection } from 'fastify-rohrpost'
    import { ErrorCode } from 'fastify-rohrpost/protocol'
    import rohrpost = require('fastify-rohrpost')
    import Fastify = require('fastify')

    const app = Fastify()
    app.register(rohrpost, { path: '/ws', broker: memoryBroker(), onConnect: (connection: RohrpostConnection) => connection.join('all') })
    // @ts-expect-error -- options are typed
    export const wrong = () => app.register(rohrpost, { path: 5 })
    app.ready().then(() => { console.log(typeof app.rohrpost.handle, ErrorCode.INTERNAL) })
  `)

  typecheck(dir, { noEmit: false })
  assert.match(readFileSync(join(dir, 'app.js'), 'utf8'), /require\(['"]fastify-rohrpost['"]\)/)
  assert.equal(run(dir, 'start.cjs', "require('./app.js')"), 'function internal')
})

// installs TypeBox and MikroORM
test('has types for exactOptionalPropertyTypes with MikroORM, whose own types need skipLibCheck then', () => {
  const dir = project('types-mikro-orm', '@mikro-orm/core')
  writeFileSync(join(dir, 'app.ts'), `
    import { defineEntity, p, type MikroORM } from '@mikro-orm/core'
    import { notifyOnChange, type RohrpostMikroOrmOptions } from 'fastify-rohrpost/mikro-orm'

    const Todo = defineEntity({ name: 'Todo', properties: { id: p.integer().primary(), title: p.string() } })
    export const options = (orm: MikroORM): RohrpostMikroOrmOptions => ({ orm, notify: [notifyOnChange(Todo)] })
  `)

  typecheck(dir, { skipLibCheck: true })
})

test('has types of the Redis broker and the testing tools that accept ioredis, and refuse its Cluster', () => {
  const dir = project('redis', 'ioredis')
  writeFileSync(join(dir, 'app.ts'), `
    import Fastify from 'fastify'
    import rohrpost from 'fastify-rohrpost'
    import { redisBroker } from 'fastify-rohrpost/brokers/redis'
    import { brokerSuite, TestClient } from 'fastify-rohrpost/testing'
    import { Cluster, Redis } from 'ioredis'
    import { test } from 'node:test'

    const app = Fastify()
    await app.register(rohrpost, { broker: redisBroker({ client: new Redis(), history: { size: 10, ttl: 1000 } }) })
    brokerSuite({ test, open: async (receiver) => { const broker = redisBroker({ client: new Redis() }); await broker.open(receiver); return broker } })
    const client = await TestClient.connect('ws://localhost:3000/ws/rohrpost')
    client.call('add').then(({ data }) => data)
    // @ts-expect-error -- a cluster is refused
    redisBroker({ client: new Cluster([]) })
  `)
  typecheck(dir)
})

test('imports no ioredis', () => {
  const dir = project('without-ioredis')

  assert.equal(run(dir, 'app.js', `
    import { redisBroker } from 'fastify-rohrpost/brokers/redis'
    import { brokerSuite } from 'fastify-rohrpost/testing'
    console.log(typeof redisBroker, typeof brokerSuite)
  `), 'function function')
})

test('works, types included, with TypeBox as the only optional peer', () => {
  const dir = project('plain')

  run(dir, 'app.js', `
    import Fastify from 'fastify'
    import rohrpost from 'fastify-rohrpost'
    import { ErrorCode } from 'fastify-rohrpost/protocol'
    const app = Fastify()
    await app.register(rohrpost)
    await app.close()
    console.log(ErrorCode.INTERNAL)
  `)
  writeFileSync(join(dir, 'app.ts'), `
    import Fastify from 'fastify'
    import rohrpost, { memoryBroker, type RohrpostConnection } from 'fastify-rohrpost'
    import { CloseCode, envelopes } from 'fastify-rohrpost/protocol'
    import { Type } from '@sinclair/typebox'

    const app = Fastify()
    await app.register(rohrpost, { path: '/ws', broker: memoryBroker(), onConnect: (connection: RohrpostConnection) => connection.join('all') })
    app.rohrpost.handle('add', { data: Type.Object({ a: Type.Number() }) }, ({ data }) => data.a.toFixed(CloseCode.NORMAL))
    // @ts-expect-error -- a handler needs a type: the decorator is typed, not any
    app.rohrpost.handle(5, () => 5)
    export { envelopes }
  `)
  typecheck(dir)
})

test('works without TypeBox, except for schemas', () => {
  const dir = bareProject('without-typebox')

  const output = run(dir, 'app.js', `
    import Fastify from 'fastify'
    import rohrpost from 'fastify-rohrpost'
    import 'fastify-rohrpost/client'
    import 'fastify-rohrpost/brokers/redis'
    import { TestClient } from 'fastify-rohrpost/testing'
    const app = Fastify()
    await app.register(rohrpost)
    app.rohrpost.handle('hello', ({ data }) => 'hello ' + data).group('todo', { authorize: () => true }).group('news', { id: false, authorize: () => true })
    const client = await TestClient.connect((await app.listen({ port: 0 })).replace('http', 'ws') + '/ws/rohrpost')
    console.log((await client.call('hello', 'world')).data)
    console.log((await client.call('subscribe', { type: 'todo', id: 5 })).data.group)
    console.log((await client.call('subscribe', { type: 5 })).error)
    for (const use of [
      () => app.rohrpost.handle('add', { data: { [Symbol.for('TypeBox.Kind')]: 'String', type: 'string' } }, () => {}),
      () => app.rohrpost.schemas,
      () => app.rohrpost.handle('add', { data: { type: 'string' } }, () => {})
    ]) {
      try {
        use()
      } catch (error) {
        console.log(error.code, error.message.includes('npm install @sinclair/typebox@0.34'))
      }
    }
    client.socket.close()
    await app.close()
  `)

  assert.deepEqual(output.split('\n'), [
    'hello world', 'todo-5', "Invalid data: Expected string at '/type'.", 'RP_ERR_TYPEBOX_MISSING true', 'RP_ERR_TYPEBOX_MISSING true', 'RP_ERR_INVALID_SCHEMA true'
  ])
  const required = run(dir, 'app.cjs', "require('fastify')().register(require('fastify-rohrpost')).ready().then((app) => { console.log(typeof app.rohrpost.handle); return app.close() })")
  assert.equal(required, 'function')
})

test('has types for projects that compile to CommonJS with `moduleResolution: node10`', () => {
  const dir = project('node10', '@mikro-orm/core', 'ioredis')
  writeFileSync(join(dir, 'package.json'), '{}')
  writeFileSync(join(dir, 'app.ts'), `
    import Fastify from 'fastify'
    import rohrpost, { type RohrpostConnection } from 'fastify-rohrpost'
    ${subpaths.map((name, index) => `import * as m${index} from '${name}'; export { m${index} }`).join('\n')}

    const app = Fastify()
    app.register(rohrpost, { path: '/ws', onConnect: (connection: RohrpostConnection) => connection.join('all') })
    // @ts-expect-error -- the plugin is typed, not any
    app.register(rohrpost, { path: 5 })
    // @ts-expect-error -- so are the subpaths
    new m${subpaths.indexOf('fastify-rohrpost/client')}.RohrpostClient()
  `)

  typecheck(dir, {
    module: 'commonjs', moduleResolution: 'node10', ignoreDeprecations: '6.0', esModuleInterop: true, skipLibCheck: true, exactOptionalPropertyTypes: false
  })
})

const tools = installTools()

test('has types for the oldest TypeScript that the README names', { skip: tools.skip }, () => {
  const version = /TypeScript (?<oldest>\d\.\d) or later/.exec(readFileSync(join(root, 'README.md'), 'utf8'))?.groups?.oldest
  const tsc = tools.path('typescript/bin/tsc')
  assert.match(execFileSync(process.execPath, [tsc, '--version'], { encoding: 'utf8' }), new RegExp(`^Version ${version}\\.`))
  const dir = project('oldest-typescript', '@mikro-orm/core', 'ioredis')
  writeFileSync(join(dir, 'app.ts'), `
    import { Type } from '@sinclair/typebox'
    import Fastify from 'fastify'
    import rohrpost from 'fastify-rohrpost'
    import { RohrpostClient } from 'fastify-rohrpost/client'
    import { contract } from 'fastify-rohrpost/protocol'
    import { TestClient } from 'fastify-rohrpost/testing'
    ${subpaths.map((name, index) => `import * as m${index} from '${name}'; export { m${index} }`).join('\n')}

    const api = contract({ calls: { add: { data: Type.Object({ a: Type.Number() }), reply: Type.String() } } })
    const app = Fastify()
    await app.register(rohrpost)
    app.rohrpost.implement(api, { calls: { add: ({ data }) => data.a.toFixed() } })
    const text: string = await new RohrpostClient<typeof api>('ws://localhost').call('add', { a: 1 })
    const { data } = await (await TestClient.connect<typeof api>('ws://localhost')).call('add', { a: 1 })
    export const texts: string[] = [text, data]
    // @ts-expect-error -- typed, not any
    await new RohrpostClient<typeof api>('ws://localhost').call('add', { a: '1' })
  `)

  typecheck(dir, { target: 'es2022', lib: ['es2023'], skipLibCheck: true }, tsc)
})

test('runs in Jest with its default configuration and the documented flag', { skip: tools.skip }, () => {
  const dir = project('jest')
  symlinkSync(tools.path('@jest'), join(dir, 'node_modules/@jest'))
  const [, code] = /<!-- jest -->\n```js\n(?<code>[^]*?)```/.exec(readFileSync(join(root, 'docs/testing.md'), 'utf8')) ?? []
  writeFileSync(join(dir, 'greet.test.js'), code ?? assert.fail('the recipe is in docs/testing.md'))
  writeFileSync(join(dir, 'required.test.cjs'), `
    test('is required', () => expect(typeof require('fastify-rohrpost/testing').createTestApp).toBe('function'))
  `)

  const { status, stderr } = spawnSync(process.execPath, [tools.path('jest/bin/jest.js'), '--testMatch', '**/*.test.?(c)js'], {
    cwd: dir, encoding: 'utf8', env: { ...process.env, NODE_OPTIONS: '--experimental-vm-modules' }
  })

  assert.equal(status, 0, stderr)
  assert.match(stderr, /Tests: +2 passed, 2 total/)
})

/** A program that uses the package: a server, a client with a call and a group, and the stop. */
const WORK = `
  import Fastify from 'fastify'
  import rohrpost from 'fastify-rohrpost'
  import { RohrpostClient } from 'fastify-rohrpost/client'

  const app = Fastify()
  await app.register(rohrpost)
  app.rohrpost.handle('greet', ({ data }) => 'hello ' + data).group('todo', { authorize: () => true })
  const address = await app.listen({ port: 0, host: '127.0.0.1' })
  const client = new RohrpostClient(address.replace('http', 'ws') + '/ws/rohrpost')
  await client.ready()
  const changes = client.changes({ type: 'todo', id: 5 })
  await client.subscribe({ type: 'todo', id: 5 })
  await app.rohrpost.sendToGroup('todo-5', { type: 'subscription-update', data: { group: 'todo-5', type: 'delete', object: { id: 5 } } })
  const { value } = await changes.next()
  console.log(await client.call('greet', 'you'), value.type)
  client.close()
  await app.close()
  process.exit()
`

for (const [name, args] of [['bun', ['run']], ['deno', ['run', '--allow-all', '--node-modules-dir=manual']]] as const) {
  const binary = tools.binary(name)

  test(`runs on ${name}, server and client`, { skip: binary.skip }, () => {
    assert.equal(run(project(name), 'app.js', WORK, binary.path, ...args), 'hello you delete')
  })
}
