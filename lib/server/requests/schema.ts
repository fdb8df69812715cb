/**
 * Compiler of TypeBox schemas: turns a schema into a function that validates values. TypeBox is an optional dependency,
 * loaded at start.
 */
import type { FormatRegistry, TSchema } from '@sinclair/typebox'
import type { TypeCheck, TypeCompiler, ValueError } from '@sinclair/typebox/compiler'
import type { HasTransform } from '@sinclair/typebox/value'
import { errors } from '../../errors.ts'
import type * as schemas from '../../protocol/schemas.ts'

/** TypeBox's error message for a union, which does not name the expected values. */
const UNION_TEXT = 'Expected union value'
/** Maximum number of expected values in an error message. */
const MAX_LISTED = 20

/**
 * Validates a value. Returns an error message with the expected type and the path, which starts with `at`; `undefined`
 * for a valid value.
 */
export type Check = (value: unknown, at?: string) => string | undefined

/** Used parts of TypeBox, and the protocol schemas, whose module imports TypeBox. */
interface TypeBox {
  readonly FormatRegistry: Pick<typeof FormatRegistry, 'Has'>
  readonly TypeCompiler: Pick<typeof TypeCompiler, 'Compile'>
  readonly HasTransform: typeof HasTransform
  readonly schemas: typeof schemas
}

/** Property that marks a schema of TypeBox. */
const KIND: unique symbol = Symbol.for('TypeBox.Kind')
/** Keywords of JSON Schema, to recognise a schema that was written by hand. */
const KEYWORDS = ['type', 'properties', 'items', 'enum', 'const', 'anyOf', 'allOf', 'oneOf', '$ref']

async function importTypeBox (): Promise<TypeBox> {
  const [{ FormatRegistry }, { TypeCompiler }, { HasTransform }, schemas] = await Promise.all([
    import('@sinclair/typebox'),
    import('@sinclair/typebox/compiler'),
    import('@sinclair/typebox/value'),
    import('../../protocol/schemas.ts')
  ])
  return { FormatRegistry, TypeCompiler, HasTransform, schemas }
}

/** Schema compiler of one server. */
export class SchemaCompiler {
  readonly #typebox: TypeBox | Error

  private constructor (typebox: TypeBox | Error) {
    this.#typebox = typebox
  }

  /**
   * Loads TypeBox. If it is not installed, only the use of a schema is an error: an app without schemas does not need
   * it.
   */
  static async load (typebox: () => Promise<TypeBox> = importTypeBox): Promise<SchemaCompiler> {
    return new SchemaCompiler(await typebox().catch((error: Error) => error))
  }

  /** Schemas of all protocol messages. @throws RP_ERR_TYPEBOX_MISSING */
  get protocol (): TypeBox['schemas'] {
    return this.#require("'app.rohrpost.schemas'").schemas
  }

  /**
   * Compiles a schema.
   *
   * @param part `data`, `reply` or `id`, for error messages
   * @param owner message type or group type of the schema, for error messages
   * @throws RP_ERR_TYPEBOX_MISSING; RP_ERR_INVALID_SCHEMA for a value that is not a TypeBox schema, for a `format` that
   * is not registered and for a `Transform`, because messages are validated but not converted
   */
  compile (schema: TSchema, part: string, owner: string): Check {
    const invalid = (reason: string) => new errors.RP_ERR_INVALID_SCHEMA(part, owner, reason)
    const foreign = foreignTo(schema)
    if (foreign !== undefined) throw invalid(foreign)

    const typebox = this.#require(`The schema '${part}' of '${owner}'`)
    const format = unknownFormat(schema, typebox)
    if (format !== undefined) throw invalid(`format '${format}' is not in TypeBox's FormatRegistry`)

    let checker: TypeCheck<TSchema> | undefined
    try {
      if (!typebox.HasTransform(schema, [])) checker = typebox.TypeCompiler.Compile(schema)
    } catch (error) {
      throw invalid((error as Error).message)
    }
    if (checker === undefined) throw invalid('a Transform is not applied to messages')
    return checkWith(checker)
  }

  #require (user: string): TypeBox {
    if (this.#typebox instanceof Error) throw new errors.RP_ERR_TYPEBOX_MISSING(user, this.#typebox.message)
    return this.#typebox
  }
}

function checkWith (checker: TypeCheck<TSchema>): Check {
  return (value, at = '') => {
    try {
      if (checker.Check(value)) return undefined
      // `Check` failed, so there is at least one error
      const { path, schema, message: text } = checker.Errors(value).First() as ValueError
      const place = at + path
      const message = (text === UNION_TEXT && expectedValues(schema)) || text
      return place === '' ? message : `${message} at '${place}'`
    } catch (error) {
      // a value of a recursive schema is nested deeper than the stack allows
      return (error as Error).message
    }
  }
}

/**
 * Returns why a value is not a schema of TypeBox 0.34, and names the package of the schema if it is known; `undefined`
 * for a TypeBox schema.
 */
function foreignTo (schema: unknown): string | undefined {
  if (typeof schema !== 'object' || schema === null) return 'it is not a TypeBox schema'
  if (KIND in schema) return undefined

  const { '~standard': standard } = schema as { '~standard'?: { vendor?: unknown } }
  const kind = '~kind' in schema
    ? "but one of the package 'typebox' (version 1)"
    : standard !== undefined
      ? `but one of the package '${standard.vendor}'`
      : KEYWORDS.some((keyword) => Object.hasOwn(schema, keyword)) && 'but plain JSON Schema'
  if (kind === false) return 'it is not a TypeBox schema'
  const remedy = "make it with Type of '@sinclair/typebox' (npm install @sinclair/typebox@0.34)"
  return `it is not a TypeBox schema, ${kind}: ${remedy}`
}

/** Returns an error message that lists the values of a union of literals; `undefined` for any other schema. */
function expectedValues (schema: TSchema): string | undefined {
  const values = valuesOf(schema)
  if (values === undefined) return undefined
  const shown = values.slice(0, MAX_LISTED).map((value) => typeof value === 'string' ? `'${value}'` : String(value))
  return `Expected one of ${shown.join(', ')}${values.length > shown.length ? `, … (${values.length} values)` : ''}`
}

/** Returns the values of a literal, of `null`, or of a union of these; `undefined` for any other schema. */
function valuesOf (schema: TSchema): unknown[] | undefined {
  const { [KIND]: kind } = schema as { [KIND]?: string }
  if (kind === 'Literal') return [schema.const]
  if (kind === 'Null') return [null]
  if (kind !== 'Union') return undefined
  const members = (schema.anyOf as TSchema[]).map(valuesOf)
  return members.every((values) => values !== undefined) ? members.flat() : undefined
}

/** Returns the first string `format` in a schema that is not registered: with it, TypeBox would reject every value. */
function unknownFormat (node: unknown, typebox: TypeBox): string | undefined {
  if (typeof node !== 'object' || node === null) return undefined

  const { format, [KIND]: kind } = node as { format?: unknown, [KIND]?: string }
  if (kind === 'String' && typeof format === 'string' && !typebox.FormatRegistry.Has(format)) return format
  for (const child of Object.values(node)) {
    const found = unknownFormat(child, typebox)
    if (found !== undefined) return found
  }
  return undefined
}
