/** The parts of a Markdown document that a test can hold it to: fenced blocks and tables. */
import { readdirSync, readFileSync } from 'node:fs'

/** The root of the project. */
export const root = new URL('../../../', import.meta.url)

export interface Document {
  /** Path from the root, such as `docs/server.md`. */
  name: string
  text: string
}

/** A fenced block. */
export interface Block {
  language: string
  text: string
  /** Number of its first line within the document, from 1. */
  line: number
  /** What the HTML comment before it says, split at commas: `<!-- run, continues -->`. */
  marks: string[]
}

/** Those of the documents that are there, folders with all that is in them. */
export function readDocuments (...names: string[]): Document[] {
  return names
    .flatMap((name) => name.endsWith('/') ? readdirSync(new URL(name, root)).filter((file) => file.endsWith('.md')).map((file) => name + file) : name)
    .flatMap((name) => {
      try {
        return [{ name, text: readFileSync(new URL(name, root), 'utf8') }]
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
        throw error
      }
    })
}

/** One document. Throws if it is not there. */
export function readDocument (name: string): Document {
  return { name, text: readFileSync(new URL(name, root), 'utf8') }
}

export function blocksOf ({ name, text }: Document): Block[] {
  const blocks: Block[] = []
  let open: Block & { lines: string[], indent: string } | undefined
  let marks: string[] = []

  for (const [index, line] of text.split('\n').entries()) {
    const fence = /^(?<indent>\s*)```(?<language>[\w-]*)/.exec(line)?.groups
    if (open !== undefined) {
      if (fence === undefined) {
        open.lines.push(line.startsWith(open.indent) ? line.slice(open.indent.length) : line)
      } else {
        const { language, line, marks, lines } = open
        blocks.push({ language, text: lines.join('\n'), line, marks })
        open = undefined
      }
    } else if (fence !== undefined) {
      open = { language: fence.language ?? '', indent: fence.indent ?? '', text: '', line: index + 2, marks, lines: [] }
      marks = []
    } else if (line.trim() !== '') {
      marks = /^\s*<!--(.*)-->\s*$/.exec(line)?.[1]?.split(',').map((mark) => mark.trim()) ?? []
    }
  }
  if (open !== undefined) throw new Error(`${name}:${open.line - 1}: the fence is not closed`)
  return blocks
}

/** The rows of the first table under a heading, without its head; each cell as it is written. */
export function tableOf ({ name, text }: Document, heading: string): string[][] {
  const section = text.split(/^#+ /m).find((part) => part.startsWith(`${heading}\n`))
  const table = section === undefined ? undefined : /^\|.*\n\|[ |:-]*\n(?<rows>(?:\|.*(?:\n|$))*)/m.exec(section)?.groups?.rows
  if (table === undefined) throw new Error(`${name}: no table under '${heading}'`)
  return table.trim().split('\n').map((row) => row.slice(1, row.lastIndexOf('|')).split(/(?<!\\)\|/).map((cell) => cell.trim()))
}

/** What stands between the first pair of backticks of a cell. */
export function codeOf (cell: string | undefined): string | undefined {
  return /`([^`]*)`/.exec(cell ?? '')?.[1]
}
