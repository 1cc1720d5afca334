/** Policies and preferences of the theory, on cells of a support: gradlab/theory/families.py. */

import { logSum } from "./numeric";

/** A density of width 1 up to a factor, its logarithm, which falls with the size of z, and the z ≥ 0 at which that has a value. */
interface Shape {
  density: (z: number) => number;
  log: (z: number) => number;
  back: (value: number) => number;
}

export const SHAPES: Record<string, Shape> = {
  gaussian: { density: (z) => Math.exp(-0.5 * z * z), log: (z) => -0.5 * z ** 2, back: (value) => Math.sqrt(-2 * value) },
  laplace: { density: (z) => Math.exp(-Math.SQRT2 * Math.abs(z)), log: (z) => -Math.SQRT2 * Math.abs(z), back: (value) => -value / Math.SQRT2 },
  student: {
    density: (z) => (1 + (z * z) / 3) ** -2, log: (z) => -2 * Math.log1p(z ** 2 / 3),
    back: (value) => Math.sqrt(3 * Math.expm1(-value / 2)),
  },
};

/** A mode and a width. */
export type Bump = readonly [mode: number, width: number];

export const cells = (n: number, support = 20) => Array.from({ length: n }, (_, at) => ((at + 0.5) * support) / n - support / 2);

export function normalised(logits: readonly number[]): number[] {
  const all = logSum(logits);
  return logits.map((logit) => logit - all);
}

/** The log-distribution of a shape over responses at y. */
export function onCells(family: string, y: readonly number[], [mode, width]: Bump): number[] {
  const { log } = SHAPES[family];
  return normalised(y.map((at) => log((at - mode) / width)));
}
