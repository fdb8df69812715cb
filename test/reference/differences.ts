/** Where our answers differ from those of the original Python server, on purpose. Each row is used by at least one fixture. */
export const differences = {
  'error-code': 'An error carries a `code` for programs beside its text, and an internal one an `error_id`.',
  'parser-text': 'The text of a decode error ends in the words of our parser, not of Python\'s.',
  'early-id': 'An error about the envelope echoes the `id` where it could be read.',
  'falsy-values': 'An `id` of 0, false or "" is echoed, and `data` is sent unless it is undefined; the original drops what is falsy.',
  'id-kinds': 'An `id` is a string, a boolean, null, or a number that keeps its digits (no integer from 2^53 on); else an error. The original takes any value.',
  'type-kinds': 'A `type` is a string, else an error. The original takes any scalar.',
  'error-text': 'An `error` is a non-empty string, and an error message has one. The original sends any value and drops a falsy one.',
  'non-finite': 'NaN and Infinity are no JSON and not read; a number too large for a double is Infinity when parsed, for which JSON writes null.',
  'big-integers': 'A bigint beyond the safe integers is sent as a string.',
  bytes: 'Bytes are sent as base64, not as a list of numbers.',
  'ping-data': '`pong` carries the `data` of its `ping`, whatever it is. The original wraps what is no object and drops {}.',
  'handler-throws': 'A handler that throws is answered with an error, once, and the connection lives with its groups. The original closes with 1011.',
  'one-answer': 'Every request gets exactly one answer with its `id`: a handler that sends none is acknowledged with {id, type}.',
  refusals: 'What the send functions refuse to send is an error with a code of ours.',
  'hostile-values': 'Deep nesting, giant integers and objects in the wrong place are answered. The original closes with 1011.',
  'lone-surrogate': 'A ready-made string with a lone surrogate, which UTF-8 can\'t carry, reaches the members with U+FFFD. In the original they die with 1011.',
  'max-payload': 'A message over `maxPayload`, by default 1 MiB, closes the connection with 1009. The original has no such limit.',
  'group-names': 'A group\'s name is 1 to 200 characters from ! to ~, else an error. The original takes letters, digits, `-`, `_` and `.`, under 100, or closes with 1011.',
  'group-order': 'A sender that is a member reads the group message at its place in the group\'s order, before the reply. In the original, after it.',
  'all-messages': 'A member gets all of many messages that are sent at once. The original drops those after the 101st, silently.',
  subscribe: '`subscribe` is built in, and by default a group\'s id is a safe integer from 0 or a UUID.'
} as const

/** The name of a deliberate difference. */
export type Difference = keyof typeof differences

/** Why a recording is not replayed. */
export const exclusions = {
  'ref-only': 'It asks the original\'s channel layer for its insides.',
  'python-text': 'It shows how Python words its own TypeErrors, or writes 1.0.'
} as const

/** The name of a reason not to replay a recording. */
export type Exclusion = keyof typeof exclusions
