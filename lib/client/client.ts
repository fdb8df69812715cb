/// <reference lib="esnext.disposable" preserve="true" />
/** The public class of the client: one connection, its requests, and its groups. */
import type {
  CallData, CallName, CallReply, Contract, GroupId, GroupObject, GroupType, Untyped
} from '../protocol/contract.ts'
import { iterateChanges } from './change-iterator.ts'
import type { CallArguments, ClientEvents, ClientOptions, EventName, GroupListener, GroupName } from './client-types.ts'
import { Emitter } from './emitter.ts'
import { ClientErrorCode, RohrpostError } from './error.ts'
import { Live, type LiveOptions } from './live.ts'
import { check, checkDuration, checkDurations, checkFunction, show } from './option-checks.ts'
import { createRequests, toError, type Requests, type ServerMessage } from './pending-requests.ts'
import { checkBackoff, type DelayBounds } from './retry-delay.ts'
import type { State, StateChange, UrlSource } from './socket-types.ts'
import { createSocket, isFinalCode, type Socket } from './socket.ts'
import type { Change, GroupRef, Resync } from './subscribed-group.ts'
import { SubscribedGroups } from './subscribed-groups.ts'
import { createToken } from './token.ts'
import { waitFor } from './waiting.ts'

/** Replaced by bundlers, missing on pages without one. */
declare const process: { readonly env: { readonly NODE_ENV?: string } }

/** A client of a rohrpost server. It connects again whenever the connection breaks, until it is closed. */
export class RohrpostClient<C extends Contract = Contract> {
  readonly #emitter = new Emitter()
  readonly #socket: Socket
  readonly #requests: Requests
  readonly #groups: SubscribedGroups
  readonly #backoff: DelayBounds
  /** Whether the console has the warning that there is no connection, or there was one. */
  #isWarned = false
  /** The reason of the state `closed`. */
  #end: RohrpostError | undefined

  /**
   * @param url the address, or a function that is asked for it before each attempt
   * @throws TypeError, RangeError for invalid options; what the WebSocket's constructor throws for an invalid URL
   */
  constructor (url: UrlSource, options: ClientOptions = {}) {
    const {
      WebSocket = globalThis.WebSocket,
      autoConnect = true,
      token: source,
      isFinal = (code: number) => isFinalCode(code, token.renew)
    } = { token: '', ...options }
    check(source == null || /^[fs]/.test(typeof source), 'token', 'a string or a function', source)
    check(typeof WebSocket === 'function', 'WebSocket', 'a class (there is no global one)', WebSocket)
    checkFunction('isFinal', isFinal)
    const durations =
      checkDurations({ pingInterval: 5000, connectTimeout: 10_000, disconnectWhenHidden: Infinity }, options)
    const backoff = this.#backoff = checkBackoff(options.backoff)
    const token = createToken(source, durations.connectTimeout)

    const socket = this.#socket = createSocket({
      ...durations,
      url,
      WebSocket,
      token,
      backoff,
      emitter: this.#emitter,
      isFinal,
      changed: this.#changed,
      received: this.#receive
    })
    this.#requests = createRequests(token, socket.send)
    this.#groups = new SubscribedGroups(this.#requests.request, this.#emitter, backoff)
    if (autoConnect) socket.connect('connect', true)
  }

  /** The state of the connection; the event `state` reports each change. */
  get state (): State {
    return this.#socket.state
  }

  /** The state in the terms of rohrpost-js. */
  get socketState (): 'connecting' | 'open' | 'closed' {
    return this.state === 'waiting' || this.state === 'idle' ? 'closed' : this.state
  }

  /** The names of the groups with a membership of the client. */
  get groups (): ReadonlySet<string> {
    return this.#groups.names
  }

  /** Resolves when requests can be made. Rejects when the client is closed, or with the reason of the signal. */
  ready ({ signal }: { signal?: AbortSignal | undefined } = {}): Promise<void> {
    return this.#wait(signal, true)
  }

  /** Connects, unless there is a connection or an attempt. Does nothing once the client is closed. */
  connect (): void {
    if (this.socketState === 'closed') this.#socket.connect('connect')
  }

  /** Gives up the connection, or the attempt, and connects again. Does nothing once the client is closed. */
  reconnect (): void {
    this.#socket.connect('reconnect')
  }

  /**
   * Sends a request and waits for the reply.
   *
   * @returns the data of the reply. Rejects with a {@link RohrpostError}: without a connection (`offline`: at once, or
   * with `wait` when none came in time), when no reply came in time (`timeout`), when the connection breaks before
   * (`connection_lost`), when the message is larger than the server takes (`too_large`), or with the error of the
   * server
   */
  async call<Name extends CallName<C>> (
    name: Name,
    ...[data, { timeout = 2000, signal, wait = false } = {}]: CallArguments<CallData<C, Name>>
  ): Promise<CallReply<C, Name>> {
    const end = performance.now() + checkDuration('timeout', timeout)
    // a connection can be lost again before the call goes on
    while (this.state !== 'open') await this.#wait(signal, wait, end - performance.now())
    return this.#requests.request(name, data, { timeout: end - performance.now(), signal }) as CallReply<C, Name>
  }

  /**
   * Joins a group, now or when there is a connection, and again after each reconnect until `unsubscribe`. Missed
   * changes arrive then, from servers with history; otherwise `onResync` is called: the state that the application
   * knows may be out of date.
   *
   * @returns the group's name, for `on`. Rejects with a {@link RohrpostError} if the server refuses
   */
  async subscribe<Type extends GroupType<C>> (
    group: { readonly type: Type } & GroupId<C, Type>,
    { signal, onResync }: { signal?: AbortSignal | undefined, onResync?: (() => void) | undefined } = {}
  ): Promise<{ group: GroupName<GroupObject<C, Type>> }> {
    checkFunction('onResync', onResync)
    return waitFor<{ group: string }>(signal, (resolve, reject) => {
      const leave = this.#groups.watch(group)({
        isCall: true,
        joined: resolve,
        missed: () => onResync?.(),
        ended: reject
      })
      return () => signal?.aborted && leave()
    })
  }

  /**
   * Reverts one call of `subscribe`. The client leaves the group with the last of them, unless `changes` or `live`
   * follow it. Resolves at once without a connection.
   */
  unsubscribe<Type extends GroupType<C>> (group: { readonly type: Type } & GroupId<C, Type>): Promise<void> {
    return this.#groups.unsubscribe(group)
  }

  /**
   * Follows a group: `for await (const change of client.changes({ type: 'todo', id: 5 }))`. The client joins it at the
   * call, and leaves it when the loop ends, by itself, by the signal or by `close()`. Changes that were missed while
   * the connection was down arrive later, from servers with history; otherwise a {@link Resync} takes their place, if
   * the option `resync` is set.
   *
   * @throws (the loop) a {@link RohrpostError} if the server refuses, also after a reconnect
   */
  changes<Type extends GroupType<C>> (
    group: { readonly type: Type } & GroupId<C, Type>,
    options: { signal?: AbortSignal | undefined, resync: true }
  ): AsyncIterableIterator<Change<GroupObject<C, Type>> | Resync, undefined>
  changes<Type extends GroupType<C>> (
    group: { readonly type: Type } & GroupId<C, Type>,
    options?: { signal?: AbortSignal | undefined }
  ): AsyncIterableIterator<Change<GroupObject<C, Type>>, undefined>
  changes (
    group: GroupRef,
    { signal, resync }: { signal?: AbortSignal | undefined, resync?: boolean } = {}
  ): AsyncIterableIterator<unknown, undefined> {
    return iterateChanges(this.#groups.watch(group), signal, resync)
  }

  /** Keeps the objects of a group current: loads them, applies each change, loads again if it missed some. */
  live<Type extends GroupType<C>, Item extends GroupObject<C, Type> = GroupObject<C, Type>> (
    group: { readonly type: Type } & GroupId<C, Type>,
    options: LiveOptions<Item>
  ): Live<Item> {
    const watch = this.#groups.watch(group)
    return new Live({ ...options, watch, report: this.#emitter.report, backoff: this.#backoff })
  }

  /** Closes the connection permanently: calls and subscriptions reject, loops over changes end. */
  close (): void {
    this.#socket.close()
  }

  /** Closes the client, and resolves when the connection has ended: `await using client = new RohrpostClient(…)`. */
  async [Symbol.asyncDispose] (): Promise<void> {
    if (this.state === 'closed') return
    await new Promise<void>((resolve) => {
      this.once('closed', resolve)
      this.close()
    })
  }

  /** Adds a listener of an event, or of the changes of a group. */
  on<Name extends EventName> (event: Name, listener: (...args: ClientEvents[Name]) => void): this
  on<Item = Untyped> (group: GroupName<Item>, listener: GroupListener<Item>): this
  on (name: string, listener: (...args: never) => void): this {
    this.#emitter.add(name, listener)
    return this
  }

  /** Adds a listener as `on` does, but for the next time only. */
  once<Name extends EventName> (event: Name, listener: (...args: ClientEvents[Name]) => void): this
  once<Item = Untyped> (group: GroupName<Item>, listener: GroupListener<Item>): this
  once (name: string, listener: (...args: never) => void): this {
    this.#emitter.add(name, listener, true)
    return this
  }

  /** Removes a listener that `on` or `once` added. */
  off<Name extends EventName> (event: Name, listener: (...args: ClientEvents[Name]) => void): this
  off<Item = Untyped> (group: GroupName<Item>, listener: GroupListener<Item>): this
  off (name: string, listener: (...args: never) => void): this {
    this.#emitter.remove(name, listener)
    return this
  }

  /** Waits up to `timeout` milliseconds for the connection, or rejects at once without `wait`. */
  #wait (signal: AbortSignal | undefined, wait: boolean, timeout?: number): Promise<void> {
    const text = 'not connected: see options wait and timeout'
    const offline = () => new RohrpostError(text, { code: ClientErrorCode.OFFLINE, retry: true })
    return waitFor<void>(signal, (resolve, reject) => {
      const update = () => {
        if (this.#end) reject(this.#end)
        else if (this.state === 'open') resolve()
        else if (!wait) reject(offline())
      }
      update()
      this.#emitter.add('state', update)
      return () => this.#emitter.remove('state', update)
    }, timeout, offline)
  }

  readonly #changed = (change: StateChange): void => {
    const { state, reason, code, cause } = change
    const isByApplication = reason === 'close'
    const why = code ? `${code} ${change.text}`.trim() : reason
    if (state === 'open') {
      this.#groups.opened()
    } else if (state !== 'connecting') {
      if (state === 'closed') {
        const text = isByApplication ? 'Socket was closed' : `closed by the server: ${why}`
        this.#end = new RohrpostError(text, { code: ClientErrorCode.CLOSED })
      }
      const error = { code: ClientErrorCode.CONNECTION_LOST, cause: cause ?? why }
      this.#requests.fail(this.#end ?? new RohrpostError('connection lost', error))
      this.#groups.lost(this.#end, isByApplication ? undefined : this.#end)
    }

    this.#emitter.emit('state', state, change)
    if (cause !== undefined) this.#emitter.report(cause)
    // bundlers replace NODE_ENV, and drop this in production; a page without a bundler has no process, and gets no
    // warning
    try {
      if (process.env.NODE_ENV !== 'production' && !this.#isWarned) {
        this.#isWarned = state === 'open' || cause !== undefined
        if (cause !== undefined) console.warn(`rohrpost: could not connect, trying again: ${String(cause)}`)
      }
    } catch {}
    // after close() the socket emits the event when the connection has ended
    if (isByApplication) return
    this.#emitter.emit(state === 'open' ? state : state === 'connecting' ? 'reconnecting' : 'closed')
  }

  readonly #receive = (data: string): void => {
    let message: Untyped
    try {
      message = JSON.parse(data)
    } catch (cause) {
      return this.#emitter.emit('error', `not JSON: ${data}`, cause)
    }
    this.#emitter.emit('message', message)
    if (this.state === 'open') this.#handle(Object(message))
    this.#emitter.emit('log', { direction: 'receive', data })
  }

  #handle (message: ServerMessage): void {
    const { id, type, error, position } = message
    const isPong = type === 'pong'
    // a ping that was refused, because of a rate limit, shows that the connection works, too
    const isBeat = isPong || (type === 'ping' && error)
    if (isBeat) this.#socket.pong()
    if (isPong) this.#emitter.emit('pong')

    if (type === 'subscription-update' && !error) this.#groups.receive(Object(message.data), message.spread)
    else if (!this.#requests.answer(message)) {
      if (isBeat) this.#requests.limit(message.limits?.max_payload)
      else if (type === 'incoming' && id === undefined) this.#socket.expect(Number(message.bytes))
      // messages without id answer no request: they belong to the application
      else if (error || id !== undefined) {
        const text = id === undefined ? show(error) : `no saved request with id: ${show(id)}`
        this.#emitter.emit('error', text, error && toError(message))
      }
    }
    if (position) this.#groups.reached(position)
  }
}
