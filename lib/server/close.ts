/** Check of close codes and reasons. */
import { errors, show } from '../errors.ts'

/** Maximum bytes of a reason: a control frame has 125 bytes, and the code takes two (RFC 6455, section 5.5). */
const MAX_REASON = 123

/**
 * Checks the code and the reason of a close (RFC 6455, section 7.4, and IANA's registry).
 *
 * @throws RP_ERR_INVALID_CLOSE
 */
export function checkClose (code: unknown, reason: unknown): void {
  if (!isCloseCode(code)) {
    throw new errors.RP_ERR_INVALID_CLOSE('code', '1000 to 1003, 1007 to 1014, or 3000 to 4999', show(code))
  }
  if (typeof reason !== 'string' || Buffer.byteLength(reason) > MAX_REASON) {
    throw new errors.RP_ERR_INVALID_CLOSE('reason', `a string of at most ${MAX_REASON} bytes`, show(reason))
  }
}

function isCloseCode (code: unknown): boolean {
  if (typeof code !== 'number' || !Number.isInteger(code)) return false
  return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) || (code >= 3000 && code <= 4999)
}
