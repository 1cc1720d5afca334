/** An explorer in a notebook: the widget's side in the browser, with the state in traits and Python behind it. */

import { ChartView, type ShownCharts } from "./chart_view";
import type { ExplorerKind } from "./explorer";
import { KINDS } from "./lab";
import type { KernelRecord } from "./kernel";
import { type Answer, GONE, keepShortcutsAway, LATE, Link, type Model, whenLate } from "./link";
import { type Host, Shell } from "./shell";
import type { ControlSpec, Spec } from "./spec";
import type { State } from "./state";

interface Reply extends Answer {
  record?: KernelRecord;
}

/** Where the page computes, Python hears of a move when the hand rests this long, in ms, and of a long drag this often. */
const [REST, OFTEN] = [60, 250];

/** Shows a widget's explorer; returns how to take it away. */
export function render({ model, el }: { model: Model; el: HTMLElement }): () => void {
  const link = new Link<Reply>(model);
  let shown = new Shown(model, link, el);
  const respec = () => {
    shown.close();
    shown = new Shown(model, link, el);
  };
  keepShortcutsAway(el);
  model.on("change:spec", respec);
  return () => {
    model.off("change:spec", respec);
    shown.close();
    link.close();
  };
}

/** A shell on the traits of a widget. */
class Shown {
  private readonly shell: Shell;
  private incoming = false;
  private waited = () => {}; // ends the wait for an answer to a state
  private resting: ReturnType<typeof setTimeout> | undefined;
  private unsent: number | null = null; // when the first move was made that Python has not heard of

  constructor(
    private readonly model: Model,
    private readonly link: Link<Reply>,
    el: HTMLElement,
  ) {
    const spec = model.get("spec") as Spec;
    const kind: ExplorerKind = spec.inPage ? KINDS[spec.name].kind : ChartView;
    this.shell = new Shell(el, spec, kind, this.host(), model.get("state") as State);
    model.on("change:state", this.receive);
    model.on("change:hidden", this.refresh);
    model.on("change:offers", this.refresh);
    model.on("change:shown", this.present);
    model.on("change:busy", this.present);
    model.on("change:pinned", this.refresh);
    model.on("comm_live_update", this.lost);
    this.present();
  }

  close(): void {
    const { model } = this;
    this.flush();
    this.waited();
    model.off("change:state", this.receive);
    model.off("change:hidden", this.refresh);
    model.off("change:offers", this.refresh);
    model.off("change:shown", this.present);
    model.off("change:busy", this.present);
    model.off("change:pinned", this.refresh);
    model.off("comm_live_update", this.lost);
    this.shell.close();
  }

  private host(): Host {
    return {
      kernel: async (loss, what, hyper) => (await this.answerTo({ want: "kernel", loss, what, hyper }))[0].record!,
      file: async (kind) => {
        this.flush();
        const [, [bytes]] = await this.answerTo({ want: kind, state: this.shell.history.state }); // it may overtake the state
        return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      },
      moved: () => this.send(),
      hidden: () => this.model.get("hidden") as string[],
      busy: () => this.late || this.model.get("busy") === true,
      pin: (on) => {
        this.flush();
        this.model.set("pinned", on);
        this.model.save_changes();
      },
      pinned: () => this.model.get("pinned") === true,
      page: () => "gradlab-lab.html",
    };
  }

  /** Asks Python, and says so while no answer comes. */
  private async answerTo(question: Record<string, unknown>): Promise<[Reply, DataView[]]> {
    let said = false;
    try {
      return await this.link.ask(question, () => {
        said = true;
        this.shell.fail(LATE);
      });
    } finally {
      if (said) this.present();
    }
  }

  /** Sends a state: at once where Python computes, else when the page has drawn it, for both share the processor. */
  private send(): void {
    if (this.incoming) return;
    const now = performance.now();
    this.unsent ??= now;
    if (!this.shell.spec.inPage) return this.flush();
    clearTimeout(this.resting);
    this.resting = setTimeout(() => this.flush(), Math.max(0, Math.min(REST, this.unsent + OFTEN - now)));
  }

  private forget(): void {
    this.unsent = null;
    clearTimeout(this.resting);
  }

  private flush(): void {
    if (this.unsent === null) return;
    this.forget();
    this.model.set("state", { ...this.shell.history.state });
    this.model.set("asked", (this.model.get("asked") as number) + 1);
    this.model.save_changes();
    this.waited();
    if (this.late) this.waited = whenLate(() => this.late && this.shell.fail(LATE));
  }

  private readonly receive = () => {
    if (this.respecified) return;
    this.forget(); // the state that comes is newer
    this.incoming = true;
    this.offer();
    const state = this.model.get("state") as State;
    try {
      // What Python changes while it answers belongs to the step that it answers, and is undone with it.
      // So is a state that it refuses: the one before comes back.
      const { history } = this.shell;
      if (this.late || history.isBefore(state)) history.amend(state);
      else history.set(state, "Python");
    } finally {
      this.incoming = false;
    }
  };

  /** True where the explorer has other controls now: in a moment it is built anew, with the state that came with them. */
  private get respecified(): boolean {
    return this.model.get("spec") !== this.shell.spec;
  }

  /** Gives controls the facts that they have now, such as a menu's options. */
  private offer(): void {
    const offers = this.model.get("offers") as Record<string, Partial<ControlSpec>>;
    for (const [name, facts] of Object.entries(offers)) Object.assign(this.shell.spec.controls[name], facts);
  }

  private readonly refresh = () => {
    if (this.respecified) return;
    this.offer();
    this.shell.update(this.shell.history.state);
  };

  private readonly present = () => {
    const shown = this.model.get("shown") as ShownCharts & { error?: string; refused?: string };
    const trouble = shown.refused ?? shown.error;
    this.shell.fail(trouble ? `${trouble}.` : "");
    const { view } = this.shell;
    if (view instanceof ChartView && shown.charts) view.present(shown);
    this.refresh();
  };

  /** True while Python has not yet shown the state that was sent last. */
  private get late(): boolean {
    const { asked } = this.model.get("shown") as { asked?: number };
    return this.shell?.view instanceof ChartView && (asked ?? 0) < (this.model.get("asked") as number);
  }

  private readonly lost = () => {
    this.forget();
    this.link.break();
    this.shell.fail(`${GONE}.`);
    this.shell.element.classList.add("gl-lost");
  };
}
