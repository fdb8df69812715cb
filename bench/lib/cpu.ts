/** What the kernel knows of a process. */
import { readdirSync, readFileSync } from 'node:fs'

/** Nanoseconds. */
export interface CpuTime {
  /** On a CPU, user and system time of all threads. */
  run: number
  /** Ready to run, while others had the CPU. */
  wait: number
}

/** The CPU time of a process so far, its live threads added up; nothing where the kernel does not tell (Linux does). */
export function readCpuTime (pid: number): CpuTime | undefined {
  let threads: string[]
  try {
    threads = readdirSync(`/proc/${pid}/task`)
  } catch {
    return undefined
  }

  const total = { run: 0, wait: 0 }
  for (const thread of threads) {
    try {
      const [run, wait] = readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')
      total.run += Number(run)
      total.wait += Number(wait)
    } catch {
      // this thread has just ended
    }
  }
  return total.run > 0 ? total : undefined
}

/** How many files, connections included, a process may have open. */
export function readFileLimit (): number {
  const report = process.report.getReport() as { userLimits?: { open_files?: { soft?: number | string } } }
  const limit = Number(report.userLimits?.open_files?.soft)
  // 'unlimited', or a system that has no such limit
  return Number.isFinite(limit) ? limit : Infinity
}
