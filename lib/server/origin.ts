/** Which pages may connect. A browser tells the page's origin and can't be talked out of it; other clients need not send one. */

import type { FastifyRequest } from 'fastify'

/** A list of origins, a function, or `true` for any. */
export type AllowedOrigins = true | readonly string[] | ((origin: string, request: FastifyRequest) => boolean | Promise<boolean>)

/** Whether an upgrade may go on; by default if the page comes from `request.host`, for which `trustProxy` counts. */
export async function isOriginAllowed (allowed: AllowedOrigins | undefined, request: FastifyRequest): Promise<boolean> {
  const { headers: { origin }, host } = request
  if (origin === undefined || allowed === true) return true
  if (typeof allowed === 'function') return await allowed(origin, request) === true
  if (allowed !== undefined) return allowed.includes(origin)

  // the port of the page is left out where it is its scheme's default, and the client may have sent it all the same
  if (!URL.canParse(origin)) return false
  const page = new URL(origin)
  return page.host !== '' && (page.host === host || page.host === URL.parse(`${page.protocol}//${host}`)?.host)
}
