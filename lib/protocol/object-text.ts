/** The text of a JSON object: what was written as one need not be parsed to know that it is one. */
export class ObjectText {
  readonly text: string

  constructor (text: string) {
    this.text = text
  }
}
