/** WebSocket route: checks upgrade requests and hands the upgraded sockets to the connections. */
import type {
  FastifyInstance,
  FastifyReply,
  FastifyRequest,
  FastifySchema,
  onRequestHookHandler,
  preHandlerHookHandler,
  preValidationHookHandler,
  RegisterOptions
} from 'fastify'
import type { WebSocket } from 'ws'
import { errors, show } from '../../errors.ts'
import { logTruncated } from '../report.ts'
import { isOriginAllowed, type AllowedOrigins } from './origin.ts'
import { upgradeErrors } from './upgrade-error.ts'

/** Options of the plugin for the route. */
export interface RouteOptions extends RegisterOptions {
  path: string
  allowedOrigins?: AllowedOrigins
  onRequest?: onRequestHookHandler | onRequestHookHandler[]
  preValidation?: preValidationHookHandler | preValidationHookHandler[]
  preHandler?: preHandlerHookHandler | preHandlerHookHandler[]
}

/** Receiver of upgraded sockets: the connections of the server. */
export interface SocketAcceptor {
  /** Whether the graceful stop has started. */
  readonly draining: boolean
  accept (socket: WebSocket, request: FastifyRequest): void
}

/**
 * Adds the route, with and without a trailing slash.
 *
 * @throws RP_ERR_INVALID_OPTION for a path that Fastify's router refuses
 */
export function addRoute (app: FastifyInstance, options: RouteOptions, acceptor: SocketAcceptor): void {
  const { logLevel, logSerializers } = options
  if (!supportsHttp1(app)) {
    app.log.warn('no WebSocket client can connect: the server only supports HTTP/2, and WebSockets need HTTP/1.1 ' +
      "(option 'https: { allowHTTP1: true }')")
  }

  const refuse = async (request: FastifyRequest, reply: FastifyReply) => {
    if (acceptor.draining) {
      return reply.code(503).send({ error: 'Service Unavailable', message: 'The server is about to restart.' })
    }
    if (await isOriginAllowed(options.allowedOrigins, request)) return
    const fields = { origin: request.headers.origin, host: request.host }
    logTruncated(request.log, 'warn', fields, "refused an upgrade: the page's origin is not in 'allowedOrigins'")
    return reply.code(403).send({ error: 'Forbidden', message: 'This origin may not connect.' })
  }
  for (const url of urlsOf(app, prefixed(options))) {
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
        preHandler: [...[options.preHandler ?? []].flat(), detachResponse],
        handler: (_request, reply) => reply
          .code(426)
          .headers({ upgrade: 'websocket', connection: 'Upgrade' })
          .send({ error: 'Upgrade Required', message: 'This is a WebSocket endpoint.' }),
        wsHandler: (socket, request) => {
          // the stop of `@fastify/websocket` would close the socket at once and without a code, before running handlers
          // reply
          app.websocketServer.clients.delete(socket)
          acceptor.accept(socket, request)
        }
      })
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException
      // errors of Fastify name the route themselves
      if (code?.startsWith('FST_')) throw error
      const expected = `a path that Fastify accepts as a route (${message})`
      throw new errors.RP_ERR_INVALID_OPTION('path', expected, show(options.path))
    }
  }
}

/**
 * Whether the server accepts HTTP/1.1, which the upgrade needs: WebSockets over HTTP/2 (RFC 8441) are not supported.
 */
function supportsHttp1 ({ initialConfig: { http2, https } }: FastifyInstance): boolean {
  return http2 !== true || (typeof https === 'object' && https.allowHTTP1 === true)
}

/** Detaches the unused HTTP response from an upgraded socket, which would keep it in memory while it is open. */
function detachResponse (request: FastifyRequest, { raw }: FastifyReply, done: () => void): void {
  if (request.ws && raw.socket !== null) raw.detachSocket(raw.socket)
  done()
}

/**
 * Returns the path after `prefix`, with one slash between them. Fastify adds the prefix only for plugins with
 * encapsulation.
 */
function prefixed ({ prefix, path }: RouteOptions): string {
  if (prefix === undefined || prefix === '') return path
  const start = prefix.startsWith('/') ? prefix : `/${prefix}`
  return start.replace(/\/$/, '') + path
}

/**
 * Returns a path without and with a trailing slash. One URL is enough if the app ignores trailing slashes, or after a
 * wildcard.
 */
function urlsOf ({ initialConfig: { ignoreTrailingSlash, routerOptions } }: FastifyInstance, given: string): string[] {
  const path = given.replace(/\/+$/, '')
  if (path === '') return ['/']
  const ignoresSlash = ignoreTrailingSlash === true || routerOptions?.ignoreTrailingSlash === true
  // a wildcard or an optional parameter must be the end of a path
  return ignoresSlash || /[*?]$/.test(path) ? [path] : [path, `${path}/`]
}
