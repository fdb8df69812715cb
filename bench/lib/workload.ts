/** What a workload is: rows of a table, and how one run of one server is made. */

/** How large and how long: everything, a look, or just enough to see that it works. */
export type Scale = 'full' | 'quick' | 'tiny'

/** How runs are made. */
export interface Settings {
  scale: Scale
  repetitions: number
  /** Milliseconds at full depth before anything is measured. */
  warmUp: number
  /** Milliseconds between the start of a load and its measurement. */
  settle: number
  /** Milliseconds of a measurement. */
  measure: number
  /** The runs to be made, by name; all of them by default. */
  only?: readonly string[]
  /** Whether the server and the load generator each have a CPU of their own, where that can be had. */
  pin: boolean
  /** Where CPU profiles of the servers go. */
  profile?: string
}

/** A row of the results. */
export interface Row {
  name: string
  /** What is measured; less is better. */
  unit: string
  /** What the rate counts. */
  counts?: string
  /** How the subject compares: `gain` is other / subject, and more is better; `share` is subject / other, and less is better. */
  ratio: 'gain' | 'share'
  /** The ratio to be reached: at least for a gain, at most for a share. */
  targets?: Readonly<Record<string, number>>
}

/** What one run gave for one row. */
export interface Measurement {
  value: number
  /** Per second of wall-clock time. */
  rate?: number
  /** Shares of the time, 1 is a whole CPU. */
  serverBusy?: number
  generatorBusy?: number
  /** The share of the time that the server was ready to run while something else had its CPU. */
  serverWaited?: number
  /** What makes this measurement wrong: frames that are missing or are not what was expected. */
  failures: string[]
}

/** What a run gave: for each contestant a measurement for each row, in order. */
export type Results = Record<string, Measurement[]>

/** Rows that are measured one after another in one life of a server. */
export interface Case {
  rows: readonly Row[]
  /** The subject first, then those it is compared with. */
  contestants: readonly string[]
  /** What is run in each repetition. */
  runs: readonly Run[]
}

/** Mostly of one contestant, after which it is named. */
export interface Run {
  name: string
  make: (settings: Settings) => Promise<Results>
}

/** A file of `workloads/`. */
export interface Workload {
  name: string
  title: string
  cases (scale: Scale): Case[]
}
