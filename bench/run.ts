/** The command: `npm run bench -- [workload …] [--reps 3] [--quick] [--only rohrpost,ws] [--profile DIR]`. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { cpus, release, totalmem } from 'node:os'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { GENERATOR_CPU, SERVER_CPU } from './lib/pair.ts'
import { canPin } from './lib/remote.ts'
import { report } from './lib/report.ts'
import { countRuns, run, type Sample } from './lib/run.ts'
import { format } from './lib/statistics.ts'
import type { Settings } from './lib/workload.ts'
import { workloads } from './workloads/index.ts'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { reps: { type: 'string' }, quick: { type: 'boolean', default: false }, only: { type: 'string' }, profile: { type: 'string' } }
})

const unknown = positionals.filter((name) => workloads.every((workload) => workload.name !== name))
if (unknown.length > 0) throw new Error(`no workload '${unknown.join("', '")}'; there are ${workloads.map(({ name }) => name).join(', ')}`)
const chosen = workloads.filter(({ name }) => positionals.length === 0 || positionals.includes(name))

const times = values.quick ? { warmUp: 500, settle: 150, measure: 700 } : { warmUp: 1200, settle: 250, measure: 1000 }
const settings: Settings = {
  scale: values.quick ? 'quick' : 'full',
  repetitions: Number(values.reps ?? (values.quick ? 2 : 3)),
  ...times,
  pin: canPin(SERVER_CPU) && canPin(GENERATOR_CPU),
  ...(values.only !== undefined && { only: values.only.split(',') }),
  ...(values.profile !== undefined && { profile: values.profile })
}
if (!Number.isInteger(settings.repetitions) || settings.repetitions < 1) throw new Error("'--reps' is a whole number from 1")

const packages = ['fastify', '@fastify/websocket', 'ws', 'socket.io', '@socket.io/redis-adapter', 'ioredis', '@mikro-orm/core']
const require = createRequire(import.meta.url)
const machine = {
  at: new Date().toISOString(),
  node: process.version,
  packages: Object.fromEntries(packages.map((name) => [name, require(`../node_modules/${name}/package.json`).version as string])),
  cpu: `${cpus().length} × ${cpus()[0]?.model}`,
  memory: `${Math.round(totalmem() / 2 ** 30)} GiB`,
  system: `${process.platform} ${release().split('.', 2).join('.')}`,
  pinned: settings.pin
}

const total = chosen.reduce((sum, workload) => sum + countRuns(workload, settings), 0)
const start = performance.now()
let done = 0
let last: string | undefined
let isWrong = false

function measured (sample: Sample): void {
  const { workload, row, contestant, repetition, value, generatorBusy } = sample
  const place = `${workload} ${contestant} ${repetition}`
  if (place !== last) done++
  last = place
  if (sample.failures.length > 0) isWrong = true
  const generator = generatorBusy === undefined ? '' : `, generator ${Math.round(generatorBusy * 100)} %`
  process.stderr.write(`${String(Math.min(done, total)).padStart(4)}/${total}  ${row}, ${contestant}: ${format(value)}${generator}\n`)
  for (const failure of sample.failures) process.stderr.write(`           ! wrong: ${failure}\n`)
}

function failed (workload: string, error: unknown): void {
  done++
  isWrong = true
  process.stderr.write(`           ! failed: ${workload}: ${error instanceof Error ? error.message : String(error)}\n`)
}

const samples: Sample[] = []
const tables: string[] = []
for (const workload of chosen) {
  const own = await run(workload, settings, { measured, failed })
  samples.push(...own)
  tables.push(report(workload, settings, own))
}

const minutes = (performance.now() - start) / 60_000
const versions = Object.entries(machine.packages).map(([name, version]) => `${name} ${version}`).join(', ')
console.log([
  `${machine.at.slice(0, 10)}, Node.js ${machine.node}, ${versions}; ${machine.cpu}, ${machine.memory}, ${machine.system}; ` +
    `${machine.pinned ? 'server and load generator on a CPU each' : '**processes not pinned to CPUs**'}; ` +
    `medians of ${settings.repetitions}, ranges in brackets; ${format(minutes)} minutes.`,
  ...tables
].join('\n\n'))

const folder = fileURLToPath(new URL('results/', import.meta.url))
mkdirSync(folder, { recursive: true })
const file = `${folder}${machine.at.replaceAll(/[:.]/g, '-')}.json`
writeFileSync(file, JSON.stringify({ machine, settings, minutes, samples }, undefined, 2))
process.stderr.write(`\nEach single measurement is in ${file}\n`)
process.exitCode = isWrong ? 1 : 0
