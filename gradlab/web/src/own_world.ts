/** Worlds of one's own: from files, and as the text that a state keeps. Pure, without a page. */

import { readTable, type Table } from "./tables";
import { checkWorld, logSoftmax, type World } from "./world";

/** The largest prompts × responses² that the page trains on: two trainings of 500 steps then take about four seconds. */
const MOST_PAIRS = 1_000_000;
const MOST_PROMPTS = 1000; // rows of a map

/** The arrays of `gradlab.World` that a file may set. */
export type Part = "utility" | "observed" | "ref_logp";
const PARTS = ["utility", "observed", "ref_logp", "hidden_pairs", "lengths"];

/** Says why a world of this size is too large for a page; null if it is not. */
export function tooLarge(prompts: number, responses: number): string | null {
  const refused = (name: string, most: number, got: string) =>
    `${name} must be at most ${most.toLocaleString("en")} in a page, got ${got}; Python takes more`;
  if (prompts > MOST_PROMPTS) return refused("prompts", MOST_PROMPTS, `${prompts}`);
  if (prompts * responses ** 2 > MOST_PAIRS) return refused("prompts × responses²", MOST_PAIRS, `${prompts} × ${responses}²`);
  return null;
}

/**
 * The world of a file. A file for "utility" may be CSV, .npy, or JSON with the arrays of `gradlab.World`; every response
 * is observed, and the reference uniform, where it does not say otherwise. Files for the other parts are tables that
 * replace that part of `shown`; a reference has probabilities or their logarithms. Throws an Error of one sentence.
 */
export function worldOfFile(bytes: Uint8Array, part: Part, shown: World | null): World {
  const start = new TextDecoder().decode(bytes.subarray(0, 64)).trimStart()[0];
  if (start === "{" || start === "[") {
    if (part !== "utility") throw new Error("a JSON file must be loaded as a world");
    return fit(parsed(new TextDecoder().decode(bytes)));
  }
  const table = readTable(bytes);
  if (part === "utility" || !shown) return fit(plain(table));
  const { prompts, responses } = shown;
  if (table.rows !== prompts || table.columns !== responses) {
    throw new Error(`${part} must have ${prompts} rows of ${responses}, as the world has, got ${table.rows} of ${table.columns}`);
  }
  return fit(part === "observed" ? { ...shown, observed: flags(table.values, part) } : { ...shown, refLogp: reference(table) });
}

/** A world as text: JSON of what differs from a uniform reference, every pair in the data and one token each. Exact. */
export function textOfWorld({ prompts, responses, utility, observed, refLogp, hiddenPairs, lengths }: World): string {
  const rows = (values: ArrayLike<number>, count: number) => {
    const width = values.length / count;
    return Array.from({ length: count }, (_, row) => Array.from({ length: width }, (__, at) => values[row * width + at]));
  };
  const even = uniform(prompts, responses);
  return JSON.stringify({
    utility: rows(utility, prompts),
    ...(!observed.every(Boolean) && { observed: rows(observed, prompts) }),
    ...(refLogp.some((value, at) => value !== even[at]) && { ref_logp: rows(refLogp, prompts) }),
    ...(hiddenPairs && { hidden_pairs: rows(hiddenPairs, prompts).map((all) => rows(all, responses)) }),
    ...(lengths && { lengths: rows(lengths, prompts) }),
  });
}

let last: { text: string; world: World } | null = null;

/** The world of a text, not to be changed; the last one is kept. Throws an Error of one sentence. */
export function worldOfText(text: string): World {
  if (last?.text !== text) last = { text, world: fit(parsed(text)) };
  return last.world;
}

/** Says why a text is no world; null if it is one, or empty. */
export function worldRefusal(text: string): string | null {
  try {
    if (text) worldOfText(text);
    return null;
  } catch (error) {
    return (error as Error).message;
  }
}

function fit(world: World): World {
  const reason = tooLarge(world.prompts, world.responses);
  if (reason) throw new Error(reason);
  return checkWorld(world);
}

function plain({ rows: prompts, columns: responses, values }: Table): World {
  if (responses < 2) throw new Error(`a world must have at least 2 responses, got ${responses}`);
  const observed = new Uint8Array(values.length).fill(1);
  return { prompts, responses, utility: values, observed, refLogp: uniform(prompts, responses) };
}

function uniform(prompts: number, responses: number): Float64Array {
  return logSoftmax(new Float64Array(prompts * responses), responses);
}

/** The world of a JSON text: arrays by name, or utilities alone. */
function parsed(text: string): World {
  let found: unknown;
  try {
    found = JSON.parse(text);
  } catch (error) {
    throw new Error(`a world must be JSON: ${(error as Error).message}`);
  }
  const parts = (Array.isArray(found) ? { utility: found } : found) as Record<string, unknown>;
  const odd = Object.keys(parts).find((name) => !PARTS.includes(name));
  if (odd !== undefined) throw new Error(`a world must have no other parts than ${PARTS.join(", ")}, got "${odd.slice(0, 40)}"`);
  const world = plain(tableOf(parts.utility, "utility"));
  const { prompts, responses } = world;
  const same = (name: string, { rows, columns, values }: Table, wanted = prompts) => {
    if (rows === wanted && columns === responses) return values;
    throw new Error(`${name} must have ${wanted} rows of ${responses} numbers, got ${rows} of ${columns}`);
  };
  if (parts.observed != null) world.observed = flags(same("observed", tableOf(parts.observed, "observed")), "observed");
  if (parts.ref_logp != null) world.refLogp = same("ref_logp", tableOf(parts.ref_logp, "ref_logp"));
  if (parts.lengths != null) world.lengths = same("lengths", tableOf(parts.lengths, "lengths"));
  if (parts.hidden_pairs != null) {
    if (!Array.isArray(parts.hidden_pairs)) throw new Error("hidden_pairs must be a list of tables");
    const table = tableOf(parts.hidden_pairs.flat(), "hidden_pairs");
    world.hiddenPairs = flags(same("hidden_pairs", table, prompts * responses), "hidden_pairs");
  }
  return world;
}

/** A table from rows in JSON; true and false count as 1 and 0. */
function tableOf(rows: unknown, name: string): Table {
  const all = Array.isArray(rows) ? rows : [];
  const columns = Array.isArray(all[0]) ? all[0].length : 0;
  if (!columns || !all.every((row) => Array.isArray(row) && row.length === columns)) {
    throw new Error(`${name} must be a list of rows of one length`);
  }
  const values = (all as unknown[][]).flat();
  const odd = values.find((value) => typeof value !== "boolean" && !Number.isFinite(value));
  if (odd !== undefined) throw new Error(`${name} must be numbers, got ${JSON.stringify(odd).slice(0, 40)}`);
  return { rows: all.length, columns, values: Float64Array.from(values, Number) };
}

function flags(values: Float64Array, name: string): Uint8Array {
  const odd = values.find((value) => value !== 0 && value !== 1);
  if (odd !== undefined) throw new Error(`${name} must be 0 or 1, or false or true, got ${odd}`);
  return Uint8Array.from(values);
}

/** log π_ref of a table of probabilities, or of their logarithms. */
function reference({ columns, values }: Table): Float64Array {
  const logarithms = values.every((value) => value <= 0);
  if (!logarithms && !values.every((value) => value > 0)) {
    const odd = values.find((value) => value <= 0);
    throw new Error(`a reference must have probabilities above 0, or their logarithms, got ${odd}`);
  }
  const logp = logarithms ? values : values.map(Math.log);
  for (let row = 0; row < logp.length; row += columns) {
    const total = logp.subarray(row, row + columns).reduce((sum, value) => sum + Math.exp(value), 0);
    if (Math.abs(total - 1) > 1e-6) {
      const got = `${total.toPrecision(6)} in prompt ${row / columns}`;
      throw new Error(`a reference must sum to one in every prompt, got a sum of ${got}`);
    }
  }
  return logp;
}
