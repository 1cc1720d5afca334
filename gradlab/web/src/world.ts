/** Worlds and their pairs, as in gradlab/lab/world.py: equal settings and seeds give equal worlds and equal data. */

import { Stream } from "./random";

/** X prompts with Y responses each; tables are (X, Y), row by row, and pairs (X, Y, Y); 1 in `observed` means seen. */
export interface World {
  prompts: number;
  responses: number;
  utility: Float64Array;
  observed: Uint8Array;
  refLogp: Float64Array;
  hiddenPairs?: Uint8Array;
  /** Tokens of each response; absent: 1 each. */
  lengths?: Float64Array;
}

export type Labels = "soft" | "hard";
export const UTILITIES = ["gaussian", "gaussian-random", "log-gaussian", "independent"] as const;
export const REFERENCES = ["uniform", "random", "shifted"] as const;
export const MASK_KINDS = ["responses", "pairs"] as const;

/** The settings of `gradlab.gaussian_world`; other worlds come as arrays. */
export interface WorldSettings {
  prompts: number;
  responses: number;
  utility: (typeof UTILITIES)[number];
  sigma: number;
  scale: number;
  jitter: number;
  maskRate: number;
  maskKind: (typeof MASK_KINDS)[number];
  reference: (typeof REFERENCES)[number];
  shift: number;
  referenceSigma: number;
  seed: number;
}

const PAPERS_GRID: Readonly<WorldSettings> = {
  prompts: 20,
  responses: 20,
  utility: "gaussian",
  sigma: 3,
  scale: 4,
  jitter: 0.5,
  maskRate: 0,
  maskKind: "responses",
  reference: "uniform",
  shift: 6,
  referenceSigma: 3,
  seed: 0,
};

/** Builds the paper's synthetic world, or a variant of it. Throws an Error of one sentence for settings out of range. */
export function gaussianWorld(changes: Partial<WorldSettings> = {}): World {
  const settings = { ...PAPERS_GRID, ...changes };
  const { prompts, responses, seed } = settings;
  if (!Number.isInteger(prompts) || prompts < 1) throw new Error(`prompts must be a whole number of at least 1, got ${prompts}`);
  if (!Number.isInteger(responses) || responses < 2) {
    throw new Error(`responses must be a whole number of at least 2, got ${responses}`);
  }
  for (const name of ["sigma", "scale", "referenceSigma"] as const) {
    if (!(settings[name] > 0 && settings[name] < Infinity)) throw new Error(`${name} must be above 0, got ${settings[name]}`);
  }
  const utility = utilities(settings);
  const observed = new Uint8Array(prompts * responses).fill(1);
  let hiddenPairs: Uint8Array | undefined;
  if (settings.maskKind === "responses") {
    const hidden = roundHalfToEven(settings.maskRate * responses);
    if (!(hidden >= 0 && responses - hidden >= 2)) {
      throw new Error(`maskRate must leave two responses of each prompt, got ${settings.maskRate}`);
    }
    const drawn = new Stream(seed, "mask").take(prompts * responses);
    for (let row = 0; row < drawn.length; row += responses) {
      const rank = ranks(drawn.subarray(row, row + responses));
      rank.forEach((place, at) => (observed[row + at] = place >= hidden ? 1 : 0));
    }
  } else {
    hiddenPairs = pairMask(settings);
    for (let at = 0; at < observed.length; at++) {
      const row = hiddenPairs.subarray(at * responses, (at + 1) * responses);
      observed[at] = row.some((hidden, other) => !hidden && other !== at % responses) ? 1 : 0;
    }
  }
  let logits: Float64Array = new Float64Array(prompts * responses);
  if (settings.reference === "shifted") shiftedLogits(utility, settings, logits);
  else if (settings.reference === "random") logits = new Stream(seed, "reference").normals(logits.length);
  const refLogp = logSoftmax(logits, responses);
  if (!utility.every(Number.isFinite) || !refLogp.every(Number.isFinite)) {
    throw new Error("sigma, scale and referenceSigma must leave every number finite");
  }
  return { prompts, responses, utility, observed, refLogp, hiddenPairs };
}

/** Names of a world's arrays in Python and in files. */
const NAMES = { utility: "utility", observed: "observed", refLogp: "ref_logp", hiddenPairs: "hidden_pairs", lengths: "lengths" };

/** Checks a world that came from elsewhere. Throws an Error of one sentence that says what is not right. */
export function checkWorld(world: World): World {
  const { prompts, responses } = world;
  const size = prompts * responses;
  if (!Number.isInteger(prompts) || prompts < 1 || !Number.isInteger(responses) || responses < 2) {
    throw new Error(`a world must have at least 1 prompt and 2 responses, got ${prompts} and ${responses}`);
  }
  const { hiddenPairs, lengths } = world;
  const optional = { ...(hiddenPairs && { hiddenPairs: size * responses }), ...(lengths && { lengths: size }) };
  const sizes = { utility: size, observed: size, refLogp: size, ...optional };
  for (const [name, wanted] of Object.entries(sizes) as [keyof typeof sizes, number][]) {
    const got = world[name]?.length;
    const of = `${prompts} prompts and ${responses} responses`;
    if (got !== wanted) throw new Error(`${NAMES[name]} must have ${wanted} numbers for ${of}, got ${got}`);
  }
  for (const name of ["utility", "refLogp"] as const) {
    const odd = world[name].find((value) => !Number.isFinite(value));
    if (odd !== undefined) throw new Error(`${NAMES[name]} must be finite everywhere, got ${odd}`);
  }
  const short = lengths?.find((length) => !(length >= 1 && length < Infinity));
  if (short !== undefined) throw new Error(`lengths must be finite and 1 or more, got ${short}`);
  if (hiddenPairs?.some((hidden, slot) => hidden !== hiddenPairs[swapped(slot, responses)])) {
    throw new Error("hidden_pairs must be symmetric");
  }
  const pairs = comparable(world);
  for (let row = 0; row < size; row += responses) {
    const total = world.refLogp.subarray(row, row + responses).reduce((sum, value) => sum + Math.exp(value), 0);
    if (Math.abs(total - 1) > 1e-6) {
      throw new Error(`ref_logp must sum to one over responses in every prompt, got a sum of ${total.toPrecision(6)}`);
    }
    if (!pairs.subarray(row * responses, (row + responses) * responses).some(Boolean)) {
      throw new Error(`every prompt must keep a pair, but prompt ${row / responses} has none`);
    }
  }
  return world;
}

/** 1 for the ordered pairs that can appear in data, (X, Y, Y). */
export function comparable({ prompts, responses, observed, hiddenPairs }: World): Uint8Array {
  const table = new Uint8Array(prompts * responses ** 2);
  for (let slot = 0; slot < table.length; slot++) {
    const first = Math.floor(slot / responses);
    const other = first - (first % responses) + (slot % responses);
    table[slot] = first !== other && observed[first] && observed[other] && !hiddenPairs?.[slot] ? 1 : 0;
  }
  return table;
}

/** P(i ≻ j | x) by Bradley–Terry, (X, Y, Y). */
export function preference({ prompts, responses, utility }: World): Float64Array {
  const table = new Float64Array(prompts * responses ** 2);
  for (let slot = 0; slot < table.length; slot++) {
    const first = Math.floor(slot / responses);
    const other = first - (first % responses) + (slot % responses);
    table[slot] = 0.5 * (1 + Math.tanh(0.5 * (utility[first] - utility[other])));
  }
  return table;
}

/** The weights of all ordered pairs, (X, Y, Y): every comparable pair is equally likely. They sum to 1 per prompt. */
export function exactPairs(world: World, labels: Labels = "soft"): Float64Array {
  const { responses } = world;
  const live = comparable(world);
  const wins = preference(world);
  if (labels === "hard") wins.forEach((win, slot) => (wins[slot] = win > 0.5 ? 1 : win < 0.5 ? 0 : 0.5));
  const area = responses ** 2;
  for (let start = 0; start < live.length; start += area) {
    const pairs = live.subarray(start, start + area).reduce((sum, one) => sum + one, 0) / 2;
    for (let slot = start; slot < start + area; slot++) wins[slot] = (live[slot] * wins[slot]) / pairs;
  }
  return wins;
}

/** The weights of a finite data set, (X, Y, Y): `pairs` pairs per prompt, drawn with replacement. Split 1 is held out. */
export function drawPairs(world: World, pairs: number, { labels = "hard" as Labels, seed = 0, split = 0 } = {}): Float64Array {
  if (!Number.isInteger(pairs) || pairs < 1) throw new Error(`pairs must be a whole number of at least 1, got ${pairs}`);
  const { prompts, responses } = world;
  const stream = new Stream(seed, "data", split);
  if (labels === "hard") return resample(exactPairs(world), prompts, pairs, stream);
  const area = responses ** 2;
  const upper = Float64Array.from(comparable(world), (live, slot) => {
    const at = slot % area;
    return Math.floor(at / responses) < at % responses ? live : 0;
  });
  for (let start = 0; start < upper.length; start += area) {
    const table = upper.subarray(start, start + area);
    const total = table.reduce((sum, one) => sum + one, 0);
    table.forEach((one, at) => (table[at] = one / total));
  }
  const drawn = resample(upper, prompts, pairs, stream);
  return preference(world).map((win, slot) => {
    return (drawn[slot] + drawn[swapped(slot, responses)]) * win;
  });
}

/** The place of a pair (X, Y, Y) with its responses in the other order. */
function swapped(slot: number, responses: number): number {
  const at = slot % responses ** 2;
  return slot - at + (at % responses) * responses + Math.floor(at / responses);
}

/** Φ of `RadialBasis`, with rows of unit length, (Y, K). */
export function radialBasis(responses: number, centres = 8, width = 1): Float64Array {
  const last = responses - 1;
  const spacing = last / Math.max(centres - 1, 1);
  const features = new Float64Array(responses * centres);
  for (let response = 0; response < responses; response++) {
    const row = features.subarray(response * centres, (response + 1) * centres);
    for (let k = 0; k < centres; k++) {
      const centre = centres > 1 ? (last * k) / (centres - 1) : last / 2;
      row[k] = -0.5 * ((response - centre) / (width * spacing)) ** 2;
    }
    const most = row.reduce((best, one) => Math.max(best, one), -Infinity);
    row.forEach((exponent, k) => (row[k] = Math.exp(exponent - most)));
    const length = Math.sqrt(row.reduce((sum, one) => sum + one * one, 0));
    row.forEach((one, k) => (row[k] = one / length));
  }
  return features;
}

/** Log-softmax of each row. */
export function logSoftmax(logits: ArrayLike<number>, responses: number): Float64Array {
  const result = Float64Array.from(logits);
  for (let start = 0; start < result.length; start += responses) {
    const row = result.subarray(start, start + responses);
    const most = row.reduce((best, one) => Math.max(best, one), -Infinity);
    const total = row.reduce((sum, one) => sum + Math.exp(one - most), 0);
    row.forEach((one, at) => (row[at] = one - most - Math.log(total)));
  }
  return result;
}

function utilities({ utility, prompts, responses, sigma, scale, jitter, seed }: WorldSettings): Float64Array {
  if (utility === "independent") return new Stream(seed, "utility").normals(prompts * responses).map((value) => scale * value);
  const stream = new Stream(seed, "centres");
  const values = new Float64Array(prompts * responses);
  for (let prompt = 0; prompt < prompts; prompt++) {
    const drawn = stream.next();
    const diagonal = ((prompt + 0.5) / prompts) * responses - 0.5;
    const centre =
      utility === "gaussian-random"
        ? (responses - 1) * drawn
        : Math.min(Math.max(diagonal + (-jitter + 2 * jitter * drawn), 0), responses - 1);
    for (let response = 0; response < responses; response++) {
      const exponent = -0.5 * ((response - centre) / sigma) ** 2;
      values[prompt * responses + response] = utility === "log-gaussian" ? exponent : scale * Math.exp(exponent);
    }
  }
  return values;
}

function pairMask({ prompts, responses, maskRate, seed }: WorldSettings): Uint8Array {
  const slots: [number, number][] = [];
  for (let row = 0; row < responses; row++) for (let column = row + 1; column < responses; column++) slots.push([row, column]);
  const hidden = roundHalfToEven(maskRate * slots.length);
  if (!(hidden >= 0 && hidden < slots.length)) throw new Error(`maskRate must leave a pair of each prompt, got ${maskRate}`);
  const drawn = new Stream(seed, "mask").take(prompts * slots.length);
  const mask = new Uint8Array(prompts * responses ** 2);
  for (let prompt = 0; prompt < prompts; prompt++) {
    const rank = ranks(drawn.subarray(prompt * slots.length, (prompt + 1) * slots.length));
    slots.forEach(([row, column], at) => {
      if (rank[at] >= hidden) return;
      mask[(prompt * responses + row) * responses + column] = 1;
      mask[(prompt * responses + column) * responses + row] = 1;
    });
  }
  return mask;
}

function shiftedLogits(utility: Float64Array, { responses, shift, referenceSigma }: WorldSettings, logits: Float64Array): void {
  const last = responses - 1;
  for (let row = 0; row < utility.length; row += responses) {
    let best = 0;
    for (let at = 1; at < responses; at++) if (utility[row + at] > utility[row + best]) best = at;
    const centre = Math.min(Math.max(best <= last / 2 ? best + shift : best - shift, 0), last);
    for (let at = 0; at < responses; at++) logits[row + at] = -((at - centre) ** 2) / (2 * referenceSigma ** 2);
  }
}

/** Draws `pairs` ordered pairs per prompt from weights, a distribution per prompt; returns their shares. */
function resample(weights: Float64Array, prompts: number, pairs: number, stream: Stream): Float64Array {
  const area = weights.length / prompts;
  const shares = new Float64Array(weights.length);
  const edges = new Float64Array(area);
  for (let prompt = 0; prompt < prompts; prompt++) {
    let sum = 0;
    for (let slot = 0; slot < area; slot++) edges[slot] = sum += weights[prompt * area + slot];
    // Rounded as in Python, where prompt x has the interval [x, x + 1).
    for (let slot = 0; slot < area; slot++) edges[slot] = edges[slot] / sum + prompt;
    const most = (prompt + 1) * (1 - 2 ** -53);
    for (let pair = 0; pair < pairs; pair++) {
      const point = Math.min(stream.next() + prompt, most);
      let low = 0;
      let high = area;
      while (low < high) {
        const middle = (low + high) >> 1;
        if (edges[middle] > point) high = middle;
        else low = middle + 1;
      }
      shares[prompt * area + low] += 1;
    }
  }
  return shares.map((one) => one / pairs);
}

/** The rank of each number, from 0. */
function ranks(values: Float64Array): Int32Array {
  const order = [...values.keys()].sort((one, other) => values[one] - values[other]);
  const result = new Int32Array(values.length);
  order.forEach((at, rank) => (result[at] = rank));
  return result;
}

/** Rounds as Python does: a half goes to the even neighbour. */
function roundHalfToEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  return rest < 0.5 || (rest === 0.5 && floor % 2 === 0) ? floor : floor + 1;
}
