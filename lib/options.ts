/** Options of the plugin: types, defaults and validation. */
import type { WebsocketPluginOptions } from '@fastify/websocket'
import type { onRequestHookHandler, preHandlerHookHandler, preValidationHookHandler, RegisterOptions } from 'fastify'
import type { Broker } from './brokers/broker.ts'
import { memoryBroker } from './brokers/memory.ts'
import { checkNames, isCount, isDelay, isObject, MAX_DELAY } from './util/checks.ts'
import { errors, show } from './errors.ts'
import type { ConnectionLimits } from './server/connection.ts'
import { suggestOrigin, type AllowedOrigins } from './server/upgrade/origin.ts'
import type { ConnectionHooks } from './server/connections.ts'

/** Options of `app.register(rohrpost, options)`. Durations are in milliseconds, sizes in bytes. */
export interface RohrpostOptions extends RegisterOptions, ConnectionHooks, Partial<ConnectionLimits> {
  /**
   * Path of the WebSocket route, after `prefix` and the prefix of the surrounding plugin. The route is served with and
   * without a trailing slash. The path may contain parameters or end with a wildcard.
   *
   * @defaultValue `'/ws/rohrpost'`
   */
  path?: string
  /** Broker that carries group messages between processes. @defaultValue `memoryBroker()` */
  broker?: Broker
  /** Hooks of the upgrade request, after the origin check. A hook that sends a reply refuses the upgrade. */
  onRequest?: onRequestHookHandler | onRequestHookHandler[]
  /** See `onRequest`. */
  preValidation?: preValidationHookHandler | preValidationHookHandler[]
  /** See `onRequest`. */
  preHandler?: preHandlerHookHandler | preHandlerHookHandler[]
  /** Options of `@fastify/websocket`, unless the app has registered it itself. @defaultValue `{}` */
  websocket?: WebsocketPluginOptions
  /**
   * Allowed `Origin` headers: a list of origins such as `https://example.org`, a function, or `true` for any.
   * `https://*.example.org` allows all subdomains of `example.org`, but not `example.org` itself. Requests without the
   * header, which browsers always send, are allowed.
   *
   * @defaultValue origins with the host of the request
   */
  allowedOrigins?: AllowedOrigins
  /** Maximum size of a message from a client. A larger one closes the connection with code 1009. @defaultValue 1 MiB */
  maxPayload?: number
  /** Maximum number of groups of one connection. @defaultValue 1000 */
  maxGroups?: number
  /**
   * Number of handlers that run at the same time for one connection, not counting handlers with the option `parallel`.
   *
   * @defaultValue 1
   */
  concurrency?: number
  /**
   * Limit of messages that wait for `onConnect` or for a slot. Beyond it, the socket is paused.
   *
   * @defaultValue 256 messages, 1 MiB
   */
  maxPending?: { messages: number, bytes: number }
  /** Time after which a request without a reply gets the error `timeout`. @defaultValue 30 000 ms */
  handlerTimeout?: number
  /** Interval of pings. A connection that is silent for two intervals is terminated. @defaultValue 30 000 ms */
  heartbeatInterval?: number
  /**
   * Unsent bytes above which a client must make progress within `slowTimeout`. If it does not, the connection is closed
   * with code 4408.
   *
   * @defaultValue 1 MiB
   */
  highWaterMark?: number
  /**
   * Time in which a client must receive a sixteenth of `highWaterMark` while more than `highWaterMark` is unsent.
   *
   * @defaultValue 5000 ms
   */
  slowTimeout?: number
  /**
   * Maximum unsent bytes. If another message exceeds it, the connection is closed with code 4408 at once.
   *
   * @defaultValue 16 MiB
   */
  maxUnsent?: number
  /**
   * Limit of missed messages that are replayed to a client that reconnects. Beyond it, the client must load again.
   *
   * @defaultValue 1000 messages, 1 MiB
   */
  recoveryLimit?: { messages: number, bytes: number }
  /**
   * Rate limit of each connection, as a token bucket: it holds `max` messages and is refilled evenly with `max`
   * messages per `interval` milliseconds. Further messages get the error `rate_limited`.
   *
   * @defaultValue no limit
   */
  rateLimit?: { max: number, interval: number }
  /** Time that running handlers have to reply when the server stops. @defaultValue 5000 ms */
  drainTimeout?: number
}

/** Options without a default. */
type OptionalOption =
  | 'onRequest'
  | 'preValidation'
  | 'preHandler'
  | 'onConnect'
  | 'onDisconnect'
  | 'allowedOrigins'
  | 'rateLimit'
  | keyof RegisterOptions

/** Validated options with all defaults. */
export type ResolvedOptions = RohrpostOptions & Required<Omit<RohrpostOptions, OptionalOption>>

const MIB = 1024 * 1024

/** Present names of options by their earlier names. */
const renamedOptions = { drain: 'drainTimeout', heartbeat: 'heartbeatInterval' } as const

/** Default and validation of one option. */
interface OptionRule {
  default?: unknown
  expected: string
  check: (value: unknown) => boolean
  /** Returns a suggestion for an invalid value. */
  suggest?: (value: unknown) => string | undefined
}

const isFunction = (value: unknown) => typeof value === 'function'
const isString = (value: unknown) => typeof value === 'string'
const isOrigin = (value: unknown) => suggestOrigin(value) === undefined

const hook: OptionRule = { expected: 'a function', check: isFunction }
const hooks: OptionRule = {
  expected: 'a hook or a list of hooks',
  check: (value) => (Array.isArray(value) ? value : [value]).every(isFunction)
}
const count = (value: number): OptionRule => ({ default: value, expected: 'a whole number from 1', check: isCount })
const amount = (messages: number): OptionRule => ({
  default: { messages, bytes: MIB },
  expected: 'an object { messages, bytes } of whole numbers from 1',
  check: (value) => isObject(value) && isCount(value.messages) && isCount(value.bytes)
})
const duration = (value: number): OptionRule => ({
  default: value,
  expected: `a whole number of milliseconds from 1 to ${MAX_DELAY}`,
  check: isDelay
})

const optionRules: { [Name in keyof Required<RohrpostOptions> | 'name']: OptionRule } = {
  path: {
    default: '/ws/rohrpost',
    expected: "a path that starts with '/'",
    check: (value) => typeof value === 'string' && value.startsWith('/')
  },
  broker: { expected: 'a broker such as memoryBroker()', check: isBroker },
  onRequest: hooks,
  preValidation: hooks,
  preHandler: hooks,
  onConnect: hook,
  onDisconnect: hook,
  websocket: { default: {}, expected: 'an object of options for @fastify/websocket', check: isObject },
  allowedOrigins: {
    expected: "true, a function, or a list of origins such as 'https://example.org'",
    check: (value) => value === true || isFunction(value) || (Array.isArray(value) && value.every(isOrigin)),
    suggest (value) {
      const invalid: unknown = Array.isArray(value) ? value.find((origin) => !isOrigin(origin)) : value
      const suggestion = suggestOrigin(invalid)
      if (suggestion === undefined) return `write ['${invalid}']`
      return `no browser sends ${show(invalid)}: write ${suggestion}`
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
  // an option of avvio, the plugin loader of Fastify
  name: { expected: 'a string', check: isString }
}

/**
 * Validates the options and adds the defaults.
 *
 * @param given the options, or the value of `path`
 * @throws RP_ERR_INVALID_OPTION, RP_ERR_UNKNOWN_OPTION
 */
export function checkOptions (given: object | string): ResolvedOptions {
  if (typeof given === 'string') return checkOptions({ path: given })
  const renamed = withPresentNames(given)
  checkNames(renamed, Object.keys(optionRules))

  const options: Record<string, unknown> = {}
  for (const [name, rule] of Object.entries(optionRules)) {
    const value = (renamed as Record<string, unknown>)[name] ?? rule.default
    if (value === undefined) continue
    if (!rule.check(value)) {
      const suggestion = rule.suggest?.(value)
      const got = suggestion === undefined ? show(value) : `${show(value)} (${suggestion})`
      throw new errors.RP_ERR_INVALID_OPTION(name, rule.expected, got)
    }
    options[name] = value
  }
  options.broker ??= memoryBroker()
  return options as unknown as ResolvedOptions
}

/** Replaces earlier names of options by their present names, with a process warning. */
function withPresentNames (given: object): object {
  return Object.fromEntries(Object.entries(given).map(([name, value]) => {
    const present = Object.hasOwn(renamedOptions, name)
      ? renamedOptions[name as keyof typeof renamedOptions]
      : undefined
    if (present === undefined || present in given) return [name, value]
    const warning = `the option '${name}' of fastify-rohrpost has been renamed to '${present}'`
    process.emitWarning(warning, 'DeprecationWarning')
    return [present, value]
  }))
}

function isBroker (value: unknown): boolean {
  const methods = ['open', 'publish', 'subscribe', 'unsubscribe', 'history', 'health', 'close']
  return isObject(value) && methods.every((method) => isFunction(value[method]))
}
