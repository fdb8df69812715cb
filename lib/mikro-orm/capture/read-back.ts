/** Read-back: reads changed rows by key before the COMMIT, with the result of a fresh `find`. */
import {
  Collection,
  LoadStrategy,
  Utils,
  wrap,
  type EntityManager,
  type EntityMetadata,
  type FindOptions,
  type LockMode,
  type Transaction
} from '@mikro-orm/core'
import type { NotifiedEntity } from '../declare/entity-registry.ts'
import { NotLoadedError, originalData, Row, RowSource, type RowData } from '../row.ts'

/** A row to read back. */
export interface ReadBackRow {
  readonly id: string
  /** The row as the ORM has it, with the key. */
  readonly row: Row
  readonly notifiedEntity: NotifiedEntity
}

/** Rows per query. */
const PORTION = 2000

/**
 * Reads rows, with one query for each class.
 *
 * @param connection a transaction or the client of a connection, which runs the queries. By default the primary
 * @returns the existing rows, by `id`
 */
export async function readRows (
  em: EntityManager,
  connection: Transaction | undefined,
  requested: readonly ReadBackRow[],
  lockMode?: LockMode.PESSIMISTIC_WRITE
): Promise<Map<string, Row>> {
  const rows = new Map<string, Row>()
  let fork: EntityManager | undefined
  const find = (portion: readonly ReadBackRow[]) => {
    fork ??= forkFor(em, connection)
    return findRows(fork, portion, lockMode)
  }

  for (const portion of portionsOf(requested)) {
    const found = await (readColumns(em, connection, portion, lockMode) ?? find(portion))
    for (const row of found) rows.set(row.id, row)

    const missing = portion.filter(({ id }) => !rows.has(id))
    // a database with its own comparison of texts, or with another form of a key, returns a row with another key
    if (missing.length === 0 || found.length <= portion.length - missing.length) continue
    for (const one of missing) {
      const [row] = await find([one])
      if (row !== undefined) rows.set(one.id, row)
    }
  }
  if (fork !== undefined && requested.some(({ notifiedEntity }) => notifiedEntity.projection.fields === undefined)) {
    for (const entity of fork.getUnitOfWork(false).getIdentityMap()) guard(entity)
  }
  return rows
}

/** Makes an EntityManager without the application's subscribers and entities. */
function forkFor (em: EntityManager, connection: Transaction | undefined): EntityManager {
  const fork = em.fork({ freshEventManager: true })
  if (connection !== undefined) fork.setTransactionContext(connection)
  return fork
}

/** Groups rows by table, in portions for one query. */
export function portionsOf<Row extends ReadBackRow> (requested: readonly Row[]): Row[][] {
  const tables = new Map<string, Row[]>()
  for (const one of requested) {
    const { schema, meta } = one.row
    const table = `${meta._id}:${schema}`
    const rows = tables.get(table)
    if (rows === undefined) tables.set(table, [one])
    else rows.push(one)
  }
  return [...tables.values()].flatMap((rows) => {
    const count = Math.ceil(rows.length / PORTION)
    return Array.from({ length: count }, (_, i) => rows.slice(i * PORTION, (i + 1) * PORTION))
  })
}

/** Reads columns without making entities, at a third of the cost, for rules that send the values of the database. */
function readColumns (
  em: EntityManager,
  connection: Transaction | undefined,
  requested: readonly ReadBackRow[],
  lockMode?: LockMode.PESSIMISTIC_WRITE
): Promise<Row[]> | undefined {
  const sql = columnQuery(em, requested)
  if (sql === undefined) return
  const query = lockMode === undefined ? sql : `${sql} for update`
  return em.getConnection('write').execute(query, [], 'all', connection).then((found: ColumnValues[]) => {
    return found.map((values) => toRow(values, requested))
  })
}

/** Column values of a row, by column name. */
export type ColumnValues = Readonly<Record<string, unknown>>

/**
 * Makes the query that reads the columns of rows of one table; `undefined` if a rule needs entities. The keys are in
 * its text, quoted as MikroORM quotes the parameters of all queries.
 */
export function columnQuery (em: EntityManager, requested: readonly ReadBackRow[]): string | undefined {
  const [{ row, notifiedEntity: { projection: { columns } } }] = requested as [ReadBackRow]
  if (columns === undefined) return
  const platform = em.getPlatform()
  const quoted = columns.map(({ column }) => platform.quoteIdentifier(column))
  const keys = requested.flatMap(({ row: { databaseKey } }) => databaseKey.map((value) => platform.quoteValue(value)))
  // the first column is the key
  return `select ${quoted.join(', ')} from ${tableOf(em, row)} where ${quoted[0]} in (${keys.join(', ')})`
}

/** Makes a row from the result of `columnQuery`. */
export function toRow (values: ColumnValues, requested: readonly ReadBackRow[]): Row {
  const [{ row, notifiedEntity: { meta, projection: { columns = [] } } }] = requested as [ReadBackRow]
  const data: Record<string, unknown> = {}
  for (const { name, column } of columns) data[name] = values[column]
  return row.withColumns(data, meta)
}

/** Returns the quoted name of a row's table. */
export function tableOf (em: EntityManager, { meta: { root }, schema }: Row): string {
  const driver = em.getDriver() as unknown as {
    getTableName (meta: EntityMetadata, options: { schema: string | undefined }): string
  }
  return driver.getTableName(root, { schema })
}

async function findRows (
  em: EntityManager,
  requested: readonly ReadBackRow[],
  lockMode: LockMode.PESSIMISTIC_WRITE | undefined
): Promise<Row[]> {
  const [{ row: { meta, schema }, notifiedEntity }] = requested as [ReadBackRow]
  const { fields, populate } = notifiedEntity.projection
  const options: FindOptions<object> = {
    filters: false,
    populate: populate as never,
    // with joins the lock would include rows of other tables
    strategy: LoadStrategy.SELECT_IN,
    connectionType: 'write',
    cache: false,
    disableIdentityMap: false,
    ...(fields && { fields: fields as never }),
    ...(schema && { schema }),
    ...(lockMode && { lockMode })
  }
  const entities = await em.find(meta.class, whereOf(meta, requested), options as never) as object[]
  return entities.map((entity) => {
    return new Row(wrap(entity, true).__meta, entity, originalData(entity) as RowData, em, RowSource.Read)
  })
}

function whereOf ({ primaryKeys }: EntityMetadata, requested: readonly ReadBackRow[]): never {
  const keys = requested.map(({ row }) => row.primaryKey)
  return { [Utils.getPrimaryKeyHash(primaryKeys)]: keys.length === 1 ? keys[0] : { $in: keys } } as never
}

/**
 * Makes properties that were not loaded throw when a data function reads them. Otherwise `undefined` would be sent as
 * their value.
 */
function guard (entity: object): void {
  const { __meta: meta, __initialized: isInitialized, __loadedProperties: loaded } = wrap(entity, true)
  for (const { name, primary, persist, formula, lazy } of meta.props) {
    if (primary === true || (persist === false && formula === undefined)) continue
    const value = (entity as Record<string, unknown>)[name]
    const isMissing = value instanceof Collection
      ? !value.isInitialized()
      : value === undefined && (!isInitialized || (lazy === true && !loaded.has(name)))
    if (!isMissing) continue
    const property = isInitialized ? name : `${meta.className}.${name}`
    // not enumerable: a serializer skips the property, as it does without the getter
    Object.defineProperty(entity, name, {
      get () { throw new NotLoadedError(property) },
      enumerable: false,
      configurable: true
    })
  }
}
