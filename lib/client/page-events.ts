/** Events of a browser page: network and visibility. */
import { listen, type ListenerTarget } from './waiting.ts'

/**
 * The part of a browser's global scope with these events; other runtimes have none of it, or a `document` without
 * events.
 */
export interface PageScope extends ListenerTarget {
  document?: ListenerTarget & { readonly hidden?: boolean }
}

/** The handlers of page events. */
export interface PageListener {
  /** The network is back. */
  online (): void
  /** The network is gone. */
  offline (): void
  /** The page was hidden or shown. */
  shown (isShown: boolean): void
}

/**
 * Listens to the network and to the visibility of the page. A page that is hidden from the start is reported at once.
 *
 * @returns a function that removes the listeners
 */
export function watchPage ({ online, offline, shown }: PageListener, scope: PageScope): () => void {
  const { document } = scope
  if (document?.hidden) shown(false)
  const endings = [
    listen(scope, 'online', online),
    listen(scope, 'offline', offline),
    listen(document, 'visibilitychange', () => shown(!document?.hidden))
  ]
  return () => {
    for (const end of endings) end()
  }
}
