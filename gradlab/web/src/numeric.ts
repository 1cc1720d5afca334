/** Small parts of the formulas: numpy's and Python's functions that they need, under their names there. */

import type { State } from "./state";

export const numbers = (state: State) => state as Record<string, number>;
export const linspace = (low: number, high: number, count: number) =>
  Array.from({ length: count }, (_, at) => low + ((high - low) * at) / (count - 1));
export const clip = (value: number, low: number, high: number) => Math.min(Math.max(value, low), high);
export const sum = (values: readonly number[]) => values.reduce((all, value) => all + value, 0);
export const mean = (values: readonly number[]) => sum(values) / values.length;
export const greatest = (values: readonly number[]) => values.reduce((most, value) => Math.max(most, value), -Infinity);
export const least = (values: readonly number[]) => values.reduce((low, value) => Math.min(low, value), Infinity);
/** The largest size of the values. */
export const largest = (values: readonly number[]) => Math.max(greatest(values), -least(values));
/** The distance of the least value from the greatest, numpy's `ptp`. */
export const spread = (values: readonly number[]) => greatest(values) - least(values);

export function logSum(values: readonly number[]): number {
  const most = greatest(values);
  return most + Math.log(sum(values.map((value) => Math.exp(value - most))));
}

/** The value at a place between points that rise; that of the nearest end beyond them. */
export function interp(at: number, x: readonly number[], y: readonly number[]): number {
  const last = x.length - 1;
  if (at <= x[0]) return y[0];
  if (at >= x[last]) return y[last];
  let [low, high] = [0, last];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (x[middle] <= at) low = middle;
    else high = middle;
  }
  return y[low] + ((y[high] - y[low]) / (x[high] - x[low])) * (at - x[low]);
}

/** A number as Python writes it, up to a whole number's ".0". */
export const repr = (value: number) => padded(value !== 0 && Math.abs(value) < 1e-4 ? value.toExponential() : String(value));

/** A number with six digits, Python's format "g". */
export const general = (value: number) => repr(Number(value.toPrecision(6)));

/** A number with that many decimals, as Python rounds: a tie goes to the even digit, where `toFixed` goes up. */
export function fixed(value: number, digits: number): string {
  if (Math.abs((value * 2 ** (digits + 1)) % 2) !== 1) return value.toFixed(digits);
  const below = Math.floor(value * 10 ** digits);
  return ((below % 2 ? below + 1 : below) / 10 ** digits).toFixed(digits);
}

const padded = (text: string) => text.replace(/e([+-])(\d)$/, "e$10$2");
