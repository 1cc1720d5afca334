/** Train policies with a kernel: pack columns (run, prompt) into blocks of lanes, call it block by block, unpack. */

import type { Kernel, Reals } from "./kernel";
import { factorsOf } from "./optimizers";

/**
 * The problems of C columns, row by row: weights (C, Y, Y) are the shares of the ordered pairs, reference and start
 * (C, Y) are log π_ref and log π at step 0, features (Y, K) are Φ for shared parameters, absent for free logits, and
 * lengths (C, Y) are those of responses in tokens; absent: 1 each.
 */
export interface Columns {
  count: number;
  responses: number;
  weights: Float64Array;
  reference: Float64Array;
  start: Float64Array;
  features?: Float64Array;
  lengths?: Float64Array;
}

/** Returns log π at the wanted steps, which rise: (S, C, Y), row by row. */
export function train(kernel: Kernel, columns: Columns, learningRate: number, wanted: readonly number[]): Reals {
  const steps = training(kernel, columns, learningRate, wanted);
  for (;;) {
    const next = steps.next();
    if (next.done) return next.value;
  }
}

/** Trains as `train` does, and pauses after each block of columns. The kernel must not be used in between. */
export function* training(
  kernel: Kernel,
  columns: Columns,
  learningRate: number,
  wanted: readonly number[],
): Generator<void, Reals> {
  check(kernel, columns, wanted);
  const { count, responses } = columns;
  const { lanes, antisymmetric, shared, memories, optimizer, constants } = kernel.record;
  const factors = factorsOf(optimizer);
  const parameters = shared ? columns.features!.length / responses : responses;
  const order = pairedFirst(columns);
  const pairs = pairsOf(columns, order);
  const steps = wanted[wanted.length - 1];
  const { reals, integers } = kernel.allocate({
    stop: wanted.length + 1,
    schedule: Math.max(steps, 1) * 2,
    constants: Math.max(constants.length, 1),
    partners: responses + 1,
    partner: Math.max(pairs.length, 1),
    weight: pairs.length * 2 * lanes,
    reference: responses * lanes,
    length: responses * lanes,
    start: responses * lanes,
    ...(shared && { features: responses * parameters * lanes }),
    theta: parameters * lanes,
    memory: memories * parameters * lanes,
    logp: responses * lanes,
    prob: responses * lanes,
    slope: responses * lanes,
    record: wanted.length * responses * lanes,
  });
  for (let step = 0; step < steps; step++) reals.schedule.set(factors(learningRate, step + 1), step * 2);
  reals.constants.set(constants);
  integers.stop.set([0, ...wanted].map(BigInt));
  const begins = new BigInt64Array(responses + 1);
  pairs.forEach(([first, other], pair) => {
    integers.partner[pair] = BigInt(other);
    begins[first + 1]++;
  });
  for (let response = 0; response < responses; response++) begins[response + 1] += begins[response];
  integers.partners.set(begins);

  const result = kernel.reals(wanted.length * count * responses);
  for (let block = 0; block < count; block += lanes) {
    for (const name of ["weight", "reference", "start", "theta", "memory"]) reals[name].fill(0);
    if (shared) reals.features.fill(0);
    reals.length.fill(1);
    const live = Math.min(lanes, count - block);
    for (let lane = 0; lane < live; lane++) {
      const column = block + lane;
      const place = order.subarray(column * responses, (column + 1) * responses);
      const table = columns.weights.subarray(column * responses ** 2, (column + 1) * responses ** 2);
      pairs.forEach(([first, other], pair) => {
        const won = table[place[first] * responses + place[other]];
        const lost = table[place[other] * responses + place[first]];
        reals.weight[pair * 2 * lanes + lane] = antisymmetric ? won + lost : won;
        reals.weight[(pair * 2 + 1) * lanes + lane] = lost;
      });
      for (let row = 0; row < responses; row++) {
        reals.reference[row * lanes + lane] = columns.reference[column * responses + place[row]];
        reals.start[row * lanes + lane] = columns.start[column * responses + place[row]];
        if (columns.lengths) reals.length[row * lanes + lane] = columns.lengths[column * responses + place[row]];
        for (let k = 0; shared && k < parameters; k++) {
          reals.features[(row * parameters + k) * lanes + lane] = columns.features![place[row] * parameters + k];
        }
      }
    }
    kernel.call({ responses, parameters, stops: wanted.length }, { reals, integers });
    for (let stop = 0; stop < wanted.length; stop++) {
      for (let lane = 0; lane < live; lane++) {
        const column = block + lane;
        for (let row = 0; row < responses; row++) {
          const response = order[column * responses + row];
          result[(stop * count + column) * responses + response] = reals.record[(stop * responses + row) * lanes + lane];
        }
      }
    }
    if (block + lanes < count) yield;
  }
  return result;
}

/** Returns each column's order of responses, (C, Y): those that occur in some pair come first, in order. */
function pairedFirst({ count, responses, weights }: Columns): Int32Array {
  const order = new Int32Array(count * responses);
  for (let column = 0; column < count; column++) {
    const seen = new Uint8Array(responses);
    for (let slot = 0; slot < responses ** 2; slot++) {
      if (weights[column * responses ** 2 + slot] > 0) seen[Math.floor(slot / responses)] = seen[slot % responses] = 1;
    }
    const numbers = [...seen.keys()];
    order.set([...numbers.filter((one) => seen[one]), ...numbers.filter((one) => !seen[one])], column * responses);
  }
  return order;
}

/** Returns the pairs on which some column has data, as places in the columns' orders, the first below the second. */
function pairsOf({ count, responses, weights }: Columns, order: Int32Array): [number, number][] {
  const pairs: [number, number][] = [];
  for (let first = 0; first < responses; first++) {
    for (let other = first + 1; other < responses; other++) {
      for (let column = 0; column < count; column++) {
        const one = order[column * responses + first];
        const two = order[column * responses + other];
        const table = column * responses ** 2;
        if (weights[table + one * responses + two] > 0 || weights[table + two * responses + one] > 0) {
          pairs.push([first, other]);
          break;
        }
      }
    }
  }
  return pairs;
}

function check(kernel: Kernel, { count, responses, features, ...arrays }: Columns, wanted: readonly number[]): void {
  const each = count * responses;
  const sizes = { weights: each * responses, reference: each, start: each, lengths: each };
  for (const [name, size] of Object.entries(sizes) as [keyof typeof sizes, number][]) {
    const got = arrays[name]?.length ?? size;
    if (got !== size) throw new Error(`${name} must have ${size} numbers, got ${got}`);
  }
  if (kernel.record.shared !== (features !== undefined)) {
    throw new Error(`features must be ${kernel.record.shared ? "given to" : "absent for"} this kernel`);
  }
  if (features && (features.length === 0 || features.length % responses)) {
    throw new Error(`features must have a multiple of ${responses} numbers, got ${features.length}`);
  }
  const rise = wanted.every((step, index) => Number.isInteger(step) && step >= 0 && (index === 0 || step > wanted[index - 1]));
  if (wanted.length === 0 || !rise) throw new Error(`wanted must be whole steps that rise, got ${wanted.join(", ")}`);
}
