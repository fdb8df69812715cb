/** Type stripping does not support decorators: the fixture is compiled, once for each of the two modes. */
import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import ts from 'typescript'
import { NotifyOnCreate, NotifyOnDelete, NotifyOnUpdate, notifyOnChange } from '../../lib/mikro-orm/index.ts'
import { listen, openSqlite } from './support.ts'

const fixture = (mode: 'es' | 'legacy') => `
import { Entity, PrimaryKey, Property } from '@mikro-orm/decorators/${mode}'
import { NotifyOnChange, NotifyOnCreate, NotifyOnDelete, NotifyOnUpdate } from '../../../lib/mikro-orm/index.ts'

@NotifyOnDelete<Base>({ group: 'gone-{id}' })
export abstract class Base {
  @PrimaryKey({ type: 'integer' })
  id!: number
}

@NotifyOnCreate({ group: 'new' })
@NotifyOnUpdate<Todo>({ data: ['id', 'title'] })
@Entity()
export class Todo extends Base {
  @Property({ type: 'string' })
  title!: string
}

@Entity()
@NotifyOnChange()
export class Note extends Base {
  @Property({ type: 'string' })
  title!: string
}
`

for (const mode of ['es', 'legacy'] as const) {
  test(`decorators in ${mode} mode declare rules, also for child classes`, async (t) => {
    const folder = await mkdtemp(join(import.meta.dirname, `${mode}-`))
    t.after(() => rm(folder, { recursive: true }))
    const { outputText } = ts.transpileModule(fixture(mode), {
      compilerOptions: {
        module: ts.ModuleKind.ESNext,
        target: ts.ScriptTarget.ES2022,
        experimentalDecorators: mode === 'legacy',
        useDefineForClassFields: false
      }
    })
    await writeFile(join(folder, 'entities.js'), outputText)
    const { Todo, Note } = await import(join(folder, 'entities.js'))
    const orm = await openSqlite(t, [Todo, Note])
    const { take } = listen(orm, [notifyOnChange(Todo, { group: 'listed' })])
    const em = orm.em.fork()

    const todo = em.create<{ title: string }>(Todo, { title: 'one' })
    const note = em.create<{ title: string }>(Note, { title: 'note' })
    await em.flush()
    Object.assign(todo, { title: 'two' })
    await em.flush()
    em.remove(todo).remove(note)
    await em.flush()

    assert.deepEqual(new Set(take()), new Set([
      'create listed {"id":1}',
      'create new {"id":1}',
      'create note-1 {"id":1}',
      'update listed {"id":1,"updated_fields":["title"]}',
      'update todo-1 {"id":1,"title":"two","updated_fields":["title"]}',
      'delete listed {"id":1}',
      'delete gone-1 {"id":1}',
      'delete note-1 {"id":1}'
    ]))
  })
}

test('decorators reject invalid options', () => {
  class Todo {}

  for (const decorator of [NotifyOnCreate, NotifyOnUpdate, NotifyOnDelete]) {
    assert.throws(() => decorator({ alwaysSend: 'no' } as object)(Todo), { code: 'RP_ERR_INVALID_OPTION' })
  }
})
