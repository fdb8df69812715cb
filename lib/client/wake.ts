/** What a browser tells of its network and of its page. */

/** The part of a browser's global scope that tells; other runtimes have none of it, or a `document` without events. */
export interface Scope {
  addEventListener? (type: string, listener: () => void): void
  removeEventListener? (type: string, listener: () => void): void
  document?: {
    readonly visibilityState?: string
    addEventListener? (type: string, listener: () => void): void
    removeEventListener? (type: string, listener: () => void): void
  }
}

/** What is called at the events of a page. */
export interface PageListener {
  /** The network is back. */
  online (): void
  /** The network is gone. */
  offline (): void
  /** The page is hidden, or shown again. */
  shown (isShown: boolean): void
}

/**
 * Listens to the network and to the visibility of the page. A page that is hidden from the start is told of at once.
 *
 * @returns ends it
 */
export function watchPage ({ online, offline, shown }: PageListener, scope: Scope): () => void {
  const { document } = scope
  const changed = () => shown(document?.visibilityState !== 'hidden')
  const all = [[scope, 'online', online], [scope, 'offline', offline], [document, 'visibilitychange', changed]] as const
  for (const [target, type, listener] of all) target?.addEventListener?.(type, listener)
  if (document?.visibilityState === 'hidden') shown(false)

  return () => {
    for (const [target, type, listener] of all) target?.removeEventListener?.(type, listener)
  }
}
