/* global location, WebSocket */
/** A small rohrpost client: calls that are answered or fail in time, over a connection that comes back by itself. */

const CALL_TIMEOUT = 5000
const FIRST_WAIT = 500
const LONGEST_WAIT = 8000

export class Client {
  #url
  #on
  #socket
  #calls = new Map()
  #lastId = 0
  #attempts = 0

  /**
   * @param path where the server takes WebSockets
   * @param on what to call: `open()` when connected, again after each reconnect, to subscribe and load (when it rejects, the connection is
   * given up); `update(data)` for a change; `state(name, detail)` with `connecting`, `live` or `waiting`; `frame(direction, text)` for all that passes
   */
  constructor (path, on) {
    this.#url = new URL(path, location.href)
    this.#url.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:'
    this.#on = on
    this.#connect()
  }

  /** Asks the server. Resolves to the reply's data, rejects with what the server says is wrong, or when there is no answer. */
  call (type, data) {
    return new Promise((resolve, reject) => {
      if (this.#socket.readyState !== WebSocket.OPEN) throw new Error('No connection to the server right now. Please try again in a moment.')

      const id = ++this.#lastId
      const timer = setTimeout(() => this.#settle(id, { error: 'The server did not answer in time.' }), CALL_TIMEOUT)
      this.#calls.set(id, { resolve, reject, timer })
      const text = JSON.stringify({ id, type, data })
      this.#on.frame('sent', text)
      this.#socket.send(text)
    })
  }

  #connect () {
    this.#on.state('connecting')
    const socket = this.#socket = new WebSocket(this.#url)
    socket.addEventListener('open', () => this.#opened(socket))
    socket.addEventListener('message', ({ data }) => this.#receive(data))
    socket.addEventListener('close', ({ code }) => this.#closed(code))
  }

  async #opened (socket) {
    try {
      await this.#on.open()
      this.#attempts = 0
      this.#on.state('live')
    } catch {
      socket.close()
    }
  }

  #receive (text) {
    this.#on.frame('received', text)
    const message = JSON.parse(text)
    // a change has an id as well, but one that the server chose: it answers no call
    if (message.type === 'subscription-update') this.#on.update(message.data)
    else this.#settle(message.id, message)
  }

  #settle (id, { error, data }) {
    const call = this.#calls.get(id)
    if (call === undefined) return
    this.#calls.delete(id)
    clearTimeout(call.timer)
    if (error === undefined) call.resolve(data)
    else call.reject(new Error(error))
  }

  #closed (code) {
    for (const id of this.#calls.keys()) this.#settle(id, { error: 'The connection broke before the server answered.' })

    // full jitter: after a restart, pages come back one by one and not all at once
    const wait = Math.random() * Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** this.#attempts++)
    this.#on.state('waiting', `connection closed (${code}), next attempt in ${(wait / 1000).toFixed(1)} s`)
    setTimeout(() => this.#connect(), wait)
  }
}
