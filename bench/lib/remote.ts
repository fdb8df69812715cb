/** Another process whose functions can be called from here: what the command, the server under test and the load generator have in common. */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { availableParallelism } from 'node:os'
import { readCpuTime, type CpuTime } from './cpu.ts'

/** What a process lets others call. Arguments and results travel as JSON. */
export type Commands<C> = { [Name in keyof C]: (...args: never[]) => unknown }

interface Call {
  id: number
  name: string
  args: never[]
}

interface Answer {
  id: number
  result?: unknown
  error?: string
}

/** Lets the parent process call these functions, until it goes. */
export function serve<C extends Commands<C>> (commands: C): void {
  const all: Record<string, (...args: never[]) => unknown> = {
    ...commands,
    cpuTime: () => {
      const { user, system } = process.cpuUsage()
      return { run: (user + system) * 1000, wait: 0 }
    }
  }
  const answer = (message: Answer) => process.send?.(message)

  process.on('message', async ({ id, name, args }: Call) => {
    try {
      answer({ id, result: await all[name]?.(...args) })
    } catch (error) {
      answer({ id, error: error instanceof Error ? `${error.stack}` : String(error) })
    }
  })
  process.on('disconnect', () => process.exit(0))
  answer({ id: READY })
}

const READY = 0
/** Time that a process has to end, in milliseconds. */
const GRACE = 5000

/** Settings of a process. */
export interface RemoteOptions {
  /** The only CPU it may use; ignored where processes can't be pinned. */
  cpu?: number
  /** Arguments for Node.js. */
  nodeArgs?: readonly string[]
}

/** A process that runs a file which calls {@link serve}. */
export class Remote<C extends Commands<C>> {
  readonly #child: ChildProcess
  readonly #name: string
  readonly #calls = new Map<number, PromiseWithResolvers<unknown>>()
  readonly #exited: Promise<unknown>
  #lastId = READY
  #hasExited = false

  private constructor (name: string, child: ChildProcess) {
    this.#name = name
    this.#child = child
    this.#exited = once(child, 'exit').then(([code, signal]) => {
      this.#hasExited = true
      for (const { reject } of this.#calls.values()) reject(new Error(`${name} ended early (${code ?? signal})`))
    })
    this.#calls.set(READY, Promise.withResolvers())
    child.on('message', ({ id, result, error }: Answer) => {
      const call = this.#calls.get(id)
      this.#calls.delete(id)
      if (error === undefined) call?.resolve(result)
      else call?.reject(new Error(`${name}: ${error}`))
    })
  }

  /** Starts a process and waits until it can be called. */
  static async start<C extends Commands<C>> (name: string, argv: readonly string[], { cpu, nodeArgs = [] }: RemoteOptions = {}): Promise<Remote<C>> {
    const command = [...(cpu !== undefined && canPin(cpu) ? ['taskset', '-c', String(cpu)] : []), process.execPath, ...nodeArgs, ...argv]
    const child = spawn(command[0] ?? '', command.slice(1), {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      // recording coverage is work too; left out, Node.js would hand it on
      env: { ...process.env, NODE_V8_COVERAGE: undefined, NODE_ENV: 'production' }
    })
    const remote = new Remote<C>(name, child)
    await remote.#calls.get(READY)?.promise
    return remote
  }

  /** Calls a function of the process. */
  call<Name extends keyof C & string> (name: Name, ...args: Parameters<C[Name]>): Promise<Awaited<ReturnType<C[Name]>>> {
    return this.#call(name, args) as Promise<Awaited<ReturnType<C[Name]>>>
  }

  /** The CPU time that the process has used. */
  async cpuTime (): Promise<CpuTime> {
    return readCpuTime(Number(this.#child.pid)) ?? await this.#call('cpuTime', []) as CpuTime
  }

  /** Ends the process. */
  async stop (): Promise<void> {
    if (this.#hasExited) return
    if (this.#child.connected) this.#child.disconnect()
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), GRACE)
    await this.#exited
    clearTimeout(timer)
  }

  #call (name: string, args: readonly unknown[]): Promise<unknown> {
    const call = Promise.withResolvers<unknown>()
    const id = ++this.#lastId
    this.#calls.set(id, call)
    if (this.#child.connected) this.#child.send({ id, name, args })
    else call.reject(new Error(`${this.#name} has ended`))
    return call.promise
  }
}

const pinnable = new Map<number, boolean>()

/** Whether a process can be bound to this CPU. */
export function canPin (cpu: number): boolean {
  let can = pinnable.get(cpu)
  if (can === undefined) {
    can = availableParallelism() > 1 && spawnSync('taskset', ['-c', String(cpu), 'true']).status === 0
    pinnable.set(cpu, can)
  }
  return can
}
