/** Events of a browser page: network and visibility. */
import { after } from './option-checks.ts'
import { listen, type ListenerTarget } from './waiting.ts'

/**
 * The part of a browser's global scope with these events; other runtimes have none of it, or a `document` without
 * events.
 */
interface PageScope extends ListenerTarget {
  document?: ListenerTarget & { readonly hidden?: boolean }
}

/**
 * Listens to the network and to the visibility of the page. The present visibility is reported at once.
 *
 * @param online called when the network is back
 * @param offline called when the network is gone
 * @param show called when the page is shown, and in runtimes without pages
 * @param hide called when the page has been hidden for `delay` milliseconds
 * @returns a function that removes the listeners
 */
export function watchPage (
  online: () => void,
  offline: () => void,
  show: () => void,
  hide: () => void,
  delay: number
): () => void {
  const scope = globalThis as PageScope
  const { document } = scope
  let timer: ReturnType<typeof setTimeout> | undefined
  const update = () => {
    clearTimeout(timer)
    if (document?.hidden) timer = after(delay, hide)
    else show()
  }
  const endings = [
    listen(scope, 'online', online),
    listen(scope, 'offline', offline),
    listen(document, 'visibilitychange', update),
    () => clearTimeout(timer)
  ]
  update()
  return () => {
    for (const end of endings) end()
  }
}
