/** `node scripts/clean.ts FOLDER`: removes a folder before a build. */
import { rmSync } from 'node:fs'

const [folder] = process.argv.slice(2)
if (folder === undefined) throw new Error('usage: node scripts/clean.ts FOLDER')
rmSync(new URL(`../${folder}`, import.meta.url), { recursive: true, force: true })
