/** The extrema of a sampled function, and Theorem 3's two statements about them: gradlab/theory/extrema.py. */

import { clip, greatest, largest, least, spread } from "./numeric";

export const ALLOWED_CELLS = 1;
export const ROUNDING = 1e-9;
const NOISE = 1e-12;

export interface Extremum {
  position: number;
  value: number;
  kind: "minimum" | "maximum";
}

export interface Placement {
  extrema: Extremum[];
  /** Signed distance of the worst extremum from the border: ≥ 0 where the statement is true. */
  slack: number;
  /** How far the lowest minimum or the highest maximum lies outside the interval. */
  reach: number;
}

type Values = readonly number[];

/** All local extrema by position; `noise` is the rounding error at each point, by default 1e-12 of the range. */
export function extrema(y: Values, f: Values, noise?: Values): Extremum[] {
  const even = NOISE * spread(f);
  const error = noise ? (at: number) => noise[at] : () => even;
  const rising: number[] = []; // steps that are no rounding
  for (let at = 0; at + 1 < f.length; at++) {
    if (Math.abs(f[at + 1] - f[at]) > Math.max(error(at + 1), error(at))) rising.push(at);
  }
  if (!rising.length) return [];
  const up = rising.map((at) => f[at + 1] > f[at]);
  const found: Extremum[] = [];
  for (let k = 0; k + 1 < rising.length; k++) {
    if (up[k] !== up[k + 1]) found.push(turn(y, f, rising[k] + 1, rising[k + 1], up[k]));
  }
  const [end, last] = [f.length - 1, rising.length - 1];
  for (const [from, to, high] of [[0, rising[0], !up[0]], [rising[last] + 1, end, up[last]]] as const) {
    const best = high ? greatest(f) : least(f);
    const level = [];
    for (let at = from; at <= to; at++) if (Math.abs(f[at] - best) <= error(at)) level.push(at);
    if (!level.length) continue;
    const [first, final] = [level[0], level[level.length - 1]];
    found.push({ position: (y[first] + y[final]) / 2, value: f[first], kind: high ? "maximum" : "minimum" });
  }
  return found.sort((one, other) => one.position - other.position);
}

/** The extremum on the level stretch between two points: its middle, or the vertex of the parabola through three. */
function turn(y: Values, f: Values, first: number, last: number, high: boolean): Extremum {
  const [kind, value] = [high ? "maximum" : "minimum", f[first]] as const;
  if (first !== last) return { position: (y[first] + y[last]) / 2, value, kind };
  const [left, right] = [y[first] - y[first - 1], y[first + 1] - y[first]];
  const [fall, rise] = [f[first] - f[first - 1], f[first + 1] - f[first]];
  const offset = (left ** 2 * rise + right ** 2 * fall) / (2 * (right * fall - left * rise));
  return { position: y[first] + clip(offset, -left / 2, right / 2), value, kind };
}

/** The rounding error of a product w·p with its factor p. */
export function productNoise(product: Values, factor: Values): number[] {
  const most = largest(product.map((value, at) => (factor[at] > 0 ? value / factor[at] : 0)));
  return factor.map((p) => NOISE * most * p);
}

export type Side = "outside" | "inside";

/** Judges the statement that every extremum lies on that side of [low, high]. */
export function placed(side: Side, y: Values, f: Values, low: number, high: number, noise?: Values): Placement {
  const all = extrema(y, f, noise);
  const beyond = ({ position }: Extremum) => Math.max(low - position, position - high);
  const slack = all.map((one) => (side === "outside" ? beyond(one) : -beyond(one))).reduce((a, b) => Math.min(a, b), Infinity);
  const best = (sign: number) => all.reduce((one, other) => (sign * other.value > sign * one.value ? other : one));
  const reach = all.length ? Math.max(beyond(best(-1)), beyond(best(1)), 0) : 0;
  return { extrema: all, slack, reach };
}
