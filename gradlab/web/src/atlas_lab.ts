/** The atlas in a page: maps of what each loss does to a pair, above the frontier of the same losses. */

import { lowered, ratioMap, readings, type Seen, seenBy, signMap, stepField } from "./atlas";
import { make, write } from "./dom";
import type { Context } from "./explorer";
import { charts, readings as ends } from "./frontier";
import { FrontierLab } from "./frontier_lab";
import { Kernel, type KernelRecord } from "./kernel";
import type { State } from "./state";

const OF_ENDS = ["KL from the reference", "expected utility E[u]", "mass on unobserved responses"];

export class AtlasLab extends FrontierLab {
  private readonly kernels = new Map<KernelRecord, Kernel>();
  private seen: Seen[] = [];
  private looking = 0; // states whose maps are not drawn yet
  private readonly unseen = make("p", { className: "gl-trouble", role: "status" }); // why there are no maps

  constructor(context: Context) {
    super(context);
    context.stage.prepend(this.unseen);
  }

  override get busy(): boolean {
    return super.busy || this.looking > 0;
  }

  override update(): void {
    void this.look(this.context.history.state);
    super.update();
  }

  override outcome(): [truth: string, sentence: string] | null {
    if (this.seen.length < 2) return null;
    const [a, b] = lowered(this.seen);
    const said = this.seen.slice(0, 2).map(({ slot }, at) => `${slot.name} ${[a, b][at] ? "lowers the winner for some pairs" : "never lowers the winner"}`);
    return [a ? (b ? "both" : "a") : b ? "b" : "neither", `On the map ${said.join(", and ")}.`];
  }

  protected override show(): void {
    const revealed = this.context.history.state.guess !== "none";
    const maps = this.seen.flatMap((seen) => [ratioMap(seen), ...(revealed ? [signMap(seen)] : []), stepField(seen)]);
    const trained = this.shown ? ends(this.shown).filter(({ name }) => OF_ENDS.includes(name)) : [];
    const frontier = this.shown ? charts(this.shown, this.pinned).slice(0, 1) : [];
    this.sheet.show([...maps, ...frontier], [...readings(this.seen, revealed), ...trained]);
  }

  /** Draws the maps of a state, as soon as the kernels of its losses are here. */
  private async look(state: State): Promise<void> {
    const { history, shelf, changed } = this.context;
    this.looking++;
    try {
      const slots = this.slots(state);
      const records = await Promise.all(slots.map((slot) => shelf.record(slot, "slopes")));
      for (const record of new Set(records)) if (!this.kernels.has(record)) this.kernels.set(record, await Kernel.load(record));
      if (state !== history.state) return;
      this.seen = slots.map((slot, at) => seenBy(this.kernels.get(records[at])!, slot));
      write(this.unseen, "");
      this.show();
    } catch (error) {
      if (state === history.state) write(this.unseen, `${(error as Error).message}.`);
    } finally {
      this.looking--;
      if (state === history.state || !this.looking) changed(); // a look at a former state may be the last to end
    }
  }
}
