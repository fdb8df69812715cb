/** Runs workloads: contestants take turns, repetition after repetition, so that what disturbs the machine meets them all. */
import type { Measurement, Run, Settings, Workload } from './workload.ts'

/** A measurement with what it belongs to. */
export interface Sample extends Measurement {
  workload: string
  row: string
  contestant: string
  repetition: number
}

/** Told what happens. */
export interface Progress {
  measured: (sample: Sample) => void
  failed: (workload: string, error: unknown) => void
}

/** Runs a workload. A run that fails is reported and leaves its place empty. */
export async function run (workload: Workload, settings: Settings, progress: Progress): Promise<Sample[]> {
  const samples: Sample[] = []
  for (const { rows, runs } of workload.cases(settings.scale)) {
    for (let repetition = 0; repetition < settings.repetitions; repetition++) {
      for (const { make } of rotate(select(runs, settings), repetition)) {
        try {
          for (const [contestant, measurements] of Object.entries(await make(settings))) {
            for (const [index, measurement] of measurements.entries()) {
              const sample = { workload: workload.name, row: rows[index]?.name ?? '', contestant, repetition, ...measurement }
              samples.push(sample)
              progress.measured(sample)
            }
          }
        } catch (error) {
          progress.failed(workload.name, error)
        }
      }
    }
  }
  return samples
}

/** How many runs there will be. */
export function countRuns (workload: Workload, settings: Settings): number {
  return workload.cases(settings.scale).reduce((sum, { runs }) => sum + select(runs, settings).length * settings.repetitions, 0)
}

function select (runs: readonly Run[], { only }: Settings): Run[] {
  return runs.filter(({ name }) => only === undefined || only.includes(name))
}

/** The same in another order: nobody is always the first. */
function rotate<T> (values: readonly T[], by: number): T[] {
  const start = by % Math.max(1, values.length)
  return [...values.slice(start), ...values.slice(0, start)]
}
