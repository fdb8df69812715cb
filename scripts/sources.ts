/** Source files by public import name: documents and examples import the package by its name, as applications do. */
import packageJson from '../package.json' with { type: 'json' }

/** URLs of sources by import name: `fastify-rohrpost/protocol` is `lib/protocol/index.ts`. */
export const sources: ReadonlyMap<string, URL> = new Map(
  Object.entries(packageJson.exports).flatMap(([path, target]) => {
    if (typeof target === 'string') return []
    const source = target.default.replace('./dist/', '../lib/').replace(/\.js$/, '.ts')
    return [[packageJson.name + path.slice(1), new URL(source, import.meta.url)] as const]
  })
)
