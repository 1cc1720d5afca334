/** A training as a message: the questions to a worker, and its answers. */

import { Kernel, type KernelRecord, type Reals } from "./kernel";
import { type Columns, training } from "./training";

/** A training to be done; `hyper` moves a general kernel's hyper-parameters. */
export interface Job {
  kernel: KernelRecord;
  hyper?: Record<string, number>;
  columns: Columns;
  learningRate: number;
  wanted: readonly number[];
}

/** Returns a job in about equal parts, at most so many, each with whole blocks of its kernel's lanes. */
export function shares(job: Job, most: number): Job[] {
  const { columns, kernel } = job;
  const blocks = Math.ceil(columns.count / kernel.lanes);
  const parts = Math.min(blocks, most);
  if (parts <= 1) return [job];
  const edge = (at: number) => Math.min(Math.ceil((blocks * at) / parts) * kernel.lanes, columns.count);
  const edges = Array.from({ length: parts + 1 }, (_, at) => edge(at));
  return edges.slice(1).map((end, at) => ({ ...job, columns: part(columns, edges[at], end) }));
}

/** Returns the log π of a job's parts as that of the whole, (S, C, Y). */
export function joined(logp: readonly Reals[], parts: readonly Job[], { columns, wanted }: Job): Reals {
  if (parts.length === 1) return logp[0];
  const { count, responses } = columns;
  const length = wanted.length * count * responses;
  const result = logp[0] instanceof Float64Array ? new Float64Array(length) : new Float32Array(length);
  let first = 0;
  parts.forEach(({ columns: { count: some } }, at) => {
    const size = some * responses;
    wanted.forEach((_, step) => {
      result.set(logp[at].subarray(step * size, (step + 1) * size), (step * count + first) * responses);
    });
    first += some;
  });
  return result;
}

/** The columns from one place to another, as copies. */
function part(columns: Columns, from: number, to: number): Columns {
  const { responses, weights, reference, start, lengths } = columns;
  const rows = (table: Float64Array) => table.slice(from * responses, to * responses);
  return {
    ...columns, count: to - from, weights: weights.slice(from * responses ** 2, to * responses ** 2),
    reference: rows(reference), start: rows(start),
    lengths: lengths && rows(lengths),
  };
}

export type Question = { number: number; job: Job } | { number: number; stop: true };
export type Answer = { number: number; logp: Reals } | { number: number; error: string };

const SLICE = 25; // ms after which a training looks for a message that stops it
const MOST = 64; // compiled kernels that are kept

/** A maker of trainings that keeps the kernels which it has compiled. */
export class Trainer {
  private readonly kernels = new Map<string, Promise<Kernel>>();

  /** Returns log π at the wanted steps, as `train`; null if `stopped` has become true. */
  async run(job: Job, stopped: () => boolean = () => false): Promise<Reals | null> {
    const kernel = await this.kernel(job.kernel);
    if (stopped()) return null;
    const steps = training(job.hyper ? kernel.at(job.hyper) : kernel, job.columns, job.learningRate, job.wanted);
    for (let began = performance.now(); ; ) {
      const next = steps.next();
      if (next.done) return next.value;
      if (performance.now() - began < SLICE) continue;
      await paused();
      if (stopped()) return null;
      began = performance.now();
    }
  }

  private async kernel(record: KernelRecord): Promise<Kernel> {
    const key = record.function + record.module;
    let kernel = this.kernels.get(key);
    if (!kernel) {
      kernel = Kernel.load(record);
      this.kernels.set(key, kernel);
      kernel.catch(() => this.kernels.delete(key));
      if (this.kernels.size > MOST) this.kernels.delete(this.kernels.keys().next().value!);
    }
    return (await kernel).as(record);
  }
}

/** Lets other messages in. A timer would wait for 4 ms. */
function paused(): Promise<void> {
  const { port1, port2 } = new MessageChannel();
  return new Promise((done) => {
    port1.onmessage = () => {
      port1.close();
      done();
    };
    port2.postMessage(null);
  });
}
