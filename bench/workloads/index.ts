/** All workloads, in the order in which they run. */
import type { Workload } from '../lib/workload.ts'
import { burst } from './burst.ts'
import { diagnostics } from './diagnostics.ts'
import { fanout } from './fanout.ts'
import { flush } from './flush.ts'
import { groups } from './groups.ts'
import { idle } from './idle.ts'
import { log, logDeletion } from './log.ts'
import { orm } from './orm.ts'
import { redis } from './redis.ts'
import { rpc } from './rpc.ts'

export const workloads: readonly Workload[] = [rpc, fanout, burst, groups, idle, redis, orm, flush, log, logDeletion, diagnostics]
