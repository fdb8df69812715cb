/** The server that was recorded, with this plugin: the same handlers under the same names. */
import Fastify, { type FastifyInstance } from 'fastify'
import rohrpost, { type OutgoingMessage, type RohrpostConnection, type RohrpostMessage } from '../../lib/index.ts'

interface Cast {
  group: string
  message: unknown
  count?: number
  numbered?: boolean
}

/** Arguments of the original's utility functions, by which recordings call ours. */
interface Arguments {
  message_id?: OutgoingMessage['id']
  handler?: string
  error?: string
  data?: unknown
}

/** Starts the server. @returns the app, and the URL of its WebSocket */
export async function startServer (): Promise<{ app: FastifyInstance, url: string }> {
  const app = Fastify()
  await app.register(rohrpost)
  addAnswering(app)
  addFailing(app)
  addGroups(app)

  const address = await app.listen({ port: 0, host: '127.0.0.1' })
  return { app, url: `${address.replace('http', 'ws')}/ws/rohrpost/` }
}

function addAnswering ({ rohrpost }: FastifyInstance): void {
  rohrpost
    .handle('echo', ({ data }) => data)
    .handle('echo_request', (message) => ({ request: { ...message } }))
    .handle(['a', 'b'], () => ({ handled_by: 'ab' }))
    .handle('builder', ({ id, type, data }, connection) => {
      const { fn, kwargs } = data as { fn: keyof typeof utilities, kwargs: Arguments }
      try {
        utilities[fn](connection, kwargs)
      } catch (error) {
        connection.sendError({ id, type, error: (error as { code: string }).code })
      }
    })
}

const utilities = {
  send_message: (connection: RohrpostConnection, { message_id: id, handler: type, error, data }: Arguments) =>
    connection.send({ id, type, error, data }),
  send_success: (connection: RohrpostConnection, { message_id: id, handler: type, data }: Arguments) =>
    connection.sendSuccess({ id, type, data } as Parameters<RohrpostConnection['sendSuccess']>[0]),
  send_error: (connection: RohrpostConnection, { message_id: id, handler: type, error, data }: Arguments) =>
    connection.sendError({ id, type, error, data } as Parameters<RohrpostConnection['sendError']>[0])
}

function addFailing ({ rohrpost }: FastifyInstance): void {
  rohrpost
    .handle('fail', () => { throw new Error('not for the client') })
    .handle('send_then_fail', ({ id, type }, connection) => {
      connection.sendSuccess({ id, type })
      throw new Error('not for the client')
    })
    .handle('success_no_id', ({ type }, connection) => connection.sendSuccess({ type } as RohrpostMessage))
    .handle('send_error_with_data', ({ id, type, data }, connection) => connection.sendError({ id, type, error: 'it went wrong', data }))
    .handle('close', ({ id, type, data }, connection) => {
      const { before, code } = data as { before?: boolean, code?: number }
      if (before === true) connection.sendSuccess({ id, type })
      connection.close(code)
    })
}

function addGroups ({ rohrpost }: FastifyInstance): void {
  const authorize = (message: RohrpostMessage) => message.auth_jwt === 'hunter2'

  rohrpost
    .handle('group_join', async ({ data }, connection) => {
      await connection.join(data as string)
      return { group: data }
    })
    .handle('group_leave', ({ data }, connection) => {
      connection.leave(data as string)
      return { group: data }
    })
    .handle('broadcast', async ({ data }) => {
      const { group, message, count = 1, numbered = false } = data as Cast
      for (let n = 0; n < count; n++) await rohrpost.sendToGroup(group, numbered ? { n } : message)
      return { group }
    })
    .handle('broadcast_py', async ({ data }) => {
      const { group, case: name } = data as { group: string, case: string }
      await rohrpost.sendToGroup(group, { value: values[name] })
    })
    .group('collection', { authorize })
    .group('c', { authorize })
    .group('py', { authorize })
}

/** What comes closest to the Python values that were sent to a group. */
const values: Record<string, unknown> = {
  uuid: { toJSON: () => '3265e5a9-29bf-4fce-af93-7fc04cdb1e7b' },
  decimal_int: { toJSON: () => 3 },
  decimal_frac: { toJSON: () => 3.2 },
  set_one: new Set([5]),
  tuple: [1, 'x'],
  userdict: new Map([['a', 1]]),
  bytes: Uint8Array.of(65, 66),
  floats: [
    1.0, -0.0, 0.1, 1e15, 1e16, 1e17, 1e21, 1e22, 1e100, 1e-4, 1e-5, 1e-6, 1e-7, 123456789.123, 5e-324, Number.MAX_VALUE, 100.0, 3.2,
    0.30000000000000004
  ],
  ints: [0n, -1n, 2n ** 53n, 2n ** 53n + 1n, 2n ** 64n, -(2n ** 70n), 10n ** 40n]
}
