/** TypeBox schemas, compiled once to a function that tells what is wrong with a value. */
import { Kind, FormatRegistry, type TSchema } from '@sinclair/typebox'
import { TypeCompiler, type TypeCheck, type ValueError } from '@sinclair/typebox/compiler'
import { HasTransform } from '@sinclair/typebox/value'
import { errors } from '../errors.ts'

/** Returns what was expected instead of a value, and at which path in it (after that of the value itself); `undefined` if it is fine. */
export type Check = (value: unknown, at?: string) => string | undefined

/**
 * Compiles a schema.
 *
 * @param part what the schema is for, `data`, `reply` or `id`, and `owner` whose it is; for the error's text
 * @throws RP_ERR_INVALID_SCHEMA for what is no TypeBox schema, for a `format` that nobody registered and for a `Transform`: the
 * first can't be checked, the other would promise a conversion that never happens
 */
export function compile (schema: TSchema, part: string, owner: string): Check {
  const refuse = (reason: string) => new errors.RP_ERR_INVALID_SCHEMA(part, owner, reason)

  if (typeof schema !== 'object' || schema === null || !(Kind in schema)) throw refuse('it is not a TypeBox schema')
  const format = unknownFormat(schema)
  if (format !== undefined) throw refuse(`format '${format}' is not in TypeBox's FormatRegistry`)

  let checker: TypeCheck<TSchema> | undefined
  try {
    if (!HasTransform(schema, [])) checker = TypeCompiler.Compile(schema)
  } catch (error) {
    throw refuse((error as Error).message)
  }
  if (checker === undefined) throw refuse('a Transform is not applied to messages')

  return (value, at = '') => {
    try {
      if (checker.Check(value)) return undefined
      // there is a first one: Check found it
      const { path, message } = checker.Errors(value).First() as ValueError
      const place = at + path
      return place === '' ? message : `${message} at '${place}'`
    } catch (error) {
      // a recursive schema, and a value nested deeper than the stack
      return (error as Error).message
    }
  }
}

/** The first `format` in a schema that would be refused at the first message. */
function unknownFormat (node: unknown): string | undefined {
  if (typeof node !== 'object' || node === null) return undefined

  const { format, [Kind]: kind } = node as { format?: unknown, [Kind]?: string }
  if (kind === 'String' && typeof format === 'string' && !FormatRegistry.Has(format)) return format
  for (const child of Object.values(node)) {
    const found = unknownFormat(child)
    if (found !== undefined) return found
  }
  return undefined
}
