/**
 * Trainings beside the page, several at once: in workers that are made from this file, or in the page without them. Where
 * whole trainings would leave workers idle, each is shared out over the workers by its columns.
 */

import { type Answer, type Job, joined, shares, Trainer } from "./job";
import type { Reals } from "./kernel";
import code from "./worker.ts?code";

interface Given {
  job: Job;
  signal?: AbortSignal;
  done: (logp: Reals) => void;
  fail: (error: Error) => void;
}

interface Task extends Given {
  number: number;
}

export class Pool {
  private readonly workers: Worker[] = [];
  private readonly idle: Worker[] = [];
  private readonly given: Given[] = [];
  private readonly queue: Task[] = [];
  private readonly running = new Map<number, { task: Task; worker: Worker }>();
  private count = 0;
  private here: Trainer | null = null;
  private busy = false;

  /** A pool of so many workers; default: one per core, but four at most, and one core is left to the page. */
  constructor(size = Math.min(4, Math.max(1, (globalThis.navigator?.hardwareConcurrency ?? 2) - 1))) {
    try {
      const url = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
      for (let number = 0; number < size; number++) this.hire(new Worker(url));
      URL.revokeObjectURL(url);
    } catch {
      this.withoutWorkers();
    }
  }

  /**
   * Returns log π at the job's wanted steps, (S, C, Y). Jobs begin in the order in which they were given.
   * Rejects with an AbortError if `signal` aborts: a job that waits never begins, one that runs stops soon.
   */
  train(job: Job, signal?: AbortSignal): Promise<Reals> {
    return new Promise((done, fail) => {
      if (!this.given.length) queueMicrotask(() => this.share());
      this.given.push({ job, signal, done, fail });
    });
  }

  /** Starts the trainings that were given together. */
  private share(): void {
    const given = this.given.splice(0);
    const workers = this.workers.length;
    const most = workers && given.length % workers ? workers : 1;
    for (const { job, signal, done, fail } of given) {
      const parts = shares(job, most);
      const logp = Promise.all(parts.map((part) => this.start(part, signal)));
      logp.then((tables) => done(joined(tables, parts, job)), fail);
    }
  }

  private start(job: Job, signal?: AbortSignal): Promise<Reals> {
    return new Promise((done, fail) => {
      if (signal?.aborted) return fail(aborted());
      const task: Task = { number: this.count++, job, signal, done, fail };
      signal?.addEventListener("abort", () => this.stop(task), { once: true });
      this.queue.push(task);
      this.next();
    });
  }

  /** Ends all workers. What is under way is aborted. */
  close(): void {
    for (const worker of this.workers) worker.terminate();
    for (const { fail } of [...this.given, ...this.queue, ...[...this.running.values()].map(({ task }) => task)]) fail(aborted());
    this.given.length = this.queue.length = this.workers.length = this.idle.length = 0;
    this.running.clear();
  }

  private hire(worker: Worker): void {
    worker.onmessage = ({ data }: MessageEvent<Answer>) => {
      const task = this.running.get(data.number)?.task;
      this.running.delete(data.number);
      this.idle.push(worker);
      if ("logp" in data) task?.done(data.logp);
      else task?.fail(data.error === "stopped" ? aborted() : new Error(data.error));
      this.next();
    };
    worker.onerror = (event) => {
      event.preventDefault(); // such as a page that forbids workers: what they had goes on in the page
      this.withoutWorkers();
    };
    this.workers.push(worker);
    this.idle.push(worker);
  }

  private withoutWorkers(): void {
    for (const worker of this.workers) worker.terminate();
    this.workers.length = this.idle.length = 0;
    this.queue.unshift(...[...this.running.values()].map(({ task }) => task));
    this.running.clear();
    this.here ??= new Trainer();
    this.next();
  }

  private next(): void {
    if (this.here) {
      if (!this.busy) void this.trainHere(this.here);
      return;
    }
    while (this.idle.length && this.queue.length) {
      const [worker, task] = [this.idle.shift()!, this.queue.shift()!];
      this.running.set(task.number, { task, worker });
      worker.postMessage({ number: task.number, job: task.job });
    }
  }

  /** Trains what waits, one after another: two trainings would share a kernel's memory. */
  private async trainHere(trainer: Trainer): Promise<void> {
    this.busy = true;
    for (let task = this.queue.shift(); task; task = this.queue.shift()) {
      const { job, signal, done, fail } = task;
      try {
        const logp = await trainer.run(job, () => signal?.aborted ?? false);
        if (logp) done(logp);
        else fail(aborted());
      } catch (error) {
        fail(error as Error);
      }
    }
    this.busy = false;
  }

  private stop(task: Task): void {
    const waiting = this.queue.indexOf(task);
    if (waiting >= 0) {
      this.queue.splice(waiting, 1);
      task.fail(aborted());
      return;
    }
    this.running.get(task.number)?.worker.postMessage({ number: task.number, stop: true });
  }
}

function aborted(): DOMException {
  return new DOMException("the training was stopped", "AbortError");
}
