/** What the package exports, by the names that users import, as the files it is built from. */
import packageJson from '../../../package.json' with { type: 'json' }
import { root } from './markdown.ts'

/** URLs of sources by import name: `fastify-rohrpost/protocol` is `lib/protocol/index.ts`. */
export const sources: ReadonlyMap<string, URL> = new Map(Object.entries(packageJson.exports).flatMap(([path, target]) => {
  if (typeof target === 'string') return []
  const source = target.default.replace('./dist/', './lib/').replace(/\.js$/, '.ts')
  return [[packageJson.name + path.slice(1), new URL(source, root)] as const]
}))
