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
    let found = this.kernels.get(key);
    if (!found) {
      found = Kernel.load(record);
      this.kernels.set(key, found);
      found.catch(() => this.kernels.delete(key));
      if (this.kernels.size > MOST) this.kernels.delete(this.kernels.keys().next().value!);
    }
    return (await found).as(record);
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
