/** Grid training in a page: several losses train on one world, again at every move, side by side and to be played. */

import { type Show, slider } from "./controls";
import { type Curve, CurvePlot } from "./curves";
import { make, NumberTable, write } from "./dom";
import type { Context, ExplorerView } from "./explorer";
import { type Cell, HeatMap } from "./heatmap";
import { LEAST } from "./palette";
import type { Plot } from "./plot";
import { Pool } from "./pool";
import { gridCode } from "./python";
import { extent, roundUp, spelt } from "./reading";
import { Ground, trainingKey, type Trained } from "./runs";
import { type Slot, sliderOf, slotsOf } from "./spec";
import type { State } from "./state";

const SIDE = 20; // prompts, and responses
const CURVES = [
  ["utility", "Reward", "E[u], nats"],
  ["unobserved", "Mass where there are no data", "mass"],
  ["kl", "Distance from the reference", "KL, nats"],
] as const;
const TABLE: [string, keyof Omit<Trained, "logp">][] = [
  ["expected utility E[u], nats", "utility"],
  ["share of the reachable reward", "share"],
  ["mass on responses in no pair", "unobserved"],
  ["KL from the reference, nats", "kl"],
];
const CLOSE = 0.02; // nats of utility within which two losses count as equal
const PLAY = 2500; // ms
const BRUSHES: Record<string, number> = { "hide or show": 1, "best (u = R)": 2, "worst (u = 0)": 4, erase: 0 };

interface Run {
  slot: Slot;
  key: string;
  trained: Trained;
  band?: Trained[];
}

export class GridLab implements ExplorerView {
  static readonly places = ["when", "prompt", "painted"];
  private readonly pool = new Pool(Math.min(4, globalThis.navigator?.hardwareConcurrency ?? 2));
  private readonly maps: HeatMap[] = [];
  private readonly pictures = make("div", { className: "gl-pictures" });
  private readonly world: HeatMap;
  private readonly curves: CurvePlot[];
  private readonly prompt: CurvePlot;
  private readonly table = new NumberTable("At the step that is shown");
  private readonly trouble = make("p", { className: "gl-trouble", role: "status" });
  private readonly play = make("button", { type: "button", textContent: "▶ play", className: "gl-play" });
  private readonly step = make("span", { className: "gl-at" });
  private readonly scrub: Show;
  private ground: Ground | null = null;
  private runs: Run[] = [];
  private cell: Cell | null = null;
  private training = false;
  private again = false;
  private filling: AbortController | null = null;
  private filled = "";
  private playing = 0;
  private played: number | null = null; // where a play is, in %
  private asked: unknown;
  private brush = 1;
  private brief = false; // whether legends have a loss's letter alone
  private pinned: Record<string, Curve[]> | null = null;

  constructor(private readonly context: Context) {
    const { history, stage, spec } = context;
    context.controls.append(make("details", {}, make("summary", { textContent: "paint" }), this.brushes()));
    this.world = this.map("World: utility u", "u", "linear");
    this.world.onpaint = (cell) => this.paint(cell);
    const times = make("div", { className: "gl-time" }, this.play, this.step);
    const lines = make("div", { className: "gl-pictures gl-lines" });
    stage.append(this.trouble, this.pictures, times, lines, this.table.element);
    this.scrub = slider(times, history, "when", sliderOf(spec.controls.when));
    times.addEventListener("input", () => this.playing && this.halt());
    this.play.onclick = () => (this.playing ? this.stop() : this.start());
    this.curves = CURVES.map(([, title, label]) => {
      const plot = new CurvePlot(lines, { title, description: `${title} of each loss over training`, height: 175, x: { label: "step", domain: [0, 500], kind: "symlog" }, y: { label, domain: [0, 1] } });
      plot.onhover = (x) => this.curves.forEach((other) => other !== plot && other.mark(x));
      return plot;
    });
    this.prompt = new CurvePlot(lines, { title: "", description: "π of each loss over the responses of one prompt", height: 175, x: { label: "response", domain: [0, SIDE - 1] }, y: { label: "π", domain: [0, 1] } });
    this.prompt.onhover = (x) => this.point(x === null ? null : [this.history.state.prompt as number, Math.round(x)]);
  }

  code(): string {
    return gridCode(this.history.state, this.slots(this.history.state));
  }

  hidden({ reference }: State): string[] {
    return reference === "shifted" ? [] : ["shift"];
  }

  get busy(): boolean {
    return this.training;
  }

  answers(state: State): [value: string, label: string][] {
    return [...this.slots(state).map(({ key, name }): [string, string] => [key, name]), ["equal", "no difference"]];
  }

  /** The numbers at the last step, for tests and for a file. */
  numbers(): Record<string, Record<string, number>> {
    return Object.fromEntries(
      this.runs.map(({ slot, trained }) => [slot.key, Object.fromEntries(TABLE.map(([, name]) => [name, trained[name].at(-1)!]))]),
    );
  }

  /** log π of each loss at its last step, for tests. */
  policies(): Record<string, number[]> {
    return Object.fromEntries(this.runs.map(({ slot, trained }) => [slot.key, [...trained.logp.slice(-SIDE * SIDE)]]));
  }

  /** The pictures, for files. */
  get plots(): Plot[] {
    return [this.world, ...this.maps, ...this.curves, this.prompt];
  }

  update(state: State): void {
    if (this.runs.length && this.current(state)) this.draw(state);
    else if (this.training) this.again = true;
    else void this.retrain();
    if (this.current(state)) this.fill(state);
    const chosen = state.guess;
    if (this.asked === "none" && chosen !== "none" && this.runs.length) this.start();
    this.asked = chosen;
  }

  close(): void {
    this.halt();
    this.filling?.abort();
    this.pool.close();
  }

  private get history() {
    return this.context.history;
  }

  private slots(state: State): Slot[] {
    return slotsOf(state, this.context.losses);
  }

  /** The settings of the world and of the trainings, without the losses. */
  private settings(state: State): State {
    const { controls } = this.context.spec;
    return Object.fromEntries(Object.entries(state).filter(([name]) => name !== "count" && !controls[name].loss && !controls[name].hyper));
  }

  private seed(state: State): number {
    return state.seed as number;
  }

  private keyOf(state: State, slot: Slot): string {
    return trainingKey({ ...this.settings(state), loss: slot.loss.name, ...slot.hyper }, this.seed(state));
  }

  /** True if the runs that are shown were trained at these settings. */
  private current(state: State): boolean {
    const slots = this.slots(state);
    return slots.length === this.runs.length && slots.every((slot, at) => this.runs[at].key === this.keyOf(state, slot));
  }

  /** Trains what has changed, until nothing has changed meanwhile; every picture moves at once. */
  private async retrain(): Promise<void> {
    this.training = true;
    this.filling?.abort();
    do {
      this.again = false;
      const state = this.history.state;
      try {
        const ground = new Ground(this.settings(state), this.seed(state));
        const runs = await Promise.all(
          this.slots(state).map(async (slot): Promise<Run> => {
            const key = this.keyOf(state, slot);
            const known = this.runs.find((run) => run.key === key);
            return { ...(known ?? { trained: await ground.train(slot, await this.kernel(state, slot), this.pool) }), slot, key };
          }),
        );
        [this.ground, this.runs] = [ground, runs];
        write(this.trouble, "");
        if (this.current(this.history.state)) this.again = false;
        this.draw(this.history.state);
      } catch (error) {
        write(this.trouble, `${(error as Error).message}.`);
      }
    } while (this.again);
    this.training = false;
    this.context.changed();
    if (this.current(this.history.state)) this.fill(this.history.state);
  }

  private kernel({ policy, optimizer }: State, slot: Slot) {
    return this.context.shelf.record(slot, `${policy} ${optimizer}`);
  }

  /** Trains the other seeds and then draws bands. */
  private fill(state: State): void {
    const seeds = state.seeds as number;
    const slots = this.slots(state);
    const key = JSON.stringify([seeds, slots.map((slot) => this.keyOf(state, slot))]);
    if (this.training || key === this.filled) return;
    this.filling?.abort();
    this.filled = key;
    if (this.runs.some(({ band }) => band)) {
      for (const run of this.runs) run.band = undefined;
      this.draw(state);
    }
    if (seeds === 1) return;
    const { signal } = (this.filling = new AbortController());
    const others = Array.from({ length: seeds - 1 }, (_, at) => this.seed(state) + at + 1);
    const train = async () => {
      const kernels = await Promise.all(slots.map((slot) => this.kernel(state, slot)));
      const bands: Trained[][] = this.runs.map(({ trained }) => [trained]);
      for (const seed of others) {
        const ground = new Ground(this.settings(state), seed);
        const found = await Promise.all(slots.map((slot, at) => ground.train(slot, kernels[at], this.pool, signal)));
        found.forEach((one, at) => bands[at].push(one));
      }
      if (signal.aborted) return;
      bands.forEach((band, at) => (this.runs[at].band = band));
      this.draw(this.history.state);
    };
    train().catch((error: Error) => {
      if (error.name !== "AbortError") write(this.trouble, `${error.message}.`);
      else if (this.filled === key) this.filled = "";
    });
  }

  private draw(state: State): void {
    if (!this.ground) return;
    const { world, wanted } = this.ground;
    const hidden = world.observed.map((seen) => 1 - seen);
    const revealed = state.guess !== "none";
    const when = revealed ? (this.played ?? (state.when as number)) : 0;
    const at = Math.round((when / 100) * (wanted.length - 1));
    this.scrub({ ...state, when });
    this.world.ends = extent(world.utility);
    this.world.show(world.utility, hidden);
    while (this.maps.length > this.runs.length) this.maps.pop()!.remove();
    while (this.maps.length < this.runs.length) this.maps.push(this.map("", "π", "logarithmic"));
    this.pictures.classList.toggle("gl-many", this.runs.length > 2);
    const size = SIDE * SIDE;
    const policies = this.runs.map(({ trained }) => Float64Array.from(trained.logp.subarray(at * size, (at + 1) * size), Math.exp));
    this.maps.forEach((map, number) => {
      map.title = this.runs[number].slot.name;
      map.show(policies[number], hidden);
    });
    this.brief = this.runs.length > 3;
    this.drawCurves(wanted, wanted[at], revealed);
    this.drawPrompt(state, policies);
    write(this.step, `step ${wanted[at]} of ${wanted[wanted.length - 1]}`);
    this.play.disabled = !revealed;
    this.drawTable(at, revealed);
    this.context.changed();
  }

  private drawCurves(wanted: number[], step: number, revealed: boolean): void {
    CURVES.forEach(([name], number) => {
      const curves = revealed ? [...(this.pinned?.[name] ?? []), ...this.runs.map((run) => curveOf(run, name, wanted, this.nameOf(run.slot)))] : [];
      const all = curves.flatMap(({ y, low = [], high = [] }) => [y, low, high]);
      const [least, most] = extent(...all);
      const ends: [number, number] = name === "utility" ? [Math.min(0, least), endAbove(most)] : [0, endAbove(Math.max(most, 0.1))];
      const plot = this.curves[number];
      plot.frameTo([0, wanted[wanted.length - 1]], ends);
      plot.show(curves);
      plot.rest(step);
    });
  }

  private nameOf({ key, name }: Slot): string {
    return this.brief ? key.toUpperCase() : name;
  }

  private drawPrompt(state: State, policies: Float64Array[]): void {
    const { world } = this.ground!;
    const row = state.prompt as number;
    const x = Array.from({ length: SIDE }, (_, at) => at);
    const part = (table: ArrayLike<number>) => x.map((at) => table[row * SIDE + at]);
    const reference: Curve = { name: "reference", color: "#888888", dash: "1 3", x, y: part(world.refLogp).map(Math.exp) };
    const curves = this.runs.map(({ slot }, at): Curve => ({ name: this.nameOf(slot), color: slot.color, dash: slot.dash, x, y: part(policies[at]) }));
    this.prompt.title = `Prompt ${row}`;
    const [, most] = extent(reference.y, ...curves.map(({ y }) => y));
    this.prompt.frameTo([0, SIDE - 1], [0, Math.min(1, endAbove(most))]);
    this.prompt.show([...curves, reference]);
    this.prompt.mark(this.cell && this.cell[0] === row ? this.cell[1] : null);
  }

  private drawTable(at: number, revealed: boolean): void {
    const known = revealed || at > 0;
    const rows = TABLE.map(([label, name]) => [label, known ? this.runs.map(({ trained }) => trained[name][at]) : null] as const);
    this.table.compare(this.runs.map(({ slot }) => slot.name), rows);
  }

  outcome(): [truth: string, sentence: string] | null {
    const ends = this.runs.map(({ slot, trained }) => ({ slot, end: trained.utility.at(-1)! })).sort((one, other) => other.end - one.end);
    const [first, second] = ends;
    if (!second) return null;
    const gap = first.end - second.end;
    if (gap <= CLOSE) return ["equal", `the best two end within ${CLOSE} nats of each other.`];
    return [first.slot.key, `${first.slot.name} ends highest, by ${spelt(gap)} nats.`];
  }

  private map(title: string, quantity: string, kind: "linear" | "logarithmic"): HeatMap {
    const logarithmic = kind === "logarithmic";
    const map = new HeatMap(this.pictures, {
      title, description: `${quantity} by prompt and response; responses in no pair are struck through`, rows: SIDE, columns: SIDE,
      height: 200, names: ["prompt", "response"], quantity, colors: "cividis", ends: logarithmic ? [LEAST, 1] : [0, 4], logarithmic,
    });
    map.onhover = (cell) => this.point(cell, map);
    map.onchoose = ([prompt]) => this.history.set({ prompt: prompt });
    return map;
  }

  /** Marks a cell in every picture that has it. */
  private point(cell: Cell | null, from?: HeatMap): void {
    this.cell = cell;
    for (const map of [this.world, ...this.maps]) if (map !== from) map.mark(cell);
    if (from) this.prompt.mark(cell && cell[0] === this.history.state.prompt ? cell[1] : null);
  }

  private brushes(): HTMLElement {
    const on = make("input", { type: "checkbox" });
    const none = make("button", { type: "button", textContent: "wipe all paint" });
    none.onclick = () => this.history.set({ painted: "" });
    on.onchange = () => (this.world.painting = on.checked);
    const kinds = make("select", { ariaLabel: "brush" }, ...Object.keys(BRUSHES).map((name) => make("option", { value: name, textContent: name })));
    kinds.onchange = () => (this.brush = BRUSHES[kinds.value]);
    return make("div", { className: "gl-brushes" }, make("label", {}, on, " paint on the world with"), kinds, none);
  }

  private stroke = new Set<number>();

  private paint(cell: Cell | null): void {
    if (!cell) {
      this.stroke.clear();
      return this.history.rest();
    }
    const at = cell[0] * SIDE + cell[1];
    if (this.stroke.has(at)) return;
    this.stroke.add(at);
    const painted = [...((this.history.state.painted as string) || "0".repeat(SIDE * SIDE))].map(Number);
    if (this.brush === 0) painted[at] = 0;
    else painted[at] = this.brush === 1 ? painted[at] ^ 1 : (painted[at] & 1) | this.brush;
    const text = painted.join("");
    this.history.set({ painted: /[1-7]/.test(text) ? text : "" }, "paint");
  }

  /** Keeps the curves that are shown, to be drawn faintly from now on, or lets the kept ones go. */
  pin(on: boolean): void {
    if (!this.ground) return;
    const { wanted } = this.ground;
    const faint = (name: (typeof CURVES)[number][0]) =>
      this.runs.map((run) => ({ ...curveOf({ ...run, band: undefined }, name, wanted, ""), faint: true }));
    this.pinned = on ? Object.fromEntries(CURVES.map(([name]) => [name, faint(name)])) : null;
    this.draw(this.history.state);
  }

  /** Plays the training from its start, or from where it is if that is not the end. */
  start(): void {
    const before = this.history.state.when as number;
    const from = before < 100 ? before : 0;
    write(this.play, "❚❚ pause");
    const began = performance.now();
    const next = (now: number) => {
      this.played = Math.min(100, from + Math.round((100 * Math.max(now - began, 0)) / PLAY));
      if (this.played < 100) this.playing = requestAnimationFrame(next);
      else return this.stop();
      this.draw(this.history.state);
    };
    this.playing = requestAnimationFrame(next);
  }

  /** Ends the play, since the scrubber is in hand. */
  private halt(): void {
    cancelAnimationFrame(this.playing);
    this.playing = 0;
    this.played = null;
    write(this.play, "▶ play");
  }

  /** Ends the play; the scrubber stays where it is. */
  private stop(): void {
    const when = this.played ?? (this.history.state.when as number);
    this.halt();
    if (when !== this.history.state.when) this.history.set({ when: when });
    else this.draw(this.history.state);
  }
}

function curveOf({ slot: { color, dash }, trained, band }: Run, what: keyof Omit<Trained, "logp">, x: number[], name: string): Curve {
  const curve = { name, color, dash, x, y: trained[what] };
  if (!band) return curve;
  const at = x.map((_, step) => band.map((one) => one[what][step]).sort((one, other) => one - other));
  const quantile = (sorted: number[], share: number) => {
    const place = share * (sorted.length - 1);
    const [low, high] = [sorted[Math.floor(place)], sorted[Math.ceil(place)]];
    return low + (high - low) * (place - Math.floor(place));
  };
  return {
    ...curve, y: at.map((sorted) => sorted.reduce((sum, one) => sum + one, 0) / sorted.length),
    low: at.map((sorted) => quantile(sorted, 0.1)), high: at.map((sorted) => quantile(sorted, 0.9)),
  };
}

/** An end of an axis: a whole number above 1, else as `roundUp`; with room for the rounding of float32. */
function endAbove(value: number): number {
  return value > 1 ? Math.ceil(value - 1e-5) : roundUp(Math.max(value, 1e-9), 1e-5);
}
