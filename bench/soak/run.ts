/** The command: `npm run soak -- [--minutes 10] [--connections 5000]`. */
import { availableParallelism, totalmem } from 'node:os'
import { parseArgs } from 'node:util'
import { readFileLimit } from '../lib/cpu.ts'
import { soak } from './soak.ts'

const { values } = parseArgs({ options: { minutes: { type: 'string', default: '10' }, connections: { type: 'string', default: '5000' } } })
const [minutes, connections] = [Number(values.minutes), Number(values.connections)]
if (!(minutes > 0)) throw new Error(`--minutes must be a number above 0, not '${values.minutes}'`)
if (!Number.isSafeInteger(connections) || connections < 20) throw new Error(`--connections must be a whole number from 20, not '${values.connections}'`)
if (connections + 500 > readFileLimit()) throw new Error(`${connections} connections need more open files than the ${readFileLimit()} that are allowed: ulimit -n`)

const begin = Date.now()
const { rows, failures } = await soak({ minutes, connections, progress: (text) => console.error(text) })

console.log(`${new Date(begin).toISOString().slice(0, 10)}, Node.js ${process.version}, ${availableParallelism()} CPUs, ${Math.round(totalmem() / 2 ** 30)} GiB, ${process.platform}.\n`)
console.log('| what | figure |\n| --- | --- |')
for (const [what, figure] of rows) console.log(`| ${what} | ${figure} |`)
for (const failure of failures) console.log(`\n**wrong**: ${failure}`)
if (failures.length > 0) process.exitCode = 1
