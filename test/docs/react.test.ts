import assert from 'node:assert/strict'
import { test } from 'node:test'
import { runInThisContext } from 'node:vm'
import { createElement, useSyncExternalStore } from 'react'
import { renderToString } from 'react-dom/server'
import { Live } from '../../lib/client/live.ts'
import type { Watcher } from '../../lib/client/subscribed-group.ts'
import { readDocument } from './support/markdown.ts'

/** The hook of docs/client.md, for a live collection. */
function documentedHook (todos: Live<unknown>): () => unknown[] {
  const [, call] = /return (useSyncExternalStore\(.*\))$/m.exec(readDocument('docs/client.md').text) ?? []
  assert.ok(call)
  return runInThisContext(`(useSyncExternalStore, todos) => () => ${call}`)(useSyncExternalStore, todos)
}

test('the documented hook renders on a server, with the objects that are known', async () => {
  let watcher: Watcher | undefined
  const loaded = Promise.withResolvers<unknown[]>()
  const todos = new Live({
    load: () => loaded.promise as Promise<{ id: number }[]>,
    watch (given) {
      watcher = given
      return () => {}
    },
    backoff: { min: 1, max: 1 },
    report: assert.ifError
  })
  const useTodos = documentedHook(todos as Live<unknown>)
  const render = () => renderToString(createElement(() => createElement('p', null, `${useTodos().length} to do, ${todos.status}`)))

  assert.equal(render(), '<p>0 to do, loading</p>')
  watcher?.joined?.(undefined)
  loaded.resolve([{ id: 5 }])
  await new Promise(setImmediate)
  assert.equal(render(), '<p>1 to do, current</p>')
})
