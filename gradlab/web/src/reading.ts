/** Words of pictures, places of a pointer, ends of axes: pure functions, without a page. */

import { format } from "d3-format";

const plain = format(".4~g");
const small = format(".3~e");

/** A number for people: four digits, a true minus, words for what is not a number. */
export function spelt(value: number): string {
  if (Number.isNaN(value)) return "no value";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  const text = value !== 0 && Math.abs(value) < 1e-3 ? small(value) : plain(value);
  const [digits, power] = text.split("e"); // d3 writes a true minus before digits
  return power === undefined ? text : `${digits}e${power.replace("+", "").replace("-", "−")}`;
}

/** The place of the number nearest to `at` in numbers that rise; −1 where there is none. */
export function nearest(rising: ArrayLike<number>, at: number): number {
  let low = 0;
  let high = rising.length - 1;
  if (high < 0 || Number.isNaN(at)) return -1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (rising[middle] <= at) low = middle;
    else high = middle;
  }
  return Math.abs(rising[low] - at) <= Math.abs(rising[high] - at) ? low : high;
}

/** The distance of numbers that rise evenly, up to rounding; null for others, and for fewer than two. */
export function stepOf(values: readonly number[]): number | null {
  const step = (values[values.length - 1] - values[0]) / (values.length - 1);
  const even = values.every((value, at) => Math.abs(value - values[0] - at * step) <= 1e-3 * step);
  return step > 0 && even ? step : null;
}

/** The least and the greatest finite number of several arrays; [0, 1] where there is none. */
export function extent(...arrays: ArrayLike<number>[]): [number, number] {
  let least = Infinity;
  let most = -Infinity;
  for (const array of arrays) {
    for (let at = 0; at < array.length; at++) {
      if (!Number.isFinite(array[at])) continue;
      least = Math.min(least, array[at]);
      most = Math.max(most, array[at]);
    }
  }
  return least <= most ? [least, most] : [0, 1];
}

/** The least of 1, 2 and 5 times a power of ten that is not below a value above 0, up to a share `slack` for rounding. */
export function roundUp(value: number, slack = 1e-9): number {
  const power = 10 ** Math.floor(Math.log10(value));
  const times = [1, 2, 5, 10].find((one) => one * power >= value * (1 - slack))!;
  return Number((times * power).toPrecision(1));
}

/** The cell (row, column) at a share of the way right and down, both in [0, 1]; null outside. */
export function cellAt(right: number, down: number, rows: number, columns: number): [number, number] | null {
  if (!(right >= 0 && right < 1 && down >= 0 && down < 1)) return null;
  return [Math.floor(down * rows), Math.floor(right * columns)];
}

/** The cell one step from another by an arrow key, kept inside; null for any other key. */
export function moved(key: string, [row, column]: [number, number], rows: number, columns: number): [number, number] | null {
  const steps: Record<string, [number, number]> = {
    ArrowUp: [-1, 0],
    ArrowDown: [1, 0],
    ArrowLeft: [0, -1],
    ArrowRight: [0, 1],
    Home: [0, -columns],
    End: [0, columns],
  };
  const step = Object.hasOwn(steps, key) ? steps[key] : undefined;
  if (!step) return null;
  const inside = (value: number, count: number) => Math.min(Math.max(value, 0), count - 1);
  return [inside(row + step[0], rows), inside(column + step[1], columns)];
}

/** The cells that a straight stroke from one to another passes, without the first: a quick pointer skips some. */
export function cellsBetween([row, column]: [number, number], [toRow, toColumn]: [number, number]): [number, number][] {
  const steps = Math.max(Math.abs(toRow - row), Math.abs(toColumn - column));
  const part = (from: number, to: number, step: number) => Math.round(from + ((to - from) * step) / steps);
  return Array.from({ length: steps }, (_, at) => [part(row, toRow, at + 1), part(column, toColumn, at + 1)]);
}

/** Colours of values between two ends, linear or logarithmic, as pixels: (length × 4). NaN is left transparent. */
export function pixels(
  values: ArrayLike<number>,
  table: Uint8ClampedArray,
  [low, high]: [number, number],
  logarithmic = false,
): Uint8ClampedArray<ArrayBuffer> {
  const image = new Uint8ClampedArray(values.length * 4);
  const scale = logarithmic ? Math.log : (value: number) => value;
  const [start, span] = [scale(low), scale(high) - scale(low)];
  for (let at = 0; at < values.length; at++) {
    const value = logarithmic ? Math.max(values[at], low) : values[at];
    if (Number.isNaN(value)) continue;
    const share = span > 0 ? Math.min(Math.max((scale(value) - start) / span, 0), 1) : 0.5;
    const color = 3 * Math.min(Math.floor(share * 256), 255);
    image.set([table[color], table[color + 1], table[color + 2], 255], at * 4);
  }
  return image;
}
