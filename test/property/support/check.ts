/**
 * Runs property tests with a fixed seed, or with FC_SEED. With FUZZ=20 there are 20 times as many runs, with a random
 * seed (`npm run fuzz`). fast-check reports the seed of a counterexample.
 */
import fc from 'fast-check'

/** Factor for the number of runs. */
export const fuzz = Number(process.env.FUZZ ?? 1)

const seed = Number(process.env.FC_SEED ?? (fuzz > 1 ? Date.now() : 20_260_501))

/** The number of runs, and whether a counterexample is shrunk. */
interface Parameters {
  numRuns: number
  endOnFailure?: true
}

/** Asserts that a property holds. */
export async function check<Input> (property: fc.IAsyncProperty<Input>, { numRuns, ...parameters }: Parameters): Promise<void> {
  await fc.assert(property, { seed, numRuns: numRuns * fuzz, ...parameters })
}

/** Asserts that a synchronous property holds. */
export function checkSync<Input> (property: fc.IProperty<Input>, { numRuns, ...parameters }: Parameters): void {
  fc.assert(property, { seed, numRuns: numRuns * fuzz, ...parameters })
}
