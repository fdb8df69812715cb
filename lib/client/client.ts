/// <reference lib="esnext.disposable" preserve="true" />
/** The client: one connection, the requests on it, and the groups it is in. */
import type { CallData, CallName, CallReply, Contract, GroupId, GroupObject, GroupType, Untyped } from '../protocol/contract.ts'
import type { Backoff } from './retry-delay.ts'
import { iterateChanges } from './change-iterator.ts'
import { check, checkDuration, checkFunction, MAX_DELAY, show } from './option-checks.ts'
import { throwIfAborted, waitFor, type Deferred } from './deferred.ts'
import { Emitter } from './emitter.ts'
import { ClientErrorCode, RohrpostError } from './error.ts'
import { Live, type LiveOptions } from './live.ts'
import { createRequests, toError, type Requests, type Message } from './pending-requests.ts'
import { createSocket, isFinal, type Socket, type State, type StateChange, type UrlSource } from './socket.ts'
import type { Change, GroupRef, Resync, Watcher } from './subscribed-group.ts'
import { Subscriptions } from './subscribed-groups.ts'
import { Token } from './token.ts'
import type { CallArguments, ClientEvents, ClientOptions, EventName, GroupListener, GroupName } from './client-types.ts'
import { watchPage, type Scope } from './wake.ts'

/** Bundlers put in what they build for. */
declare const process: { readonly env: { readonly NODE_ENV?: string } } | undefined

const EVENTS: readonly string[] = ['open', 'closed', 'reconnecting', 'ping', 'pong', 'message', 'error', 'log', 'state', 'resync'] satisfies EventName[]
const CALL_TIMEOUT = 2000
const OFFLINE = { code: ClientErrorCode.OFFLINE, retry: true }

/** A client of a rohrpost server. It connects at once, unless it is told not to, and again whenever the connection breaks, until it is closed. */
export class RohrpostClient<C extends Contract = Contract> {
  readonly #emitter = new Emitter()
  readonly #socket: Socket
  readonly #requests: Requests
  readonly #subscriptions: Subscriptions
  readonly #ready = new Set<Deferred<void>>()
  readonly #backoff: Backoff
  readonly #sleep: () => void
  /** Whether the console was told why there is no connection, or there was one. */
  #isWarned = false
  /** Why the state is `closed`. */
  #end: RohrpostError | undefined

  /**
   * @param url the address, or a function that is asked for it before each attempt
   * @throws TypeError, RangeError for options; what the WebSocket's constructor throws, for a URL that is none
   */
  constructor (url: UrlSource, options: ClientOptions = {}) {
    const { isFinal: ownIsFinal, WebSocket = globalThis.WebSocket } = options
    const source = 'token' in options ? options.token : ''
    check(source === null || /^(str|func|und)/.test(typeof source), 'token', 'a string or a function', source)
    check(typeof WebSocket === 'function', 'WebSocket', 'a class, as there is no global one', WebSocket)
    checkFunction('isFinal', ownIsFinal)
    const duration = (name: 'pingInterval' | 'connectTimeout' | 'disconnectWhenHidden', byDefault: number) => {
      const { [name]: value = byDefault } = options
      return checkDuration(name, value)
    }
    const connectTimeout = duration('connectTimeout', 10_000)
    const token = new Token(source, connectTimeout)
    const backoff = this.#backoff = checkBackoff(options.backoff)

    this.#requests = createRequests(token, (text) => this.#send(text))
    this.#subscriptions = new Subscriptions({
      isOpen: () => this.state === 'open',
      request: this.#requests.request,
      report: (error) => this.#report(error),
      failed: (group, error) => this.#emitGroup(group, error),
      resync: (group) => this.#emit('resync', group),
      backoff
    })
    this.#socket = createSocket({
      url,
      WebSocket,
      token,
      connectTimeout,
      pingInterval: duration('pingInterval', 5000),
      disconnectWhenHidden: duration('disconnectWhenHidden', Infinity),
      backoff,
      isFinal: ownIsFinal ?? ((code) => isFinal(code, token.renewable)),
      changed: (change) => this.#changed(change),
      received: (text) => this.#receive(text),
      ping: (isFirst) => this.#ping(isFirst),
      ended: () => this.#emit('closed')
    })
    if (options.autoConnect ?? true) this.#socket.start()
    this.#sleep = watchPage(this.#socket, globalThis as Scope)
  }

  /** What the connection does now; the event `state` tells of each change. */
  get state (): State {
    return this.#socket.state
  }

  /** The state in the words of rohrpost-js. */
  get socketState (): 'connecting' | 'open' | 'closed' {
    return this.state === 'waiting' || this.state === 'idle' ? 'closed' : this.state
  }

  /** The names of the groups that the client is in. */
  get groups (): ReadonlySet<string> {
    return this.#subscriptions.groups
  }

  /** Resolves when requests can be made. Rejects when the client is closed, or with the reason of the signal. */
  async ready ({ signal }: { signal?: AbortSignal | undefined } = {}): Promise<void> {
    await this.#wait(signal, Infinity)
  }

  /** Begins an attempt to connect at once, where there is neither a connection nor an attempt. Does nothing once the client is closed. */
  connect (): void {
    if (this.state === 'idle' || this.state === 'waiting') this.#socket.connect('connect')
  }

  /** Gives up the connection, or the attempt, and connects at once. Does nothing once the client is closed. */
  reconnect (): void {
    this.#socket.connect('reconnect')
  }

  /**
   * Asks the server and waits for the answer.
   *
   * @returns the data of the reply. Rejects with a {@link RohrpostError}: without a connection (`offline`: at once, or with `wait` when none
   * came in time), when no answer came in time (`timeout`), when the connection breaks before (`connection_lost`), when the message is larger
   * than the server takes (`too_large`), or with what the server says
   */
  async call<Name extends CallName<C>> (name: Name, ...[data, { timeout = CALL_TIMEOUT, signal, wait } = {}]: CallArguments<CallData<C, Name>>): Promise<CallReply<C, Name>> {
    const end = performance.now() + checkDuration('timeout', timeout)
    this.#check(signal)
    if (this.state !== 'open' && !wait) throw new RohrpostError('not connected: { wait: true } waits for it', OFFLINE)
    // it may be lost again before this goes on
    while (this.state !== 'open') await this.#wait(signal, end - performance.now())
    return await this.#requests.request(name, data, { timeout: end - performance.now(), signal }) as CallReply<C, Name>
  }

  /**
   * Joins a group, now or when the connection is there, and again after each reconnect until `unsubscribe`. What was missed comes then, from
   * servers that keep history; where it does not, `onResync` is called: what is known may be out of date.
   *
   * @returns the group's name, for `on`. Rejects with a {@link RohrpostError} where the server refuses
   */
  async subscribe<Type extends GroupType<C>> (
    group: { readonly type: Type } & GroupId<C, Type>,
    { signal, onResync }: { signal?: AbortSignal | undefined, onResync?: (() => void) | undefined } = {}
  ): Promise<{ group: GroupName<GroupObject<C, Type>> }> {
    checkFunction('onResync', onResync)
    this.#check(signal)
    return await this.#subscriptions.subscribe(group, signal, onResync) as { group: string }
  }

  /**
   * Takes back one call of `subscribe`. The group is left with the last of them, unless `changes` or `live` follow it. Resolves at once while
   * there is no connection.
   */
  async unsubscribe<Type extends GroupType<C>> (group: { readonly type: Type } & GroupId<C, Type>): Promise<void> {
    await this.#subscriptions.unsubscribe(group)
  }

  /**
   * Follows a group: `for await (const change of client.changes({ type: 'todo', id: 5 }))`. It is joined at the call, and left when
   * the loop ends, by itself, by the signal or by `close()`. What changed while the connection was down comes later, from servers that keep history;
   * where it does not come, a {@link Resync} stands in its place, if `resync` asks for that.
   *
   * @throws (the loop) a {@link RohrpostError} where the server refuses, also after a reconnect
   */
  changes<Type extends GroupType<C>> (
    group: { readonly type: Type } & GroupId<C, Type>,
    options: { signal?: AbortSignal | undefined, resync: true }
  ): AsyncIterableIterator<Change<GroupObject<C, Type>> | Resync, undefined>
  changes<Type extends GroupType<C>> (
    group: { readonly type: Type } & GroupId<C, Type>,
    options?: { signal?: AbortSignal | undefined }
  ): AsyncIterableIterator<Change<GroupObject<C, Type>>, undefined>
  changes (group: GroupRef, { signal, resync }: { signal?: AbortSignal | undefined, resync?: boolean } = {}): AsyncIterableIterator<unknown, undefined> {
    return iterateChanges((watcher) => this.#watch(group, watcher), signal, resync)
  }

  /** Keeps the objects of a group current: loads them once the group is joined, applies each change, loads again when changes were missed. */
  live<Type extends GroupType<C>, Item extends GroupObject<C, Type> = GroupObject<C, Type>> (
    group: { readonly type: Type } & GroupId<C, Type>,
    options: LiveOptions<Item>
  ): Live<Item> {
    return new Live(options, {
      watch: (watcher) => this.#watch(group, watcher),
      report: (error) => this.#report(error),
      backoff: this.#backoff
    })
  }

  /** Closes the connection for good. Whatever waits is settled: calls and subscriptions are rejected, loops over changes end. */
  close (): void {
    this.#socket.close()
  }

  /** As `close`; resolves when the connection has ended: `await using client = new RohrpostClient(…)`. */
  async [Symbol.asyncDispose] (): Promise<void> {
    if (this.state === 'closed') return
    const ended = new Promise<void>((resolve) => this.once('closed', resolve))
    this.close()
    await ended
  }

  /** Calls the listener at each event, or at each change of a group. */
  on<Name extends EventName> (event: Name, listener: (...args: ClientEvents[Name]) => void): this
  on<Item = Untyped> (group: GroupName<Item>, listener: GroupListener<Item>): this
  on (name: string, listener: (...args: never) => void): this {
    this.#emitter.add(name, listener, false)
    return this
  }

  /** As `on`, but for the next time only. */
  once<Name extends EventName> (event: Name, listener: (...args: ClientEvents[Name]) => void): this
  once<Item = Untyped> (group: GroupName<Item>, listener: GroupListener<Item>): this
  once (name: string, listener: (...args: never) => void): this {
    this.#emitter.add(name, listener, true)
    return this
  }

  /** Takes a listener away that `on` or `once` added. */
  off<Name extends EventName> (event: Name, listener: (...args: ClientEvents[Name]) => void): this
  off<Item = Untyped> (group: GroupName<Item>, listener: GroupListener<Item>): this
  off (name: string, listener: (...args: never) => void): this {
    this.#emitter.remove(name, listener)
    return this
  }

  #check (signal: AbortSignal | undefined): void {
    throwIfAborted(signal)
    if (this.#end) throw this.#end
  }

  /** Waits for the connection. @param timeout milliseconds, or `Infinity` */
  async #wait (signal: AbortSignal | undefined, timeout: number): Promise<void> {
    this.#check(signal)
    if (this.state === 'open') return
    await waitFor<void>(signal, timeout, new RohrpostError('no connection came in time', OFFLINE), (waiting) => {
      this.#ready.add(waiting)
    }, (waiting) => {
      this.#ready.delete(waiting)
    })
  }

  #watch (group: GroupRef, watcher: Watcher): () => void {
    if (!this.#end) return this.#subscriptions.watch(group, watcher)
    const end = this.#end
    queueMicrotask(() => watcher.ended(end))
    return () => {}
  }

  #changed (change: StateChange): void {
    const { state, reason, code, text, cause } = change
    if (state === 'open') {
      this.#isWarned = true
      for (const { resolve } of this.#ready) resolve()
      this.#subscriptions.opened()
    } else if (state === 'waiting' || state === 'idle') {
      const why = cause ?? (code ? `${code} ${text}`.trim() : reason)
      this.#requests.fail(new RohrpostError('connection lost', { code: ClientErrorCode.CONNECTION_LOST, cause: why }))
      this.#subscriptions.lost()
    } else if (state === 'closed') {
      this.#end = new RohrpostError(reason === 'close' ? 'Socket was closed' : `closed by the server: ${code} ${text}`.trim(), { code: ClientErrorCode.CLOSED })
      this.#sleep()
      for (const { reject } of this.#ready) reject(this.#end)
      this.#requests.fail(this.#end)
      this.#subscriptions.end(this.#end, reason === 'close' ? undefined : this.#end)
    }

    this.#emit('state', state, change)
    if (cause !== undefined) {
      this.#report(cause)
      // bundlers put in what they build for; a page without bundler says nothing
      if (typeof process !== 'undefined' && process.env.NODE_ENV !== 'production' && !this.#isWarned) {
        this.#isWarned = true
        console.warn(`rohrpost: the client could not connect, and tries again: ${String(cause)}`)
      }
    }
    // after close() the socket tells when it has ended
    if (reason !== 'close') this.#emit(state === 'open' ? state : state === 'connecting' ? 'reconnecting' : 'closed')
  }

  /** The first ping of a connection asks for what the server says to those who ask: its limits, and large messages before they come. */
  #ping (isFirst: boolean): void {
    this.#send(JSON.stringify({ type: 'ping', id: Date.now(), ...(isFirst && { hello: true }) }))
    this.#emit('ping')
  }

  #send (data: string): void {
    this.#socket.send(data)
    this.#emit('log', { direction: 'send', data })
  }

  #receive (data: string): void {
    let message: Untyped
    try {
      message = JSON.parse(data)
    } catch (cause) {
      return this.#emit('error', `not JSON: ${data}`, cause)
    }
    this.#emit('message', message)
    if (this.state === 'open') this.#handle(Object(message))
    this.#emit('log', { direction: 'receive', data })
  }

  #handle (message: Message): void {
    const { id, type, error, position, data, spread, limits, bytes } = message
    // a ping that was refused, as one too many, is a sign of life too
    const isBeat = type === 'pong' || (type === 'ping' && error)
    if (isBeat) this.#socket.pong()
    if (type === 'pong') this.#emit('pong')

    if (type === 'subscription-update' && !error) {
      const change: Change<never> | Resync = Object(data)
      if (change.type === 'resync') {
        this.#subscriptions.resync(change.group, spread)
      } else {
        this.#subscriptions.receive(change)
        this.#emitGroup(change.group, null, change)
      }
    } else if (!this.#requests.answer(message)) {
      if (isBeat) this.#requests.limit(Object(limits).max_payload)
      else if (type === 'incoming' && id === undefined) this.#socket.expect(Number(bytes))
      // messages without id answer nothing, they are the application's
      else if (error || id !== undefined) {
        this.#emit('error', id === undefined ? show(error) : `no saved request with id: ${show(id)}`, error ? toError(message) : undefined)
      }
    }
    if (position) this.#subscriptions.reached(position)
  }

  /** The client's own events can't be mistaken for those of a group that is called alike. */
  #emitGroup (group: string, error: RohrpostError | null, change?: Change<never>): void {
    if (!EVENTS.includes(group)) this.#emitter.emit(group, error, change)
  }

  #report (error: unknown): void {
    this.#emit('error', String(error), error)
  }

  #emit<Name extends EventName> (name: Name, ...args: ClientEvents[Name]): void {
    this.#emitter.emit(name, ...args)
  }
}

/** Fills in what is missing. @throws TypeError, RangeError */
function checkBackoff (given: Partial<Backoff> = {}): Backoff {
  const { min = Math.min(500, given.max ?? 500), max = Math.max(20_000, min) } = given
  check(min > 0 && min <= MAX_DELAY, 'backoff.min', 'milliseconds above 0', min)
  check(max >= min && max <= MAX_DELAY, 'backoff.max', 'milliseconds from backoff.min', max)
  return { min, max }
}
