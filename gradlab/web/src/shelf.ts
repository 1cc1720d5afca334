/** Kernels of losses by what they do, each asked for once: from the page's data, or from Python. */

import type { KernelRecord } from "./kernel";
import type { Slot } from "./spec";

/** Asks for a kernel: "slopes", or a policy and an optimiser such as "free adam". */
export type Fetch = (loss: string, what: string, hyper: Record<string, number>) => Promise<KernelRecord>;

export class Shelf {
  private readonly records = new Map<string, KernelRecord>();
  private readonly waiting = new Map<string, Promise<KernelRecord>>();

  constructor(private readonly fetch: Fetch) {}

  /** The record if it is here: a general one, or the one of these very hyper-parameters. */
  known({ loss, hyper }: Slot, what: string): KernelRecord | undefined {
    return this.records.get(`${loss.name} ${what}`) ?? this.records.get(special(loss.name, what, hyper));
  }

  /** The record, once it is here. Throws an Error of one sentence where there is none. */
  async record(slot: Slot, what: string): Promise<KernelRecord> {
    const known = this.known(slot, what);
    if (known) return known;
    const { loss, hyper } = slot;
    const key = special(loss.name, what, hyper);
    if (!this.waiting.has(key)) this.waiting.set(key, this.fetch(loss.name, what, hyper));
    try {
      const record = await this.waiting.get(key)!;
      this.records.set(record.laws ? `${loss.name} ${what}` : key, record);
      return record;
    } finally {
      this.waiting.delete(key);
    }
  }
}

function special(loss: string, what: string, hyper: Record<string, number>): string {
  return JSON.stringify([loss, what, hyper]);
}
