/**
 * Runs a property with a seed that is the same every time; set FC_SEED for another. With FUZZ=20 it is tried 20 times as often, with a
 * seed of its own (`npm run fuzz`). fast-check names the seed of what it refutes.
 */
import fc from 'fast-check'

/** How many times as often as in CI. */
export const fuzz = Number(process.env.FUZZ ?? 1)

const seed = Number(process.env.FC_SEED ?? (fuzz > 1 ? Date.now() : 20_260_501))

/** How often a property is tried, and whether what refutes it is made smaller first. */
interface Parameters {
  numRuns: number
  endOnFailure?: true
}

/** Demands that a property holds. */
export async function check<Input> (property: fc.IAsyncProperty<Input>, { numRuns, ...parameters }: Parameters): Promise<void> {
  await fc.assert(property, { seed, numRuns: numRuns * fuzz, ...parameters })
}

/** The same for a property that waits for nothing. */
export function checkSync<Input> (property: fc.IProperty<Input>, { numRuns, ...parameters }: Parameters): void {
  fc.assert(property, { seed, numRuns: numRuns * fuzz, ...parameters })
}
