/** The WebSocket route: which upgrade requests reach the connections. */
import type { FastifyInstance, FastifyReply, FastifyRequest, FastifySchema, onRequestHookHandler, preHandlerHookHandler, preValidationHookHandler, RegisterOptions } from 'fastify'
import type { WebSocket } from 'ws'
import { errors, show } from '../../errors.ts'
import { isOriginAllowed, type AllowedOrigins } from './origin.ts'
import { note } from '../report.ts'
import { upgradeErrors } from './upgrade-error.ts'

/** The options of the plugin that concern the route. */
export interface RouteOptions extends RegisterOptions {
  path: string
  allowedOrigins?: AllowedOrigins
  onRequest?: onRequestHookHandler | onRequestHookHandler[]
  preValidation?: preValidationHookHandler | preValidationHookHandler[]
  preHandler?: preHandlerHookHandler | preHandlerHookHandler[]
}

/** The connections of a server, as its route needs them. */
export interface Entrance {
  readonly draining: boolean
  accept (socket: WebSocket, request: FastifyRequest): void
}

/** Adds the route, in all forms of its path. @throws RP_ERR_INVALID_OPTION for a path that Fastify's router refuses */
export function addRoute (app: FastifyInstance, options: RouteOptions, entrance: Entrance): void {
  const { logLevel, logSerializers } = options
  if (!speaksHttp1(app)) app.log.warn("no WebSocket client can connect: the server speaks HTTP/2 alone, and WebSockets need HTTP/1.1 (option 'https: { allowHTTP1: true }')")

  const refuse = async (request: FastifyRequest, reply: FastifyReply) => {
    if (entrance.draining) return reply.code(503).send({ error: 'Service Unavailable', message: 'The server is about to restart.' })
    if (await isOriginAllowed(options.allowedOrigins, request)) return
    note(request.log, 'warn', { origin: request.headers.origin, host: request.host }, "refused an upgrade: the page's origin is not in 'allowedOrigins'")
    return reply.code(403).send({ error: 'Forbidden', message: 'This origin may not connect.' })
  }
  for (const url of formsOf(app, prefixed(options))) {
    try {
      app.route({
        method: 'GET',
        url,
        exposeHeadRoute: false,
        ...(logLevel !== undefined && { logLevel }),
        ...(logSerializers !== undefined && { logSerializers }),
        ...upgradeErrors,
        schema: { ...upgradeErrors.schema, hide: true } as FastifySchema,
        onRequest: [refuse, ...[options.onRequest ?? []].flat()],
        ...(options.preValidation && { preValidation: options.preValidation }),
        preHandler: [...[options.preHandler ?? []].flat(), release],
        handler: (_request, reply) => reply
          .code(426)
          .headers({ upgrade: 'websocket', connection: 'Upgrade' })
          .send({ error: 'Upgrade Required', message: 'This is a WebSocket endpoint.' }),
        wsHandler: (socket, request) => {
          // @fastify/websocket closes all clients that it knows at once and without a code; our stop lets running handlers answer
          app.websocketServer.clients.delete(socket)
          entrance.accept(socket, request)
        }
      })
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException
      // Fastify's own errors name the route
      if (code?.startsWith('FST_')) throw error
      throw new errors.RP_ERR_INVALID_OPTION('path', `a path that Fastify takes for a route (${message})`, show(options.path))
    }
  }
}

/** Whether clients can ask for an upgrade. WebSockets over HTTP/2 (RFC 8441) are not supported. */
function speaksHttp1 ({ initialConfig: { http2, https } }: FastifyInstance): boolean {
  return http2 !== true || (typeof https === 'object' && https.allowHTTP1 === true)
}

/** An upgraded connection needs no HTTP response any more, and the socket would keep it for as long as it lives. */
function release (request: FastifyRequest, { raw }: FastifyReply, done: () => void): void {
  if (request.ws && raw.socket !== null) raw.detachSocket(raw.socket)
  done()
}

/** The path behind `prefix`. A plugin without encapsulation has to add it itself; there is one slash between the two, as Fastify has it. */
function prefixed ({ prefix, path }: RouteOptions): string {
  if (prefix === undefined || prefix === '') return path
  const before = prefix.startsWith('/') ? prefix : `/${prefix}`
  return before.replace(/\/$/, '') + path
}

/** A path without and with a trailing slash, unless the app takes the two for one, or nothing may follow the path's end. */
function formsOf ({ initialConfig }: FastifyInstance, given: string): string[] {
  const path = given.replace(/\/+$/, '')
  if (path === '') return ['/']
  const ignoresSlash = initialConfig.ignoreTrailingSlash === true || initialConfig.routerOptions?.ignoreTrailingSlash === true
  // a wildcard or an optional parameter is the last of a path
  return ignoresSlash || /[*?]$/.test(path) ? [path] : [path, `${path}/`]
}
