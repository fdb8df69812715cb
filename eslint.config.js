import importX from 'eslint-plugin-import-x'
import neostandard from 'neostandard'

/**
 * The folders of lib/ and what each may import from the rest of lib/, beside its own files. The longest matching folder or file decides.
 * docs/architecture.md draws the same.
 */
const allowed = {
  protocol: ['util/portions.ts'],
  util: ['errors.ts', 'protocol/encode.ts'],
  brokers: ['errors.ts', 'util', 'protocol'],
  'brokers/redis': ['errors.ts', 'util', 'brokers/broker.ts', 'brokers/history.ts', 'brokers/not-published.ts'],
  'brokers/database': ['errors.ts', 'util', 'brokers/broker.ts', 'brokers/history.ts', 'brokers/not-published.ts', 'brokers/transaction-log.ts'],
  server: ['errors.ts', 'diagnostics.ts', 'util', 'protocol', 'brokers/broker.ts'],
  'mikro-orm': ['errors.ts', 'diagnostics.ts', 'util', 'protocol', 'brokers/transaction-log.ts', 'server/internals.ts'],
  client: ['protocol/codes.ts', 'protocol/contract.ts'],
  testing: ['brokers/broker.ts', 'client/index.ts', 'client/error.ts', 'protocol/contract.ts', 'server/internals.ts', 'server/types.ts', 'util/thenable.ts', 'util/within.ts'],
  'errors.ts': ['protocol/encode.ts'],
  'diagnostics.ts': ['server/types.ts']
}

/** Parts of lib/server and the rest of lib/server that each may import. */
const server = {
  requests: ['report.ts', 'types.ts', 'sending/envelope.ts'],
  sending: ['types.ts'],
  groups: ['types.ts', 'sending/envelope.ts', 'sending/frame.ts', 'requests/middleware.ts', 'requests/registry.ts', 'requests/schema.ts'],
  upgrade: ['report.ts', 'types.ts', 'requests/wire-error.ts']
}

/**
 * Parts of lib/mikro-orm and the rest of lib/mikro-orm that each may import. The rules of declare/ do not know
 * transactions, capture/ does not know notifications, and announce/ does not know events: change-subscriber.ts
 * composes the three.
 */
const mikroOrm = {
  'row.ts': [],
  declare: ['row.ts'],
  capture: ['row.ts', 'declare/entity-registry.ts', 'declare/rules.ts'],
  announce: [
    'row.ts',
    'declare/compiled-rule.ts', 'declare/entity-registry.ts', 'declare/notification.ts', 'declare/rules.ts',
    'capture/change-log.ts', 'capture/commit.ts', 'capture/commit-order.ts', 'capture/commit-reads.ts', 'capture/commit-stamps.ts',
    'capture/committed-rows.ts', 'capture/read-back.ts', 'outbox/outbox.ts'
  ],
  outbox: ['capture/commit-stamps.ts'],
  'change-subscriber.ts': ['row.ts', 'declare', 'capture', 'announce']
}

const zones = [
  ...Object.entries(allowed).map(([folder, others]) => zone('lib', folder, others)),
  ...Object.entries(server).map(([folder, others]) => zone('lib/server', folder, others)),
  ...Object.entries(mikroOrm).map(([folder, others]) => zone('lib/mikro-orm', folder, others))
]

function zone (from, folder, others) {
  return {
    target: `./${from}/${folder}`,
    from: `./${from}`,
    except: [folder, ...others].map((path) => `./${path}`),
    message: `${from}/${folder} may import ${others.join(', ') || 'nothing else'} only.`
  }
}

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
  {
    files: ['lib/**'],
    plugins: { 'import-x': importX },
    settings: { 'import-x/parsers': { '@typescript-eslint/parser': ['.ts'] }, 'import-x/extensions': ['.ts'] },
    rules: {
      'import-x/no-restricted-paths': ['error', { zones }],
      'import-x/no-cycle': 'error',
      '@stylistic/max-len': ['error', { code: 120, ignoreUrls: true }]
    }
  },
  {
    // the client runs in browsers
    files: ['lib/client/**'],
    rules: { 'no-restricted-imports': ['error', { patterns: [{ regex: '^[^.]', message: 'lib/client imports no package and no module of Node.js.' }] }] }
  }
]
