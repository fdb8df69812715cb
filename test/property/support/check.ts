/** Runs a property with a seed that is the same every time; set FC_SEED for another. fast-check names the seed of what it refutes. */
import fc from 'fast-check'

const seed = Number(process.env.FC_SEED ?? 20_260_501)

/** Demands that a property holds. @param parameters how often it is tried, and whether what refutes it is made smaller first */
export async function check<Input> (property: fc.IAsyncProperty<Input>, parameters: { numRuns: number, endOnFailure?: true }): Promise<void> {
  await fc.assert(property, { seed, ...parameters })
}
