/** Groups within one process, synchronous from `publish` to the sockets. */
import { errors } from '../errors.ts'
import type { Broker, Receiver } from './broker.ts'

/** Makes the default broker: groups live in this process and end with it; it keeps no history. */
export function memoryBroker (): Broker {
  const subscribed = new Set<string>()
  let receiver: Receiver | undefined

  return {
    open (to) {
      if (receiver !== undefined) throw new errors.RP_ERR_BROKER_IN_USE('memory')
      receiver = to
    },
    publish (group, payload) {
      if (subscribed.has(group)) receiver?.deliver(group, payload)
    },
    subscribe (group) {
      subscribed.add(group)
    },
    unsubscribe (group) {
      subscribed.delete(group)
    },
    history: () => undefined,
    health: () => ({ ok: true }),
    close () {
      subscribed.clear()
    }
  }
}
