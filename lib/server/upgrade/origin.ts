/**
 * Origin check of upgrade requests. Browsers send the origin of the page, and no script can change it; other clients
 * may omit it.
 */
import type { FastifyRequest } from 'fastify'

/** Allowed origins: a list, a function, or `true` for any origin. */
export type AllowedOrigins =
  | true
  | readonly string[]
  | ((origin: string, request: FastifyRequest) => boolean | Promise<boolean>)

/** Pattern of one or more labels of a host name. */
const LABELS = /^[a-z\d_-]+(?:\.[a-z\d_-]+)*$/
/** Schemes of web pages by the WebSocket scheme that may be written instead by mistake. */
const PAGE_SCHEMES: Readonly<Record<string, string>> = { 'ws:': 'http:', 'wss:': 'https:' }

/**
 * Whether the origin of an upgrade request is allowed. By default its host must be `request.host`, which respects
 * `trustProxy`.
 */
export async function isOriginAllowed (allowed: AllowedOrigins | undefined, request: FastifyRequest): Promise<boolean> {
  const { headers: { origin }, host } = request
  if (origin === undefined || allowed === true) return true
  if (typeof allowed === 'function') return await allowed(origin, request) === true
  if (allowed !== undefined) return allowed.some((pattern) => matches(pattern, origin))

  // `URL` drops the default port of the scheme, which the client may have sent in the Host header
  if (!URL.canParse(origin)) return false
  const page = new URL(origin)
  return page.host !== '' && (page.host === host || page.host === URL.parse(`${page.protocol}//${host}`)?.host)
}

/**
 * Whether an origin matches a list entry. `https://*.example.org` matches all subdomains of `example.org` with this
 * scheme and port.
 */
function matches (pattern: string, origin: string): boolean {
  const [scheme = '', host] = pattern.split('*')
  if (host === undefined) return origin === pattern
  return origin.startsWith(scheme) && origin.endsWith(host) && LABELS.test(origin.slice(scheme.length, -host.length))
}

/**
 * Checks an entry of a list of origins.
 *
 * @returns a suggestion for an entry that no origin can match; `undefined` for a valid entry
 */
export function suggestOrigin (value: unknown): string | undefined {
  if (typeof value !== 'string' || value === '*' || value === 'null') {
    return "true for any origin, or a function such as (origin) => origin === 'null'"
  }
  if (/^https?:\/\/\*\.[^*]*$/.test(value)) return suggestWildcard(value)
  if (value.includes('*')) return "a full origin, or 'https://*.example.org' for all subdomains of example.org"

  // a host without a scheme is most likely meant as https
  const url = URL.parse(/^[\w.-]+(?::\d+)?$/.test(value) ? `https://${value}` : value)
  // `file:` is the only scheme with origins that have no host
  if (url === null || (url.host === '' && url.protocol !== 'file:')) {
    return "scheme, host and port, such as 'https://example.org:8443'"
  }
  const origin = `${PAGE_SCHEMES[url.protocol] ?? url.protocol}//${url.host.toLowerCase()}`
  return origin === value ? undefined : `'${origin}'`
}

function suggestWildcard (value: string): string | undefined {
  const [scheme, host] = value.split('*.') as [string, string]
  if (!host.includes('.') && !/^localhost(?::|$)/.test(host)) {
    return "a host of at least two labels after '*.', such as 'https://*.example.org'"
  }
  return suggestOrigin(scheme + host)?.replace(scheme, `${scheme}*.`)
}
