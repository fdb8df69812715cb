/** When a connection that is down, or silently dead, should be looked after at once. */

/** The part of a browser's global scope that tells; other runtimes have none of it. */
export interface Scope {
  addEventListener? (type: string, listener: () => void): void
  removeEventListener? (type: string, listener: () => void): void
  document?: {
    readonly visibilityState: string
    addEventListener (type: string, listener: () => void): void
    removeEventListener (type: string, listener: () => void): void
  }
}

/**
 * Calls back when the network returns and when a hidden tab is shown again.
 *
 * @returns ends it
 */
export function onWake (wake: () => void, scope: Scope): () => void {
  const { document } = scope
  const shown = () => {
    if (document?.visibilityState === 'visible') wake()
  }
  scope.addEventListener?.('online', wake)
  document?.addEventListener('visibilitychange', shown)

  return () => {
    scope.removeEventListener?.('online', wake)
    document?.removeEventListener('visibilitychange', shown)
  }
}
