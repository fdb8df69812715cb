/** The client: one connection, the requests on it, and the groups it is in. */
import type { CallData, CallName, CallReply, Contract, GroupId, GroupObject, GroupType, Json } from '../protocol/contract.ts'
import { iterateChanges } from './changes.ts'
import { Emitter } from './emitter.ts'
import { ClientErrorCode, RohrpostError } from './error.ts'
import { Live, type LiveOptions } from './live.ts'
import { Requests, toError, type Message } from './requests.ts'
import { isFinal, Socket, type State, type StateChange } from './socket.ts'
import type { Change, GroupRef, Resync, Watcher } from './subscription.ts'
import { Subscriptions } from './subscriptions.ts'
import { Token } from './token.ts'
import type { CallArguments, ClientEvents, ClientOptions, EventName, GroupListener, GroupName } from './types.ts'
import { onWake, type Scope } from './wake.ts'

const EVENTS: readonly string[] = ['open', 'closed', 'reconnecting', 'ping', 'pong', 'message', 'error', 'log', 'state', 'resync'] satisfies EventName[]
const CALL_TIMEOUT = 2000

/** A client of a rohrpost server. It connects at once, and again whenever the connection breaks, until it is closed. */
export class RohrpostClient<C extends Contract = Contract> {
  readonly #emitter = new Emitter()
  readonly #socket: Socket
  readonly #requests: Requests
  readonly #subscriptions: Subscriptions
  readonly #ready = new Set<PromiseWithResolvers<void>>()
  readonly #sleep: () => void
  /** Why the state is `closed`. */
  #end: RohrpostError | undefined

  /** @throws what the WebSocket's constructor throws, for a URL that is none */
  constructor (url: string | URL, options: ClientOptions = {}) {
    const token = new Token('token' in options ? options.token : '')
    const waits = { min: 500, max: 20_000, ...options.backoff }

    this.#requests = new Requests(token, (text) => this.#send(text))
    this.#subscriptions = new Subscriptions({
      isOpen: () => this.state === 'open',
      request: (type, data, options) => this.#requests.request(type, data, options),
      report: (error) => this.#emit('error', error.message, error),
      failed: (group, error) => this.#emitGroup(group, error),
      resync: (group) => this.#emit('resync', group),
      backoff: waits
    })
    this.#socket = new Socket({
      url: String(url),
      WebSocket: options.WebSocket ?? globalThis.WebSocket,
      token,
      pingInterval: options.pingInterval ?? 5000,
      connectTimeout: options.connectTimeout ?? 10_000,
      backoff: waits,
      isFinal: options.isFinal ?? ((code) => isFinal(code, token.renewable))
    }, {
      changed: (change) => this.#changed(change),
      received: (text) => this.#receive(text),
      ping: () => this.#ping(),
      ended: () => this.#emit('closed')
    })
    this.#sleep = onWake(() => this.#socket.wake(), globalThis as Scope)
  }

  /** What the connection does now; the event `state` tells of each change. */
  get state (): State {
    return this.#socket.state
  }

  /** The state in the words of rohrpost-js. */
  get socketState (): 'connecting' | 'open' | 'closed' {
    return this.state === 'waiting' ? 'closed' : this.state
  }

  /** The names of the groups that the client is in. */
  get groups (): ReadonlySet<string> {
    return this.#subscriptions.groups
  }

  /** Resolves when requests can be made. Rejects when the client is closed, or with the reason of the signal. */
  async ready ({ signal }: { signal?: AbortSignal | undefined } = {}): Promise<void> {
    signal?.throwIfAborted()
    if (this.state === 'open') return
    this.#checkEnd()

    const waiting = Promise.withResolvers<void>()
    const abort = () => waiting.reject(signal?.reason)
    signal?.addEventListener('abort', abort)
    this.#ready.add(waiting)
    try {
      await waiting.promise
    } finally {
      signal?.removeEventListener('abort', abort)
      this.#ready.delete(waiting)
    }
  }

  /**
   * Asks the server and waits for the answer.
   *
   * @returns the data of the reply. Rejects with a {@link RohrpostError}: at once while there is no connection (`offline`), when no answer
   * came in time (`timeout`), when the connection breaks before (`connection_lost`), or with what the server says
   */
  async call<Name extends CallName<C>> (name: Name, ...[data, { timeout = CALL_TIMEOUT, signal } = {}]: CallArguments<CallData<C, Name>>): Promise<CallReply<C, Name>> {
    signal?.throwIfAborted()
    this.#checkEnd()
    if (this.state !== 'open') throw new RohrpostError('not connected', { code: ClientErrorCode.OFFLINE, retry: true })
    return await this.#requests.request(name, data, { timeout, signal }) as CallReply<C, Name>
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
    this.#checkEnd()
    return await this.#subscriptions.subscribe(group, signal, onResync) as { group: string }
  }

  /** Leaves a group that `subscribe` joined. Resolves at once while there is no connection. */
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
    return new Live(options, (watcher) => this.#watch(group, watcher))
  }

  /** Closes the connection for good. Whatever waits is settled: calls and subscriptions are rejected, loops over changes end. */
  close (): void {
    this.#socket.close()
  }

  /** Calls the listener at each event, or at each change of a group. */
  on<Name extends EventName> (event: Name, listener: (...args: ClientEvents[Name]) => void): this
  on<Item = Json> (group: GroupName<Item>, listener: GroupListener<Item>): this
  on (name: string, listener: (...args: never) => void): this {
    this.#emitter.add(name, listener, false)
    return this
  }

  /** As `on`, but for the next time only. */
  once<Name extends EventName> (event: Name, listener: (...args: ClientEvents[Name]) => void): this
  once<Item = Json> (group: GroupName<Item>, listener: GroupListener<Item>): this
  once (name: string, listener: (...args: never) => void): this {
    this.#emitter.add(name, listener, true)
    return this
  }

  /** Takes a listener away that `on` or `once` added. */
  off<Name extends EventName> (event: Name, listener: (...args: ClientEvents[Name]) => void): this
  off<Item = Json> (group: GroupName<Item>, listener: GroupListener<Item>): this
  off (name: string, listener: (...args: never) => void): this {
    this.#emitter.remove(name, listener)
    return this
  }

  #checkEnd (): void {
    if (this.#end !== undefined) throw this.#end
  }

  #watch (group: GroupRef, watcher: Watcher): () => void {
    if (this.#end === undefined) return this.#subscriptions.watch(group, watcher)
    const end = this.#end
    queueMicrotask(() => watcher.ended(end))
    return () => {}
  }

  #changed (change: StateChange): void {
    const { state, reason, code, text, cause } = change
    if (state === 'open') {
      for (const { resolve } of this.#ready) resolve()
      this.#subscriptions.opened()
    } else if (state === 'waiting') {
      this.#requests.fail(new RohrpostError('connection lost', { code: ClientErrorCode.CONNECTION_LOST, cause }))
      this.#subscriptions.lost()
    } else if (state === 'closed') {
      this.#end = new RohrpostError(reason === 'close' ? 'Socket was closed' : `closed by the server: ${code} ${text}`.trim(), { code: ClientErrorCode.CLOSED })
      this.#sleep()
      for (const { reject } of this.#ready) reject(this.#end)
      this.#requests.fail(this.#end)
      this.#subscriptions.end(this.#end, reason === 'close' ? undefined : this.#end)
    }

    this.#emit('state', state, change)
    if (cause !== undefined) this.#emit('error', String(cause), cause)
    if (state === 'open') this.#emit('open')
    else if (state === 'connecting') this.#emit('reconnecting')
    // after close() the socket tells when it has ended
    else if (reason !== 'close') this.#emit('closed')
  }

  #ping (): void {
    this.#send(JSON.stringify({ type: 'ping', id: Date.now() }))
    this.#emit('ping')
  }

  #send (data: string): void {
    this.#socket.send(data)
    this.#emit('log', { direction: 'send', data })
  }

  #receive (data: string): void {
    let message: Json
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
    const { id, type, error, position } = message
    if (position) this.#subscriptions.reached(position)
    if (type === 'subscription-update' && !error) {
      const change: Change<never> | Resync = Object(message.data)
      if (change.type === 'resync') return this.#subscriptions.resync(change.group)
      this.#subscriptions.receive(change)
      this.#emitGroup(change.group, null, change)
      return
    }
    // a ping that was refused, as one too many, is a sign of life too
    const isBeat = type === 'pong' || (type === 'ping' && Boolean(error))
    if (isBeat) this.#socket.pong()
    if (type === 'pong') this.#emit('pong')
    // messages without id answer nothing, they are the application's
    if (!this.#requests.answer(message) && !isBeat && (error || id !== undefined)) {
      this.#emit('error', id === undefined ? String(error) : `no saved request with id: ${String(id)}`, error ? toError(message) : undefined)
    }
  }

  /** The client's own events can't be mistaken for those of a group that is called alike. */
  #emitGroup (group: string, error: RohrpostError | null, change?: Change<never>): void {
    if (!EVENTS.includes(group)) this.#emitter.emit(group, error, change)
  }

  #emit<Name extends EventName> (name: Name, ...args: ClientEvents[Name]): void {
    this.#emitter.emit(name, ...args)
  }
}
