/** TypeBox schemas, compiled once to a function that tells what is wrong with a value. TypeBox is loaded only where it is installed. */
import type { FormatRegistry, TSchema } from '@sinclair/typebox'
import type { TypeCheck, TypeCompiler, ValueError } from '@sinclair/typebox/compiler'
import type { HasTransform } from '@sinclair/typebox/value'
import { errors } from '../../errors.ts'
import type * as schemas from '../../protocol/schemas.ts'

/** All that TypeBox says of a value that is none of a union. */
const UNION_TEXT = 'Expected union value'
/** How many values of a union of literals an error lists. */
const SHOWN_VALUES = 20

/** Returns what was expected instead of a value, and at which path in it (after that of the value itself); `undefined` if it is fine. */
export type Check = (value: unknown, at?: string) => string | undefined

/** The parts of TypeBox that the server uses, and the schemas that are made with it. */
interface TypeBox {
  readonly FormatRegistry: Pick<typeof FormatRegistry, 'Has'>
  readonly TypeCompiler: Pick<typeof TypeCompiler, 'Compile'>
  readonly HasTransform: typeof HasTransform
  readonly schemas: typeof schemas
}

/** The key under which TypeBox marks its schemas. */
const KIND: unique symbol = Symbol.for('TypeBox.Kind')
/** Keywords by which JSON Schema is known. */
const KEYWORDS = ['type', 'properties', 'items', 'enum', 'const', 'anyOf', 'allOf', 'oneOf', '$ref']

async function importTypeBox (): Promise<TypeBox> {
  const [{ FormatRegistry }, { TypeCompiler }, { HasTransform }, schemas] = await Promise.all([
    import('@sinclair/typebox'), import('@sinclair/typebox/compiler'), import('@sinclair/typebox/value'), import('../../protocol/schemas.ts')
  ])
  return { FormatRegistry, TypeCompiler, HasTransform, schemas }
}

/** Compiles the schemas of one server. */
export class SchemaCompiler {
  readonly #typebox: TypeBox | Error

  private constructor (typebox: TypeBox | Error) {
    this.#typebox = typebox
  }

  /** Loads TypeBox. An app without schemas needs none: where it can't be loaded, only the use of a schema is an error. */
  static async load (typebox: () => Promise<TypeBox> = importTypeBox): Promise<SchemaCompiler> {
    return new SchemaCompiler(await typebox().catch((error: Error) => error))
  }

  /** The schemas of everything that travels. @throws RP_ERR_TYPEBOX_MISSING */
  get protocol (): TypeBox['schemas'] {
    return this.#load("'app.rohrpost.schemas'").schemas
  }

  /**
   * Compiles a schema.
   *
   * @param part what the schema is for, `data`, `reply` or `id`, and `owner` whose it is; for the error's text
   * @throws RP_ERR_INVALID_SCHEMA for what is no TypeBox schema, for a `format` that nobody registered and for a `Transform`: the
   * first can't be checked, the other would promise a conversion that never happens; RP_ERR_TYPEBOX_MISSING
   */
  compile (schema: TSchema, part: string, owner: string): Check {
    const refuse = (reason: string) => new errors.RP_ERR_INVALID_SCHEMA(part, owner, reason)
    const foreign = foreignTo(schema)
    if (foreign !== undefined) throw refuse(foreign)

    const typebox = this.#load(`The schema '${part}' of '${owner}'`)
    const format = unknownFormat(schema, typebox)
    if (format !== undefined) throw refuse(`format '${format}' is not in TypeBox's FormatRegistry`)

    let checker: TypeCheck<TSchema> | undefined
    try {
      if (!typebox.HasTransform(schema, [])) checker = typebox.TypeCompiler.Compile(schema)
    } catch (error) {
      throw refuse((error as Error).message)
    }
    if (checker === undefined) throw refuse('a Transform is not applied to messages')
    return checkWith(checker)
  }

  #load (user: string): TypeBox {
    if (this.#typebox instanceof Error) throw new errors.RP_ERR_TYPEBOX_MISSING(user, this.#typebox.message)
    return this.#typebox
  }
}

function checkWith (checker: TypeCheck<TSchema>): Check {
  return (value, at = '') => {
    try {
      if (checker.Check(value)) return undefined
      // there is a first one: Check found it
      const { path, schema, message: text } = checker.Errors(value).First() as ValueError
      const place = at + path
      const message = (text === UNION_TEXT && expectedValues(schema)) || text
      return place === '' ? message : `${message} at '${place}'`
    } catch (error) {
      // a recursive schema, and a value nested deeper than the stack
      return (error as Error).message
    }
  }
}

/** Why a value is no schema of TypeBox 0.34, with the name of the package that made it where it is known. */
function foreignTo (schema: unknown): string | undefined {
  if (typeof schema !== 'object' || schema === null) return 'it is not a TypeBox schema'
  if (KIND in schema) return undefined

  const { '~standard': standard } = schema as { '~standard'?: { vendor?: unknown } }
  const kind = '~kind' in schema
    ? "but one of the package 'typebox' (version 1)"
    : standard !== undefined
      ? `but one of the package '${standard.vendor}'`
      : KEYWORDS.some((keyword) => Object.hasOwn(schema, keyword)) && 'but plain JSON Schema'
  return kind === false ? 'it is not a TypeBox schema' : `it is not a TypeBox schema, ${kind}: make it with Type of '@sinclair/typebox' (npm install @sinclair/typebox@0.34)`
}

/** What a union of literals expects, of which TypeBox says no more than that it is a union; `undefined` for any other union. */
function expectedValues (schema: TSchema): string | undefined {
  const values = valuesOf(schema)
  if (values === undefined) return undefined
  const shown = values.slice(0, SHOWN_VALUES).map((value) => typeof value === 'string' ? `'${value}'` : String(value))
  return `Expected one of ${shown.join(', ')}${values.length > shown.length ? `, … (${values.length} values)` : ''}`
}

/** The values of a literal, of `null`, or of a union of these; `undefined` for any other schema. */
function valuesOf (schema: TSchema): unknown[] | undefined {
  const { [KIND]: kind } = schema as { [KIND]?: string }
  if (kind === 'Literal') return [schema.const]
  if (kind === 'Null') return [null]
  if (kind !== 'Union') return undefined
  const members = (schema.anyOf as TSchema[]).map(valuesOf)
  return members.every((values) => values !== undefined) ? members.flat() : undefined
}

/** The first `format` in a schema that would be refused at the first message. */
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
