/** `npm install` of the packed package in another folder, with the versions that the project's own lockfile has. */
import { execFile } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { findTarball } from './pack.ts'

const lock = JSON.parse(readFileSync(new URL('../../package-lock.json', import.meta.url), 'utf8'))

/**
 * Installs the dependencies in the `package.json` of a folder, with the tarball as `fastify-rohrpost`. The lockfile
 * makes the result the same each time, and npm's cache has all other packages after `npm ci`.
 *
 * @throws Error if a dependency is none of the project's own, or npm fails
 */
export async function install (folder: string): Promise<void> {
  const path = join(folder, 'package.json')
  const manifest = JSON.parse(readFileSync(path, 'utf8'))
  for (const dependencies of [manifest.dependencies, manifest.devDependencies]) {
    for (const name of Object.keys(dependencies ?? {})) {
      dependencies[name] = name === 'fastify-rohrpost' ? `file:${findTarball().path}` : lockedVersion(name)
    }
  }
  const { name, version } = manifest
  const packages = { ...lock.packages, '': manifest }
  writeFileSync(path, JSON.stringify(manifest, null, 2))
  writeFileSync(join(folder, 'package-lock.json'), JSON.stringify({ ...lock, name, version, packages }))
  await promisify(execFile)('npm', ['install', '--prefer-offline', '--no-audit', '--no-fund'], { cwd: folder })
}

/** The version of a package that the project itself installs. */
export function lockedVersion (name: string): string {
  const version: unknown = lock.packages[`node_modules/${name}`]?.version
  if (typeof version !== 'string') throw new Error(`'${name}' is not in the lockfile of the project`)
  return version
}
