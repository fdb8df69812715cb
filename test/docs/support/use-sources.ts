/** Preloaded (`node --import`) where documented code runs: the package's own names lead to its sources. */
import { registerHooks } from 'node:module'
import { sources } from './sources.ts'

registerHooks({
  resolve (specifier, context, next) {
    const source = sources.get(specifier)
    return source === undefined ? next(specifier, context) : { url: source.href, shortCircuit: true }
  }
})
