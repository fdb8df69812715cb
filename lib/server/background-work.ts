/**
 * The key under which `app.rohrpost` tells the testing tools about work that goes on when all requests are answered: a list of functions, each of
 * which counts what is under way. Not a part of the public interface.
 */
export const BACKGROUND_WORK: unique symbol = Symbol.for('fastify-rohrpost.background-work') as never

/** What {@link BACKGROUND_WORK} gives. */
export interface BackgroundWork {
  readonly [BACKGROUND_WORK]: (() => number)[]
}
