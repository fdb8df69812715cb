import neostandard from 'neostandard'

/** The rooms of lib/ and what each may import from its neighbours; everything else that leaves the room is refused. */
const rooms = {
  protocol: [],
  brokers: ['protocol/', 'util/', 'checks.ts', 'errors.ts'],
  server: ['protocol/', 'util/', 'brokers/broker.ts', 'cut.ts', 'diagnostics.ts', 'errors.ts'],
  testing: ['brokers/broker.ts', 'client/(?:index|error).ts', 'protocol/contract.ts', 'server/(?:background-work|thenable|types).ts'],
  'mikro-orm': ['protocol/', 'util/', 'checks.ts', 'cut.ts', 'diagnostics.ts', 'errors.ts']
}

const boundary = (pattern, message) => ({
  'no-restricted-imports': ['error', { patterns: [{ regex: pattern, message }] }]
})

export default [
  ...neostandard({ ts: true, ignores: ['dist/', 'coverage/', 'node_modules/'] }),
  {
    files: ['**/*.ts'],
    rules: {
      // a constant and its type may share a name; the compiler knows true redeclarations
      '@typescript-eslint/no-redeclare': 'off',
      '@typescript-eslint/no-explicit-any': 'error',
      '@typescript-eslint/no-non-null-assertion': 'error',
      '@typescript-eslint/ban-ts-comment': ['error', { 'ts-expect-error': 'allow-with-description' }],
      'no-restricted-syntax': ['error', { selector: 'ExportAllDeclaration', message: 'List what is exported by name.' }]
    }
  },
  ...Object.entries(rooms).map(([room, neighbours]) => ({
    files: [`lib/${room}/**`],
    rules: boundary(
      `^\\.\\./(?!(?:${neighbours.join('|') || '(?!)'}))`,
      `lib/${room} may import ${neighbours.join(', ') || 'nobody'} only.`
    )
  })),
  {
    files: ['lib/brokers/redis/**'],
    rules: boundary('^\\.\\./(?!broker\\.ts|\\.\\./errors\\.ts|\\.\\./util/)', 'the parts of the Redis broker know each other, the contract, errors and util.')
  },
  {
    // groups know the broker contract and members as { send }, never a connection
    files: ['lib/server/group.ts', 'lib/server/groups.ts'],
    rules: boundary('^(?:\\./(?!(?:envelope|followers|frame|group|thenable)\\.ts)|\\.\\./(?!brokers/broker\\.ts|diagnostics\\.ts|errors\\.ts|protocol/))', 'groups know the broker contract and members as { send }.')
  },
  {
    // registry, requests and groups serve connections and never know them; only their keeper does
    files: ['lib/server/!(connection|connections|groups).ts'],
    rules: boundary('^(?:\\./connections?\\.ts|\\.\\./(?!protocol/|util/|brokers/broker\\.ts|cut\\.ts|diagnostics\\.ts|errors\\.ts))', 'only connections.ts knows a connection.')
  },
  {
    // runs in browsers: no packages, no `node:` modules, and of the protocol only what needs no TypeBox at run time
    files: ['lib/client/**'],
    rules: boundary('^(?!\\./|\\.\\./protocol/(?:codes|contract)\\.ts$)', 'lib/client may import protocol/codes.ts and protocol/contract.ts only.')
  },
  {
    files: ['lib/errors.ts', 'lib/checks.ts', 'lib/cut.ts', 'lib/options.ts'],
    rules: boundary('^\\./(?!errors\\.ts|checks\\.ts|protocol/|server/|brokers/)', 'errors, checks and options know nobody who knows them.')
  }
]
