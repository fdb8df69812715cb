/** Refusal of messages by brokers with a queue. */
import { errors } from '../errors.ts'

/** Returns a promise that rejects with RP_ERR_NOT_PUBLISHED. The rejection may stay unhandled. */
export function refusePublish (reason: string): Promise<void> {
  const refused = Promise.reject(new errors.RP_ERR_NOT_PUBLISHED(reason))
  refused.catch(() => {})
  return refused
}
