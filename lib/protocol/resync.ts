/** Resync messages, which make the members of a group load their data again. */
import { quote } from './encode.ts'

/** Returns the resync message of a group. */
export function encodeResync (group: string): string {
  return `{"type":"subscription-update","data":{"type":"resync","group":${quote(group)}}}`
}
