/** The to-do list as a React component: current in every window, through restarts of the server. */
import { useState, useSyncExternalStore, type SubmitEvent } from 'react'
import { createRoot } from 'react-dom/client'
import { RohrpostClient } from 'fastify-rohrpost/client'
import type { api } from './contract.ts'

const client = new RohrpostClient<typeof api>(new URL('/ws/rohrpost', location.href.replace('http', 'ws')))
const todos = client.live({ type: 'todos' }, { load: () => client.call('todo.list') })

/** The connection's state, for any component. */
function useConnectionState () {
  return useSyncExternalStore(
    (listener) => {
      client.on('state', listener)
      return () => { client.off('state', listener) }
    },
    () => client.state,
    () => client.state
  )
}

function Todos () {
  const state = useConnectionState()
  const list = useSyncExternalStore(todos.subscribe, todos.getSnapshot, todos.getSnapshot)
  const [title, setTitle] = useState('')
  const [problem, setProblem] = useState('')

  const attempt = (call: Promise<unknown>) => call.then(() => setProblem(''), (error) => setProblem(String(error)))

  const toggle = ({ id, done }: typeof list[number]) => attempt(client.call('todo.update', { id, done: !done }))

  const add = (event: SubmitEvent) => {
    event.preventDefault()
    attempt(client.call('todo.add', { title }).then(() => setTitle('')))
  }

  return (
    <main>
      <p role='status'>{state}</p>
      <ul>
        {list.map((todo) => (
          <li key={todo.id}>
            <label>
              <input type='checkbox' checked={todo.done} onChange={() => toggle(todo)} /> {todo.title}
            </label>
          </li>
        ))}
      </ul>
      <form onSubmit={add}>
        <input aria-label='New to-do' value={title} onChange={({ target }) => setTitle(target.value)} />
        <button>Add</button>
      </form>
      <p role='alert'>{problem}</p>
    </main>
  )
}

createRoot(document.getElementById('root') as HTMLElement).render(<Todos />)
