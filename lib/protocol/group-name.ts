const NAME = /^[\x21-\x7e]{1,200}$/

/** Whether a group can be called so: 1 to 200 characters of printable ASCII without spaces. */
export function isGroupName (name: unknown): name is string {
  return typeof name === 'string' && NAME.test(name)
}
