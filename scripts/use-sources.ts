/** `node --import ./scripts/use-sources.ts FILE`: runs a file with lib/ as the package `fastify-rohrpost`. */
import { registerHooks } from 'node:module'
import { sources } from './sources.ts'

registerHooks({
  resolve (specifier, context, next) {
    const source = sources.get(specifier)
    return source === undefined ? next(specifier, context) : { url: source.href, shortCircuit: true }
  }
})
