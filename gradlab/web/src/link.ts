/** What widgets share in a notebook: questions to the kernel of Python, and keys that JupyterLab must not take. */

/** The model of a widget, as anywidget gives it. */
export interface Model {
  get(name: string): unknown;
  set(name: string, value: unknown): void;
  save_changes(): void;
  send(content: unknown): void;
  on(event: string, listener: (...given: never[]) => void): void;
  off(event: string, listener: (...given: never[]) => void): void;
}

/** An answer of Python: the number of its question, and why it was refused. */
export interface Answer {
  to: number;
  error?: string;
}

const PATIENCE = 20; // seconds in which a kernel that lives and has time answers
export const LATE = `The kernel has not answered for ${PATIENCE} seconds: it is busy, or gone. Where it is idle, run the cell again.`;
export const GONE = "The kernel is gone: run the cell again";

/** JupyterLab looks for this on the focused element itself; else "d d" on a slider would delete the cell. */
export function keepShortcutsAway(el: HTMLElement): void {
  el.addEventListener("focusin", ({ target }) => ((target as HTMLElement).dataset.lmSuppressShortcuts = "true"));
}

/** Calls `late` when a kernel should have answered; returns how to prevent that. */
export function whenLate(late: () => void): () => void {
  const timer = setTimeout(late, PATIENCE * 1000);
  return () => clearTimeout(timer);
}

/** Questions to Python, and its answers. */
export class Link<Reply extends Answer> {
  private number = 0;
  private readonly waiting = new Map<number, { done: (reply: Reply, buffers: DataView[]) => void; fail: (error: Error) => void }>();

  constructor(private readonly model: Model) {
    model.on("msg:custom", this.receive);
  }

  /** Asks; `late` is called where no answer comes for long, and may come yet. */
  async ask(question: Record<string, unknown>, late: () => void): Promise<[Reply, DataView[]]> {
    const number = ++this.number;
    const stop = whenLate(late);
    try {
      return await new Promise((done, fail) => {
        this.waiting.set(number, { done: (reply, buffers) => done([reply, buffers]), fail });
        this.model.send({ ...question, number });
      });
    } finally {
      stop();
    }
  }

  /** Fails what waits, since nobody will answer. */
  break(): void {
    for (const { fail } of this.waiting.values()) fail(new Error(GONE));
    this.waiting.clear();
  }

  close(): void {
    this.model.off("msg:custom", this.receive);
    this.break();
  }

  private readonly receive = (reply: Reply, buffers: DataView[]) => {
    const found = this.waiting.get(reply.to);
    this.waiting.delete(reply.to);
    if (reply.error) found?.fail(new Error(reply.error));
    else found?.done(reply, buffers);
  };
}
