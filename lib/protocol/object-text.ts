/** A message that is JSON already. */

/** By this an object's text is found, also of another copy of the package: there may be two in one process. */
const kText = Symbol.for('fastify-rohrpost.object-text')

/** The text of a JSON object. A text that was written as one need not be parsed to know that it is one. */
export class ObjectText {
  readonly [kText]: string

  constructor (text: string) {
    this[kText] = text
  }

  /** The text of an `ObjectText`, of this copy of the package or another; `undefined` for anything else. */
  static of (value: unknown): string | undefined {
    if (typeof value !== 'object' || value === null) return undefined
    const { [kText]: text } = value as Partial<ObjectText>
    return typeof text === 'string' ? text : undefined
  }
}
