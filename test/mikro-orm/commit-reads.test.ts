/** Rows that PostgreSQL reads in the message of the COMMIT. */
import assert from 'node:assert/strict'
import test, { suite, type TestContext } from 'node:test'
import { defineEntity, p, type EntitySchema } from '@mikro-orm/core'
import { PostgreSqlDriver } from '@mikro-orm/postgresql'
import { MikroORM, type Options } from '@mikro-orm/sql'
import { ChangeSubscriber, notifyOnChange } from '../../lib/mikro-orm/index.ts'
import { openLine } from '../support/line.ts'
import { listen, openServer, replaceCommits } from './support.ts'

const Todo = defineEntity({
  name: 'Todo',
  properties: { id: p.integer().primary(), title: p.string(), list: p.string().default('a'), note: p.string().nullable() }
})
const byKey = notifyOnChange(Todo, { group: 'todo-{id}', data: ['title', 'note'] })
const byList = notifyOnChange(Todo, { group: 'list-{list}', data: ['title', 'note'] })

async function open (t: TestContext, entities: NonNullable<Options['entities']> = [Todo], options: Partial<Options> = {}) {
  return openServer(t, 'postgresql', entities, options)
}

/** Records the messages that go to the server, each as its statements. */
async function recordMessages (t: TestContext, orm: MikroORM) {
  const connection = orm.em.getConnection() as unknown as { getNativeClient (): Promise<{ Client: { prototype: { query: (...args: unknown[]) => unknown } } }> }
  const { Client: { prototype } } = await connection.getNativeClient()
  const messages: string[] = []
  const { query } = prototype
  t.mock.method(prototype, 'query', function (this: unknown, ...args: unknown[]) {
    const text = String((args[0] as { text?: string }).text ?? args[0])
    messages.push(text.split(';').map((statement) => statement.split(' ')[0]).join(';'))
    return query.apply(this, args)
  })
  return () => messages.splice(0)
}

suite('the message of the COMMIT', () => {
  test('reads rows that are new, or whose groups depend on the key', async (t) => {
    const orm = await open(t)
    if (orm === undefined) return
    const { take } = listen(orm, [byKey])
    const messages = await recordMessages(t, orm)
    const em = orm.em.fork()

    const todo = em.create(Todo, { title: 'one' })
    await em.flush()
    assert.deepEqual(messages(), ['begin', 'insert', 'select;commit'])
    todo.title = 'two'
    await em.flush()
    assert.deepEqual(messages(), ['begin', 'update', 'select;commit'])
    for (let i = 0; i < 3; i++) em.create(Todo, { id: 10 + i, title: 'more', note: String(i) })
    await em.flush()
    assert.deepEqual(messages(), ['begin', 'insert', 'select;commit'])

    assert.deepEqual(take(), [
      'create todo-1 {"title":"one","note":null}',
      'update todo-1 {"title":"two","note":null,"updated_fields":["title"]}',
      ...[0, 1, 2].map((i) => `create todo-1${i} {"title":"more","note":"${i}"}`)
    ])
  })

  test('reads what a trigger has written, from each table', async (t) => {
    const Other = defineEntity({ name: 'Other', properties: { id: p.integer().primary(), title: p.string() } })
    const orm = await open(t, [Todo, Other])
    if (orm === undefined) return
    await orm.em.getConnection().execute(`
      create function shout () returns trigger language plpgsql as $$ begin new.title := upper(new.title); return new; end $$;
      create trigger shout before insert on todo for each row execute function shout();
      create trigger shout before insert on other for each row execute function shout()`)
    const { take } = listen(orm, [byList, notifyOnChange(Other, { data: ['title'] })])
    const messages = await recordMessages(t, orm)

    const em = orm.em.fork()
    em.create(Todo, { title: 'one' })
    em.create(Other, { title: 'two' })
    await em.flush()

    assert.deepEqual(messages().at(-1), 'select;select;commit')
    assert.deepEqual(take().sort(), ['create list-a {"title":"ONE","note":null}', 'create other-1 {"title":"TWO"}'])
  })

  test('goes without reads if a row may have had another group, or was deleted', async (t) => {
    const orm = await open(t)
    if (orm === undefined) return
    const { take } = listen(orm, [byList])
    const em = orm.em.fork()
    const todo = em.create(Todo, { title: 'one' })
    await em.flush()
    const messages = await recordMessages(t, orm)

    todo.title = 'two'
    await em.flush()
    em.remove(todo)
    await em.flush()

    assert.deepEqual(messages(), ['begin', 'update', 'select', 'commit', 'begin', 'delete', 'select', 'commit'])
    assert.deepEqual(take().map((line) => line.split(' {')[0]), ['create list-a', 'update list-a', 'delete list-a'])
  })

  test('reads the new rows of a transaction with deletes that only need their key, and goes without reads after an upsert', async (t) => {
    const orm = await open(t)
    if (orm === undefined) return
    const { take } = listen(orm, [notifyOnChange(Todo, { data: ['id'] })])
    const em = orm.em.fork()
    const todo = em.create(Todo, { title: 'one' })
    await em.flush()
    const messages = await recordMessages(t, orm)

    em.remove(todo)
    em.create(Todo, { title: 'two' })
    await em.flush()
    assert.equal(messages().at(-1), 'select;commit')
    await em.transactional(async (em) => {
      await em.upsert(Todo, { id: 3, title: 'three' })
      em.create(Todo, { id: 4, title: 'four' })
    })

    assert.equal(messages().at(-1), 'commit')
    assert.deepEqual(take(), [
      'create todo-1 {"id":1}',
      'create todo-2 {"id":2}', 'delete todo-1 {"id":1}',
      'update todo-3 {"id":3}', 'create todo-4 {"id":4}'
    ])
  })

  for (const [reason, options, rule, messages, notification] of [
    ['the data are a function of the entity', {}, notifyOnChange(Todo, { data: (todo) => todo.title }), ['begin', 'insert', 'select', 'commit'], 'create todo-1 "one"'],
    ['rules read nothing', {}, notifyOnChange(Todo, { data: ['title'], readBack: false }), ['begin', 'insert', 'commit'], 'create todo-1 {"title":"one"}'],
    ['`onQuery` of the application changes them', { onQuery: (sql: string) => `${sql} -- app` }, byKey, ['begin', 'insert', 'select', 'commit'], 'create todo-1 {"title":"one","note":null}']
  ] as const) {
    test(`goes without reads if ${reason}`, async (t) => {
      const orm = await open(t, [Todo], options)
      if (orm === undefined) return
      const { take } = listen(orm, [rule])
      const sent = await recordMessages(t, orm)

      const em = orm.em.fork()
      em.create(Todo, { title: 'one' })
      await em.flush()

      assert.deepEqual(sent(), messages)
      assert.deepEqual(take(), [notification])
    })
  }

  test('carries the stamp behind the reads', async (t) => {
    const orm = await open(t)
    if (orm === undefined) return
    const stamps: unknown[] = []
    const subscriber = new ChangeSubscriber()
    subscriber.connect({ orm, notify: [byKey], usesStamps: true, publish: (_group, _payload, options) => { stamps.push(options?.stamps?.[0]?.value) }, log: { error () {}, warn () {} } })
    t.after(() => subscriber.disconnect())
    const messages = await recordMessages(t, orm)

    const em = orm.em.fork()
    em.create(Todo, { title: 'one' })
    await em.flush()

    assert.deepEqual(messages().at(-1), 'select;select;commit')
    assert.match(String(stamps[0]), /^\d{20}$/)
  })

  test('is not used with a client of the application, which reads before the COMMIT', async (t) => {
    const first = await open(t)
    if (first === undefined) return
    const orm = await openServer(t, 'postgresql', [Todo], { driverOptions: (() => first.em.getConnection().getClient()) as never }, first.config.get('dbName'))
    assert(orm !== undefined)
    const { take } = listen(orm, [byKey])
    const messages = await recordMessages(t, first)

    const em = orm.em.fork()
    em.create(Todo, { title: 'one' })
    await em.flush()

    assert.deepEqual(messages().slice(-5), ['begin', 'insert', 'select', 'select', 'commit'])
    assert.deepEqual(take(), ['create todo-1 {"title":"one","note":null}'])
  })

  test('has its reads in the query log', async (t) => {
    const orm = await open(t)
    if (orm === undefined) return
    listen(orm, [byKey])
    const queries: string[] = []
    t.mock.method(orm.config.getLogger(), 'logQuery', ({ query, results }: { query: string, results?: number }) => { queries.push(`${query} ${results ?? ''}`) })

    const em = orm.em.fork()
    em.create(Todo, { title: 'one' })
    await em.flush()

    assert.deepEqual(queries.filter((query) => query.startsWith('select')), ['select "id", "title", "note" from "todo" where "id" in (1) 1'])
  })
})

/** An ORM with one connection, and with the rights of a role that may change the table. */
async function openLimited (t: TestContext) {
  const owner = await open(t)
  if (owner === undefined) return
  const dbName = owner.config.get('dbName')
  const role = `${dbName}_role`
  const run = (sql: string) => owner.em.getConnection().execute(sql)
  await run(`create role ${role} login`)
  await run(`grant all on all tables in schema public to ${role}`)
  t.after(async () => {
    // its rights are gone with the database
    const admin = await MikroORM.init({ driver: PostgreSqlDriver, clientUrl: String(owner.config.get('clientUrl')), entities: [], discovery: { warnWhenNoEntities: false } })
    await admin.em.getConnection().execute(`drop role ${role}`)
    await admin.close()
  })
  const url = new URL(String(owner.config.get('clientUrl')))
  url.username = role
  const orm = await openServer(t, 'postgresql', [Todo], { clientUrl: url.href, pool: { max: 1 } }, dbName)
  assert(orm !== undefined)
  return { owner, orm, run, role }
}

suite('a read that fails in the message of the COMMIT', () => {
  for (const [reason, error, fail, mend] of [
    ['the role may not read', /permission denied/, (role) => `revoke select on todo from ${role}`, (role) => `grant select on todo to ${role}`],
    ['a column is gone', /"note" does not exist/, () => 'alter table todo drop column note', () => 'alter table todo add column note text'],
    [
      'it takes longer than statement_timeout',
      /statement timeout/,
      (role) => `
        create function slow () returns boolean language plpgsql as $$ begin perform pg_sleep(10); return true; end $$;
        create policy reading on todo for select using (slow());
        create policy writing on todo for insert with check (true);
        alter role ${role} set statement_timeout = 100;
        alter table todo enable row level security`,
      () => 'alter table todo disable row level security'
    ]
  ] satisfies Array<[string, RegExp, (role: string) => string, (role: string) => string]>) {
    test(`rejects the flush, and nothing is committed: ${reason}`, async (t) => {
      const limited = await openLimited(t)
      if (limited === undefined) return
      const { owner, orm, run, role } = limited
      await run(fail(role))
      const { take, logged } = listen(orm, [byKey])
      const messages = await recordMessages(t, orm)

      const em = orm.em.fork()
      em.create(Todo, { id: 1, title: 'one', list: 'a' })
      await assert.rejects(em.flush(), error)
      assert.deepEqual(messages().filter((message) => !message.startsWith('set')), ['begin', 'insert', 'select;commit', 'rollback'])
      await run(mend(role))
      const other = orm.em.fork()
      other.create(Todo, { id: 2, title: 'two', list: 'a' })
      await other.flush()

      assert.deepEqual((await owner.em.fork().find(Todo, {})).map(({ title }) => title), ['two'])
      assert.deepEqual(take(), ['create todo-2 {"title":"two","note":null}'])
      assert.deepEqual(logged, [])
    })
  }

  test('leaves a transaction of the application to its ROLLBACK', async (t) => {
    const limited = await openLimited(t)
    if (limited === undefined) return
    const { owner, orm, run, role } = limited
    await run(`revoke select on todo from ${role}`)
    const { take } = listen(orm, [byKey])

    const em = orm.em.fork()
    await em.begin()
    em.create(Todo, { id: 1, title: 'one', list: 'a' })
    await em.flush()
    await assert.rejects(em.commit(), /permission denied/)
    await em.rollback()

    assert.equal(await owner.em.fork().count(Todo), 0)
    assert.deepEqual(take(), [])
  })
})

suite('a key', () => {
  const thing = (properties: object) => {
    return defineEntity({ name: 'Thing', properties: { ...properties, title: p.string() } }) as unknown as EntitySchema<{ id: unknown, title: string }>
  }
  const cases: Array<[string, EntitySchema<{ id: unknown, title: string }>, object[], string[], boolean]> = [
    [
      'text with quotes and backslashes',
      thing({ id: p.string().primary() }),
      [{ id: "o'\\'; drop table thing; --", title: 'x' }],
      ['create things {"id":"o\'\\\\\'; drop table thing; --","title":"x"}'],
      true
    ],
    [
      'several texts',
      thing({ id: p.string().primary() }),
      [{ id: '\\', title: 'x' }, { id: "'", title: '?' }],
      ['create things {"id":"\'","title":"?"}', 'create things {"id":"\\\\","title":"x"}'],
      false
    ],
    [
      'text that the database has in another form',
      thing({ id: p.string().columnType('uuid').primary() }),
      [{ id: 'ABCDEF00-0000-4000-8000-000000000001', title: 'x' }],
      ['create things {"id":"abcdef00-0000-4000-8000-000000000001","title":"x"}'],
      true
    ],
    [
      'several texts that the database has in another form',
      thing({ id: p.string().columnType('uuid').primary() }),
      [1, 2].map((i) => ({ id: `ABCDEF00-0000-4000-8000-00000000000${i}`, title: 'x' })),
      [1, 2].map((i) => `create things {"id":"abcdef00-0000-4000-8000-00000000000${i}","title":"x"}`),
      false
    ],
    [
      'a UUID',
      thing({ id: p.uuid().primary() }),
      [{ id: 'abcdef00-0000-4000-8000-000000000001', title: 'x' }],
      ['create things {"id":"abcdef00-0000-4000-8000-000000000001","title":"x"}'],
      false
    ],
    [
      'a bigint',
      thing({ id: p.bigint().primary() }),
      [{ id: 9007199254740993n, title: 'x' }],
      ['create things {"id":"9007199254740993","title":"x"}'],
      false
    ],
    [
      'a numeric',
      thing({ id: p.integer().columnType('numeric(10,2)').primary() }),
      [{ id: 1, title: 'x' }, { id: 2, title: 'y' }],
      ['create things {"id":"1.00","title":"x"}', 'create things {"id":"2.00","title":"y"}'],
      false
    ],
    [
      'a composite key',
      thing({ id: p.string().primary(), part: p.integer().primary() }),
      [{ id: "a'\\", part: 1, title: 'x' }],
      ['create things {"id":"a\'\\\\","title":"x"}'],
      false
    ]
  ]
  for (const [name, Thing, rows, expected, isJoined] of cases) {
    for (const conforming of ['on', 'off']) {
      test(`${name}, with standard_conforming_strings ${conforming}`, async (t) => {
        const orm = await open(t, [Thing], { driverOptions: { options: `-c standard_conforming_strings=${conforming}` } })
        if (orm === undefined) return
        const { take } = listen(orm, [notifyOnChange(Thing, { group: 'things', data: ['id', 'title'] })])
        const messages = await recordMessages(t, orm)

        const em = orm.em.fork()
        for (const row of rows) em.create(Thing, row as never)
        await em.flush()

        assert.deepEqual(take().sort(), expected)
        assert.equal(messages().at(-1)?.startsWith('select'), isJoined)
      })
    }
  }
})

for (const isReadable of [true, false]) {
  test(`a lost answer leads to a resync of the group of the ORM${isReadable ? ', and of the group that the database has put the row into' : ' if the row can\'t be read'}`, async (t) => {
    const first = await open(t)
    if (first === undefined) return
    await first.em.getConnection().execute(`
      create function move () returns trigger language plpgsql as $$ begin new.list := 'moved'; return new; end $$;
      create trigger move before insert on todo for each row execute function move()`)
    const url = new URL(String(first.config.get('clientUrl')))
    const line = await openLine(t, Number(url.port || 5432))
    url.port = String(line.port)
    const losing = replaceCommits((commit) => {
      line.losesAnswers = true
      return commit()
    })
    const orm = await openServer(t, 'postgresql', [Todo], { clientUrl: url.href, subscribers: [losing] }, first.config.get('dbName'))
    assert(orm !== undefined)
    const told: string[] = []
    const warnings: string[] = []
    const subscriber = new ChangeSubscriber()
    subscriber.connect({
      orm,
      notify: [byList],
      publish: (group, payload) => { told.push(`${JSON.parse(payload).data.type} ${group}`) },
      log: { error () {}, warn: (_, message) => { warnings.push(message) } }
    })
    t.after(() => subscriber.disconnect())

    line.lost().then(() => {
      line.losesAnswers = false
      if (!isReadable) t.mock.method(Object.getPrototypeOf(orm.em.getConnection()), 'connect', () => Promise.reject(new Error('too many connections')))
      line.cut()
    })
    const em = orm.em.fork()
    em.create(Todo, { title: 'one', list: 'a' })
    await assert.rejects(em.flush())
    await subscriber.idle()

    assert.deepEqual(told, isReadable ? ['resync list-a', 'resync list-moved'] : ['resync list-a'])
    assert.deepEqual(warnings, ['the answer to a COMMIT was lost: the members of the groups concerned load again'])
    assert.equal(await first.em.fork().count(Todo, { list: 'moved' }), 1)
  })
}
