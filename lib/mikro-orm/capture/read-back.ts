/** Reads rows by key: what is announced is what a fresh `find` gives. */
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

/** A row to be read. */
export interface Wanted {
  readonly id: string
  /** The row as the ORM knows it, which has its key. */
  readonly row: Row
  readonly notifiedEntity: NotifiedEntity
}

/** How many rows one query reads. */
const PORTION = 2000

/**
 * Reads rows, with one query for each class.
 *
 * @param connection what runs the queries: a transaction, or the client of a connection; by default the primary
 * @returns the rows that are there, by the `id` that was wanted
 */
export async function readRows (
  em: EntityManager,
  connection: Transaction | undefined,
  wanted: readonly Wanted[],
  lockMode?: LockMode.PESSIMISTIC_WRITE
): Promise<Map<string, Row>> {
  const rows = new Map<string, Row>()
  // without the subscribers of the application, and with no entity that it holds
  const fork = em.fork({ freshEventManager: true })
  if (connection !== undefined) fork.setTransactionContext(connection)

  for (const portion of portionsOf(wanted)) {
    const found = await (readColumns(em, connection, portion, lockMode) ?? find(fork, portion, lockMode))
    for (const row of found) rows.set(row.id, row)

    const missing = portion.filter(({ id }) => !rows.has(id))
    // a database that compares texts in its own way, or stores a key in another form, gives the row under another name
    if (missing.length === 0 || found.length <= portion.length - missing.length) continue
    for (const one of missing) {
      const [row] = await find(fork, [one], lockMode)
      if (row !== undefined) rows.set(one.id, row)
    }
  }
  if (wanted.some(({ notifiedEntity }) => notifiedEntity.projection.fields === undefined)) {
    for (const entity of fork.getUnitOfWork(false).getIdentityMap()) guard(entity)
  }
  return rows
}

/** The wanted rows by table, as many as one query takes. */
export function portionsOf<Row extends Wanted> (wanted: readonly Row[]): Row[][] {
  const tables = new Map<string, Row[]>()
  for (const one of wanted) {
    const { schema, meta } = one.row
    const table = `${meta._id}:${schema}`
    const rows = tables.get(table)
    if (rows === undefined) tables.set(table, [one])
    else rows.push(one)
  }
  return [...tables.values()].flatMap((rows) => {
    return Array.from({ length: Math.ceil(rows.length / PORTION) }, (_, i) => rows.slice(i * PORTION, (i + 1) * PORTION))
  })
}

/** Reads the columns of rows that are sent as the database gives them, at a third of the cost of making entities. */
function readColumns (em: EntityManager, connection: Transaction | undefined, wanted: readonly Wanted[], lockMode?: LockMode): Promise<Row[]> | undefined {
  const [{ row, notifiedEntity: { meta, projection: { columns } } }] = wanted as [Wanted]
  if (columns === undefined) return

  const platform = em.getPlatform()
  const quoted = columns.map(({ column }) => platform.quoteIdentifier(column))
  const keys = wanted.flatMap(({ row: { databaseKey } }) => databaseKey)
  // the key is the first column
  const where = `${quoted[0]} in (${keys.map(() => '?').join(', ')})`
  const sql = `select ${quoted.join(', ')} from ${tableOf(em, row)} where ${where}${lockMode === undefined ? '' : ' for update'}`

  return em.getConnection('write').execute(sql, keys, 'all', connection).then((found: Array<Record<string, unknown>>) => found.map((values) => {
    const data: Record<string, unknown> = {}
    for (const { name, column } of columns) data[name] = values[column]
    return row.withColumns(data, meta)
  }))
}

/** The quoted name of a row's table. */
export function tableOf (em: EntityManager, { meta: { root }, schema }: Row): string {
  const driver = em.getDriver() as unknown as { getTableName (meta: EntityMetadata, options: { schema: string | undefined }): string }
  return driver.getTableName(root, { schema })
}

async function find (em: EntityManager, wanted: readonly Wanted[], lockMode: LockMode.PESSIMISTIC_WRITE | undefined): Promise<Row[]> {
  const [{ row: { meta, schema }, notifiedEntity }] = wanted as [Wanted]
  const { fields, populate } = notifiedEntity.projection
  const options: FindOptions<object> = {
    filters: false,
    populate: populate as never,
    // a lock would take the rows of joined tables too
    strategy: LoadStrategy.SELECT_IN,
    connectionType: 'write',
    cache: false,
    disableIdentityMap: false,
    ...(fields && { fields: fields as never }),
    ...(schema && { schema }),
    ...(lockMode && { lockMode })
  }
  const entities = await em.find(meta.class, whereOf(meta, wanted), options as never) as object[]
  return entities.map((entity) => new Row(wrap(entity, true).__meta, entity, originalData(entity) as RowData, em, RowSource.Read))
}

function whereOf ({ primaryKeys }: EntityMetadata, wanted: readonly Wanted[]): never {
  const keys = wanted.map(({ row }) => row.primaryKey)
  return { [Utils.getPrimaryKeyHash(primaryKeys)]: keys.length === 1 ? keys[0] : { $in: keys } } as never
}

/** Makes properties that were not loaded throw when a function of the application reads them: `undefined` would be sent as if it were their value. */
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
    // not enumerable: what serializes the entity leaves the property out, as it does without the getter
    Object.defineProperty(entity, name, { get () { throw new NotLoadedError(property) }, enumerable: false, configurable: true })
  }
}
