/**
 * numpy's generator, so that equal seeds give a page the numbers that `gradlab.streams` gives Python: SeedSequence
 * (after O'Neill's seed_seq_fe) into PCG64 (XSL-RR, 128 bits). Sources: M. E. O'Neill 2014, "PCG"; numpy.random.
 */

import { normal } from "./ziggurat";

/** The numbers of purposes in gradlab/streams.py; all of these are spawned streams. */
const PURPOSES = { centres: 0, utility: 1, mask: 2, reference: 3, data: 4 } as const;

const MULTIPLIER = 0x2360ed051fc65da44385df649fccf645n;
const POOL = 4; // words of 32 bits

/** A stream of random numbers. */
export class Stream {
  private state: bigint;
  private readonly increment: bigint;

  /** The stream of a seed, a whole number below 2^53, for a purpose and its further numbers. */
  constructor(seed: number, purpose: keyof typeof PURPOSES, ...more: number[]) {
    const [stateHigh, stateLow, sequenceHigh, sequenceLow] = seeded(words(seed), [PURPOSES[purpose], ...more]);
    this.increment = BigInt.asUintN(128, (((sequenceHigh << 64n) | sequenceLow) << 1n) | 1n);
    this.state = BigInt.asUintN(128, this.increment + ((stateHigh << 64n) | stateLow));
    this.step();
  }

  /** The next 64 bits. */
  bits(): bigint {
    this.step();
    const mixed = BigInt.asUintN(64, (this.state >> 64n) ^ this.state);
    const turn = this.state >> 122n;
    return BigInt.asUintN(64, (mixed >> turn) | (mixed << (64n - turn)));
  }

  /** The next number in [0, 1): 53 bits of 64. */
  next(): number {
    return Number(this.bits() >> 11n) * 2 ** -53;
  }

  /** The next normal number, mean 0 and variance 1. */
  normal(): number {
    return normal(this);
  }

  /** The next `count` numbers in [0, 1). */
  take(count: number): Float64Array {
    return Float64Array.from({ length: count }, () => this.next());
  }

  /** The next `count` normal numbers. */
  normals(count: number): Float64Array {
    return Float64Array.from({ length: count }, () => this.normal());
  }

  private step(): void {
    this.state = BigInt.asUintN(128, this.state * MULTIPLIER + this.increment);
  }
}

/** A whole number as words of 32 bits, the lowest first. */
function words(seed: number): number[] {
  if (!Number.isSafeInteger(seed) || seed < 0) throw new Error(`seed must be a whole number from 0 to 2^53 − 1, got ${seed}`);
  return seed < 2 ** 32 ? [seed] : [seed % 2 ** 32, Math.floor(seed / 2 ** 32)];
}

/** Four words of 64 bits from a seed's words and a key, as numpy's SeedSequence(seed, spawn_key=key). */
function seeded(seed: number[], key: number[]): bigint[] {
  const given = [...seed, ...Array<number>(Math.max(0, POOL - seed.length)).fill(0), ...key];
  const hash = hasher(0x43b0d7e5, 0x931e8875);
  const mix = (one: number, other: number) => {
    const mixed = (Math.imul(one, 0xca01f9dd) - Math.imul(other, 0x4973f715)) >>> 0;
    return (mixed ^ (mixed >>> 16)) >>> 0;
  };
  const pool = given.slice(0, POOL).map(hash);
  for (let from = 0; from < POOL; from++) {
    for (let to = 0; to < POOL; to++) if (from !== to) pool[to] = mix(pool[to], hash(pool[from]));
  }
  for (const word of given.slice(POOL)) for (let to = 0; to < POOL; to++) pool[to] = mix(pool[to], hash(word));
  const last = hasher(0x8b51f9dd, 0x58f38ded);
  const state = Array.from({ length: 2 * POOL }, (_, at) => last(pool[at % POOL]));
  return Array.from({ length: POOL }, (_, at) => (BigInt(state[2 * at + 1]) << 32n) | BigInt(state[2 * at]));
}

/** A hash whose constant moves on at every word. */
function hasher(constant: number, multiplier: number): (word: number) => number {
  return (word) => {
    let value = word ^ constant;
    constant = Math.imul(constant, multiplier);
    value = Math.imul(value, constant) >>> 0;
    return (value ^ (value >>> 16)) >>> 0;
  };
}
