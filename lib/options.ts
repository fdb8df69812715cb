/** Every option of the plugin with its default and its check. */
import type { WebsocketPluginOptions } from '@fastify/websocket'
import type { onRequestHookHandler, preHandlerHookHandler, preValidationHookHandler, RegisterOptions } from 'fastify'
import type { Broker } from './brokers/broker.ts'
import { memoryBroker } from './brokers/memory.ts'
import { checkNames, isCount, isDelay, isObject, MAX_DELAY } from './util/checks.ts'
import { errors, show } from './errors.ts'
import type { ConnectionLimits } from './server/connection.ts'
import { correctOrigin, type AllowedOrigins } from './server/upgrade/origin.ts'
import type { ConnectionHooks } from './server/types.ts'

/** Options of `app.register(rohrpost, options)`, beside those of every plugin. Durations are milliseconds, sizes bytes. */
export interface RohrpostOptions extends RegisterOptions, ConnectionHooks, Partial<ConnectionLimits> {
  /**
   * Path of the WebSocket route, behind `prefix` and the prefix of the surrounding plugin. It is served with and without a trailing slash,
   * and may have parameters or end in a wildcard.
   *
   * @defaultValue `'/ws/rohrpost'`
   */
  path?: string
  /** Where groups live. @defaultValue `memoryBroker()` */
  broker?: Broker
  /** Hooks of the upgrade request, after the origin check; a reply that they send refuses the upgrade. */
  onRequest?: onRequestHookHandler | onRequestHookHandler[]
  /** See `onRequest`. */
  preValidation?: preValidationHookHandler | preValidationHookHandler[]
  /** See `onRequest`. */
  preHandler?: preHandlerHookHandler | preHandlerHookHandler[]
  /** Options for `@fastify/websocket`, when the plugin registers it itself. @defaultValue `{}` */
  websocket?: WebsocketPluginOptions
  /**
   * Which pages may connect, by their `Origin` header; clients that send none, which browsers always do, may. A list of origins such as
   * `https://example.org`, a function, or `true` for any. `https://*.example.org` is any host below `example.org`, not `example.org` itself.
   *
   * @defaultValue the host of the request
   */
  allowedOrigins?: AllowedOrigins
  /** Largest message, in bytes; past it the connection is closed with 1009. @defaultValue 1 MiB */
  maxPayload?: number
  /** Groups that one connection may be in. @defaultValue 1000 */
  maxGroups?: number
  /** Handlers that run at once for one connection, in order of arrival. Handlers with the option `parallel` run beside them. @defaultValue 1 */
  concurrency?: number
  /** How much may wait for other handlers, or for `onConnect`, before the connection is not read any more. @defaultValue 256 messages, 1 MiB */
  maxPending?: { messages: number, bytes: number }
  /** Time that a handler has to answer. @defaultValue 30 000 ms */
  handlerTimeout?: number
  /** Time between two signs of life; a connection that is silent for two is cut off. @defaultValue 30 000 ms */
  heartbeatInterval?: number
  /** Bytes that may be unsent to a client that makes no progress for `slowTimeout`; past it the connection is closed with 4408. @defaultValue 1 MiB */
  highWaterMark?: number
  /** Time in which a client must take a sixteenth of `highWaterMark` while it has more than that unsent. @defaultValue 5000 ms */
  slowTimeout?: number
  /** Bytes that may be unsent when more is to be sent; past it the connection is closed with 4408 at once. @defaultValue 16 MiB */
  maxUnsent?: number
  /** The most that is replayed to a client that comes back to a group; past it it is told to load again. @defaultValue 1000 messages, 1 MiB */
  recoveryLimit?: { messages: number, bytes: number }
  /**
   * Messages that one connection may send: `max` at once, and as many again in each `interval` of milliseconds, a few at a time. Those
   * beyond are answered with the code `rate_limited`.
   *
   * @defaultValue as many as it likes
   */
  rateLimit?: { max: number, interval: number }
  /** Time that running handlers have to answer when the server stops. @defaultValue 5000 ms */
  drainTimeout?: number
}

/** The options with all defaults filled in; hooks stay optional. */
export type CheckedOptions = RohrpostOptions & Required<Omit<RohrpostOptions, 'onRequest' | 'preValidation' | 'preHandler' | 'onConnect' | 'onDisconnect' | 'allowedOrigins' | 'rateLimit' | keyof RegisterOptions>>

const MIB = 1024 * 1024

/** Earlier names of options. */
const renamed = { drain: 'drainTimeout', heartbeat: 'heartbeatInterval' } as const

interface Rule {
  default?: unknown
  expected: string
  check: (value: unknown) => boolean
  /** What to write instead of a value that is refused. */
  correct?: (value: unknown) => string | undefined
}

const isFunction = (value: unknown) => typeof value === 'function'
const isString = (value: unknown) => typeof value === 'string'

const hook: Rule = { expected: 'a function', check: isFunction }
const hooks: Rule = { expected: 'a hook or a list of hooks', check: (value) => (Array.isArray(value) ? value : [value]).every(isFunction) }
const count = (value: number): Rule => ({ default: value, expected: 'a whole number from 1', check: isCount })
const amount = (messages: number): Rule => ({
  default: { messages, bytes: MIB },
  expected: 'an object { messages, bytes } of whole numbers from 1',
  check: (value) => isObject(value) && isCount(value.messages) && isCount(value.bytes)
})
const duration = (value: number): Rule => ({
  default: value,
  expected: `a whole number of milliseconds from 1 to ${MAX_DELAY}`,
  check: isDelay
})

const rules: { [Name in keyof Required<RohrpostOptions> | 'name']: Rule } = {
  path: { default: '/ws/rohrpost', expected: "a path that starts with '/'", check: (value) => typeof value === 'string' && value.startsWith('/') },
  broker: { expected: 'a broker such as memoryBroker()', check: isBroker },
  onRequest: hooks,
  preValidation: hooks,
  preHandler: hooks,
  onConnect: hook,
  onDisconnect: hook,
  websocket: { default: {}, expected: 'an object of options for @fastify/websocket', check: isObject },
  allowedOrigins: {
    expected: "true, a function, or a list of origins such as 'https://example.org'",
    check: (value) => value === true || isFunction(value) || (Array.isArray(value) && value.every((origin) => correctOrigin(origin) === undefined)),
    correct (value) {
      const wrong: unknown = Array.isArray(value) ? value.find((origin) => correctOrigin(origin) !== undefined) : value
      const instead = correctOrigin(wrong)
      if (instead === undefined) return `write ['${wrong}']`
      return `no browser sends ${show(wrong)}: write ${instead}`
    }
  },
  maxPayload: count(MIB),
  maxGroups: count(1000),
  concurrency: count(1),
  maxPending: amount(256),
  handlerTimeout: duration(30_000),
  heartbeatInterval: duration(30_000),
  highWaterMark: count(MIB),
  slowTimeout: duration(5000),
  maxUnsent: count(16 * MIB),
  recoveryLimit: amount(1000),
  rateLimit: {
    expected: 'an object { max, interval } of whole numbers from 1, the interval in milliseconds',
    check: (value) => isObject(value) && isCount(value.max) && isCount(value.interval)
  },
  drainTimeout: duration(5000),
  prefix: { expected: 'a string', check: isString },
  logLevel: { expected: "a level of the logger, such as 'warn'", check: isString },
  logSerializers: { expected: 'an object of functions', check: isObject },
  // avvio, Fastify's loader of plugins, takes it beside Fastify's own options
  name: { expected: 'a string', check: isString }
}

/**
 * Checks the options and fills in the defaults.
 *
 * @param given the options, or the path alone
 * @throws RP_ERR_INVALID_OPTION, RP_ERR_UNKNOWN_OPTION
 */
export function checkOptions (given: object | string): CheckedOptions {
  if (typeof given === 'string') return checkOptions({ path: given })
  given = rename(given)
  checkNames(given, Object.keys(rules))

  const options: Record<string, unknown> = {}
  for (const [name, rule] of Object.entries(rules)) {
    const value = (given as Record<string, unknown>)[name] ?? rule.default
    if (value === undefined) continue
    if (!rule.check(value)) {
      const instead = rule.correct?.(value)
      throw new errors.RP_ERR_INVALID_OPTION(name, rule.expected, show(value) + (instead === undefined ? '' : ` (${instead})`))
    }
    options[name] = value
  }
  options.broker ??= memoryBroker()
  return options as unknown as CheckedOptions
}

/** Gives options that have been renamed their present names, with a warning of the process. */
function rename (given: object): object {
  return Object.fromEntries(Object.entries(given).map(([name, value]) => {
    const present = Object.hasOwn(renamed, name) ? renamed[name as keyof typeof renamed] : undefined
    if (present === undefined || present in given) return [name, value]
    process.emitWarning(`the option '${name}' of fastify-rohrpost is now called '${present}'`, 'DeprecationWarning')
    return [present, value]
  }))
}

function isBroker (value: unknown): boolean {
  return isObject(value) && ['open', 'publish', 'subscribe', 'unsubscribe', 'history', 'health', 'close'].every((method) => isFunction(value[method]))
}
