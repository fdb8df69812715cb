/**
 * The TypeScript of the documents, compiled and run as users would.
 *
 * A comment before a block says more about it: `<!-- continues -->` for one that goes on where the one before ended,
 * `<!-- run -->` for one that is run too, and `<!-- output -->` for the text that running prints.
 * `<!-- run, serves -->` is for one that does not end by itself: it is stopped once it has printed that text. A block of
 * the tutorial is a file (`<!-- file: server.ts -->`), which test/package/tutorial.ts compiles and runs.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import ts from 'typescript'
import { blocksOf, root, type Block, type Document } from './markdown.ts'
import { sources } from '../../../scripts/sources.ts'

/** One or several blocks that make up one module. */
export interface Snippet {
  document: string
  line: number
  /** The code at the lines at which it stands in the document. */
  code: string
  run: boolean
  /** Whether it runs until it is stopped. */
  serves: boolean
  output: string | undefined
}

/** What a snippet may use without a word: the example would be longer than what it shows. */
const GLOBALS = `
import type { MikroORM } from '@mikro-orm/core'
import type { FastifyInstance } from 'fastify'
import type { RohrpostConnection, RohrpostMessage } from 'fastify-rohrpost'
import type { RohrpostClient } from 'fastify-rohrpost/client'

declare global {
  const app: FastifyInstance
  const client: RohrpostClient
  const orm: MikroORM
  const connection: RohrpostConnection
  const message: RohrpostMessage
}
`

export function snippetsOf (document: Document): Snippet[] {
  const snippets: Snippet[] = []
  for (const block of blocksOf(document)) {
    const last = snippets.at(-1)
    if (block.marks.includes('output')) {
      if (last === undefined || !last.run) throw new Error(`${document.name}:${block.line}: the output of nothing that runs`)
      last.output = block.text
    } else if (/^(?:[cm]?ts|typescript)$/.test(block.language) && !isFile(block)) {
      const continues = block.marks.includes('continues')
      if (continues && last === undefined) throw new Error(`${document.name}:${block.line}: there is nothing to continue`)

      if (!continues || last === undefined) {
        snippets.push({
          document: document.name,
          line: block.line,
          code: place(block, ''),
          run: block.marks.includes('run'),
          serves: block.marks.includes('serves'),
          output: undefined
        })
      } else {
        last.code = place(block, last.code)
        last.run ||= block.marks.includes('run')
      }
    }
  }
  return snippets
}

function isFile ({ marks }: Block): boolean {
  return marks.some((mark) => mark.startsWith('file: '))
}

function place (block: Block, before: string): string {
  return before + '\n'.repeat(block.line - before.split('\n').length) + block.text + '\n'
}

/** Compiles all snippets as one program with the project's own settings; gives what is wrong as `document:line: text`. */
export function compile (snippets: Snippet[]): string[] {
  const files = new Map(snippets.map((snippet, index) => [fileURLToPath(new URL(`${snippet.document}.${index}.ts`, root)), snippet]))
  const globals = fileURLToPath(new URL('test/docs/globals.ts', root))
  const codeOf = (path: string) => path === globals ? GLOBALS : files.get(path)?.code

  const { options } = ts.parseJsonConfigFileContent(
    ts.readConfigFile(fileURLToPath(new URL('tsconfig.json', root)), ts.sys.readFile).config, ts.sys, fileURLToPath(root)
  )
  options.moduleDetection = ts.ModuleDetectionKind.Force
  options.paths = Object.fromEntries([...sources].map(([name, url]) => [name, [fileURLToPath(url)]]))

  const host = ts.createCompilerHost(options)
  const { fileExists, readFile } = host
  host.fileExists = (path) => codeOf(path) !== undefined || fileExists(path)
  host.readFile = (path) => codeOf(path) ?? readFile(path)

  const program = ts.createProgram([...files.keys(), globals], options, host)
  return [...files.keys(), globals]
    .map((path) => program.getSourceFile(path))
    .flatMap((file) => [...program.getSyntacticDiagnostics(file), ...program.getSemanticDiagnostics(file)])
    .map(({ file, start, messageText }) => {
      const line = file === undefined ? 0 : file.getLineAndCharacterOfPosition(start ?? 0).line + 1
      return `${files.get(file?.fileName ?? '')?.document ?? file?.fileName}:${line}: ${ts.flattenDiagnosticMessageText(messageText, '\n')}`
    })
}

export interface Outcome {
  code: number | null
  stdout: string
  stderr: string
}

/** Runs a snippet in a process of its own, at the root of the project; where it takes port 3000, on a free one. */
export async function run ({ code, serves, output }: Snippet): Promise<Outcome> {
  const port = await findPort()
  const { NODE_V8_COVERAGE: _, ...env } = process.env
  const child = spawn(process.execPath, [
    '--import', new URL('scripts/use-sources.ts', root).href,
    '--input-type=module-typescript', '-'
  ], { cwd: root, env, timeout: 60_000 })
  child.stdin.end(code.replaceAll(/(?<=\bport: |:)3000\b/g, String(port)))

  const exit = new Promise<number | null>((resolve, reject) => child.once('error', reject).once('close', resolve))
  if (serves) {
    let printed = ''
    child.stdout.on('data', (data) => {
      printed += data
      if (printed.trim() === output?.trim()) child.kill()
    })
  }
  const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)])
  const exitCode = await exit
  return { code: serves && child.signalCode === 'SIGTERM' ? 0 : exitCode, stdout, stderr }
}

async function findPort (): Promise<number> {
  const server = createServer().listen(0)
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}
