/** From samples to Markdown. */
import type { Sample } from './run.ts'
import { format, spread, type Spread } from './statistics.ts'
import type { Case, Row, Settings, Workload } from './workload.ts'

/** Above this share of a CPU the load generator may be what is measured. */
const GENERATOR_LIMIT = 0.9
/** Above this share of its time the server was kept from its CPU by others. */
const WAIT_LIMIT = 0.1

/** A table for each kind of contestants in a workload. */
export function report (workload: Workload, settings: Settings, samples: readonly Sample[]): string {
  const lines = [`### ${workload.title}`, '']
  const cases = workload.cases(settings.scale)
  const [first] = cases
  if (first === undefined) return ''

  lines.push(header(first.contestants))
  for (const { rows, contestants } of cases) {
    for (const row of rows) lines.push(line(row, contestants, samples.filter(({ row: name }) => name === row.name)))
  }
  const notes = [...samples.flatMap(wrongs), ...doubts(samples)]
  if (notes.length > 0) lines.push('', ...notes.map((text) => `- ${text}`))
  return lines.join('\n')
}

function header ([subject, ...others]: Case['contestants']): string {
  const columns = ['', 'unit', subject, 'a second', ...others.flatMap((name) => [`against ${name}`, 'target'])]
  return `| ${columns.join(' | ')} |\n|${' --- |'.repeat(columns.length)}`
}

function line (row: Row, [subject = '', ...others]: Case['contestants'], samples: readonly Sample[]): string {
  const own = samples.filter(({ contestant }) => contestant === subject)
  const rates = spread(own.flatMap(({ rate }) => rate ?? []))
  const cells = [
    row.name,
    row.unit,
    withRange(spread(own.map(({ value }) => value))),
    rates === undefined ? '' : format(Math.round(rates.median)),
    ...others.flatMap((name) => {
      const ratios = pairedRatios(row, own, samples.filter(({ contestant }) => contestant === name))
      return [withRange(ratios), verdict(row, ratios, row.targets?.[name])]
    })
  ]
  return `| ${cells.join(' | ')} |`
}

/** How the subject compares with another in each repetition. */
export function pairedRatios ({ ratio }: Row, own: readonly Sample[], others: readonly Sample[]): Spread | undefined {
  return spread(own.flatMap(({ repetition, value }) => {
    const other = others.find((sample) => sample.repetition === repetition)
    if (other === undefined) return []
    return ratio === 'gain' ? other.value / value : value / other.value
  }))
}

function withRange (values: Spread | undefined): string {
  if (values === undefined) return '–'
  const { median, min, max } = values
  return min === max ? format(median) : `${format(median)} (${format(min)}–${format(max)})`
}

function verdict ({ ratio }: Row, ratios: Spread | undefined, target: number | undefined): string {
  if (target === undefined) return ''
  const text = `${ratio === 'gain' ? '≥' : '≤'} ${target}`
  if (ratios === undefined) return text
  const isReached = ratio === 'gain' ? ratios.median >= target : ratios.median <= target
  return `${text} ${isReached ? '✓' : '✗'}`
}

/** What makes a sample wrong. */
function wrongs ({ row, contestant, repetition, failures }: Sample): string[] {
  return failures.map((failure) => `**wrong**: ${row}, ${contestant}, repetition ${repetition + 1}: ${failure}`)
}

/** What makes samples doubtful. */
function doubts (samples: readonly Sample[]): string[] {
  const busy = samples.filter(({ generatorBusy = 0 }) => generatorBusy > GENERATOR_LIMIT)
  const waits = samples.map(({ serverWaited = 0 }) => serverWaited).filter((share) => share > WAIT_LIMIT)
  return [
    ...busy.map(({ row, contestant, repetition, generatorBusy = 0 }) =>
      `The load generator was ${percent(generatorBusy)} busy, so it may be what was measured: ${row}, ${contestant}, repetition ${repetition + 1}.`),
    ...(waits.length > 0
      ? [`The server waited for its CPU in ${waits.length} of ${samples.length} measurements, up to ${percent(Math.max(...waits))} of the time: something else ran on the machine.`]
      : [])
  ]
}

function percent (share: number): string {
  return `${Math.round(share * 100)} %`
}
