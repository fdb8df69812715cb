/** Which pages may connect. A browser sends the page's origin and no script can change it; other clients need not send one. */

import type { FastifyRequest } from 'fastify'

/** A list of origins, a function, or `true` for any. */
export type AllowedOrigins = true | readonly string[] | ((origin: string, request: FastifyRequest) => boolean | Promise<boolean>)

/** One or more labels of a host name. */
const LABELS = /^[a-z\d_-]+(?:\.[a-z\d_-]+)*$/
/** The scheme of the pages that connect with a scheme of WebSockets. */
const PAGE_SCHEMES: Readonly<Record<string, string>> = { 'ws:': 'http:', 'wss:': 'https:' }

/** Whether an upgrade may go on; by default if the page comes from `request.host`, for which `trustProxy` counts. */
export async function isOriginAllowed (allowed: AllowedOrigins | undefined, request: FastifyRequest): Promise<boolean> {
  const { headers: { origin }, host } = request
  if (origin === undefined || allowed === true) return true
  if (typeof allowed === 'function') return await allowed(origin, request) === true
  if (allowed !== undefined) return allowed.some((pattern) => matches(pattern, origin))

  // the port of the page is left out where it is its scheme's default, and the client may have sent it all the same
  if (!URL.canParse(origin)) return false
  const page = new URL(origin)
  return page.host !== '' && (page.host === host || page.host === URL.parse(`${page.protocol}//${host}`)?.host)
}

/** `https://*.example.org` is any host below `example.org`, with this scheme and port; everything else is itself alone. */
function matches (pattern: string, origin: string): boolean {
  const [scheme = '', host] = pattern.split('*')
  if (host === undefined) return origin === pattern
  return origin.startsWith(scheme) && origin.endsWith(host) && LABELS.test(origin.slice(scheme.length, -host.length))
}

/**
 * Why an entry of a list of origins can never match.
 *
 * @returns what to write instead; `undefined` for an entry that can match
 */
export function correctOrigin (value: unknown): string | undefined {
  if (typeof value !== 'string' || value === '*' || value === 'null') return "true for every origin, or a function such as (origin) => origin === 'null'"
  if (/^https?:\/\/\*\.[^*]*$/.test(value)) return correctWildcard(value)
  if (value.includes('*')) return "the origin itself, or 'https://*.example.org' for all hosts below example.org"

  // a name without a scheme, perhaps with a port, is taken for the name of a site
  const url = URL.parse(/^[\w.-]+(?::\d+)?$/.test(value) ? `https://${value}` : value)
  // of all schemes only `file:` has origins without a host
  if (url === null || (url.host === '' && url.protocol !== 'file:')) return "scheme, host and port, such as 'https://example.org:8443'"
  const origin = `${PAGE_SCHEMES[url.protocol] ?? url.protocol}//${url.host.toLowerCase()}`
  return origin === value ? undefined : `'${origin}'`
}

function correctWildcard (value: string): string | undefined {
  const [scheme, host] = value.split('*.') as [string, string]
  if (!host.includes('.') && !/^localhost(?::|$)/.test(host)) return "a host of at least two names behind '*.', such as 'https://*.example.org'"
  return correctOrigin(scheme + host)?.replace(scheme, `${scheme}*.`)
}
