/** Grid training in a page: several losses train on one world, again at every move, side by side and to be played. */

import { type Show, slider } from "./controls";
import { type Curve, CurvePlot } from "./curves";
import { make, write } from "./dom";
import { NumberTable } from "./number_table";
import { CLOSED, type Context, type ExplorerView } from "./explorer";
import { type Cell, HeatMap } from "./heatmap";
import { worldRefusal } from "./own_world";
import { PAINTED, paintRefusal } from "./paint";
import { LEAST } from "./palette";
import { Player } from "./player";
import type { Plot } from "./plot";
import { Pool } from "./pool";
import { filled, gridParts } from "./python";
import { extent, roundUp, spelt } from "./reading";
import { Ground, shownStep, trainingKey, type Trained, worldOf } from "./runs";
import { type Slot, sliderOf, slotsOf } from "./spec";
import type { Fields, State } from "./state";
import type { World } from "./world";
import { WorldTools } from "./world_tools";

/** The settings of which a world of one's own has none. */
const DRAWN = ["prompts", "responses", "utility", "sigma", "scale", "mask_rate", "mask_kind", "reference", "shift"];
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
const SHOWN = "At the step that is shown"; // of the table
const CLOSE = 0.02; // nats of utility within which two losses count as equal
const PATIENCE = 100; // ms that a training has which the state has left: while it is shorter, a drag shows what it passes

interface Run {
  slot: Slot;
  key: string;
  trained: Trained;
  band?: Trained[];
}

export class GridLab implements ExplorerView {
  static readonly places = ["when", "prompt", "painted", "world"];
  static readonly fields: Fields = {
    painted: { kind: "text", pattern: PAINTED, form: "a size and marks of paint, such as 2x3:5AB, or nothing", refuse: paintRefusal },
    world: { kind: "text", pattern: /^(\{.*\})?$/s, form: "a world as JSON, or nothing", refuse: worldRefusal },
  };
  private readonly pool = new Pool(Math.min(4, globalThis.navigator?.hardwareConcurrency ?? 2));
  private readonly maps: HeatMap[] = [];
  private readonly pictures = make("div", { className: "gl-pictures gl-maps" });
  private readonly world: HeatMap;
  private readonly curves: CurvePlot[];
  private readonly prompt: CurvePlot;
  private readonly table = new NumberTable(SHOWN);
  private readonly trouble = make("p", { className: "gl-trouble", role: "status" });
  private readonly refusal = make("p", { className: "gl-trouble", role: "status" }); // of a file
  private readonly tools: WorldTools;
  private readonly player: Player;
  private readonly step = make("span", { className: "gl-at" });
  private readonly scrub: Show;
  private ground: Ground | null = null;
  private runs: Run[] = [];
  private cell: Cell | null = null;
  private under: { key: string; began: number; stop: AbortController; late?: ReturnType<typeof setTimeout> } | null = null;
  private refused = ""; // the key that could not be trained
  private filling: AbortController | null = null;
  private filled = "";
  private untrained = ""; // why there are no bands
  private before: State | null = null;
  private brief = false; // whether legends have a loss's letter alone
  private kept: { key: string; curves: Record<string, Curve[]> } | null = null;

  constructor(private readonly context: Context) {
    const { history, stage, spec } = context;
    this.player = new Player(history, () => this.draw(history.state));
    this.tools = new WorldTools(
      context, () => this.ground && this.ground.world, (state) => worldOf(this.settings(state), this.seed(state)),
      () => this.brushChanged(), (text) => write(this.refusal, text),
    );
    this.world = this.map("World: utility u", "u", "linear");
    this.world.onpaint = (cell) => this.tools.paint(cell);
    const times = make("div", { className: "gl-time" }, this.player.button, this.step);
    const lines = make("div", { className: "gl-pictures gl-lines" });
    stage.append(this.trouble, this.refusal, this.pictures, this.tools.element, times, lines, this.table.element);
    this.scrub = slider(times, history, "when", sliderOf(spec.controls.when));
    times.addEventListener("input", () => {
      if (!this.player.playing) return;
      this.player.halt(); // a move to the state's own place changes no state, so that nothing else ended the play
      this.draw(history.state);
    });
    this.curves = CURVES.map(([, title, label]) => {
      const plot = new CurvePlot(lines, { title, description: `${title} of each loss over training`, height: 166, x: { label: "step", domain: [0, 500], kind: "symlog" }, y: { label, domain: [0, 1] } });
      plot.onhover = (x) => this.curves.forEach((other) => other !== plot && other.mark(x));
      return plot;
    });
    this.prompt = new CurvePlot(lines, {
      title: "", description: "π of each loss over the responses of one prompt", height: 166,
      x: { label: "response", domain: [0, 1], whole: true }, y: { label: "π", domain: [0, 1] },
    });
    this.prompt.onhover = (x) => this.point(x === null ? null : [this.row(), Math.round(x)]);
  }

  code(): string {
    const { state } = this.history;
    return filled(this.context.spec.template, state, gridParts(state, this.slots(state)));
  }

  hidden({ reference, world }: State): string[] {
    return world ? DRAWN : reference === "shifted" ? [] : ["shift"];
  }

  get busy(): boolean {
    return this.under !== null;
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
    const size = this.ground?.world.utility.length ?? 0;
    return Object.fromEntries(this.runs.map(({ slot, trained }) => [slot.key, [...trained.logp.slice(-size)]]));
  }

  /** The pictures, for files. */
  get plots(): Plot[] {
    return [this.world, ...this.maps, ...this.curves, this.prompt];
  }

  update(state: State): void {
    this.tools.update(state);
    if (this.before && this.before.world !== state.world) write(this.refusal, "");
    if (this.runs.length && this.current(state)) {
      this.note();
      this.draw(state);
    }
    if (this.under) this.overtake(state);
    else if (!this.current(state)) void this.retrain();
    if (this.current(state)) this.fill(state);
    if (state.guess === "none") this.player.halt();
    else if (this.runs.length && guessed(this.before, state)) this.player.start(true);
    else if (this.before?.when !== state.when) this.player.halt(); // a newer place than that of the play
    this.before = state;
  }

  close(): void {
    this.player.halt();
    this.filling?.abort();
    clearTimeout(this.under?.late);
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

  /** The key of all that a state trains. */
  private wanted(state: State): string {
    return this.slots(state).map((slot) => this.keyOf(state, slot)).join();
  }

  /** True if the runs that are shown were trained at these settings. */
  private current(state: State): boolean {
    return this.runs.length > 0 && this.runs.map(({ key }) => key).join() === this.wanted(state);
  }

  /** Stops the training under way where the state has left it: at once for one that is shown, else after some patience. */
  private overtake(state: State): void {
    const { under } = this;
    if (!under) return;
    const stop = () => under.stop.abort();
    if (this.wanted(state) === under.key) {
      clearTimeout(under.late);
      under.late = undefined;
    } else if (this.current(state)) stop();
    else under.late ??= setTimeout(stop, under.began + PATIENCE - performance.now());
  }

  /** Trains what is wanted until it is shown, or refused; every picture moves at once. */
  private async retrain(): Promise<void> {
    const { history } = this;
    this.filling?.abort();
    for (this.refused = ""; !this.current(history.state) && this.wanted(history.state) !== this.refused; ) {
      const { state } = history;
      const under = { key: this.wanted(state), began: performance.now(), stop: new AbortController() };
      this.under = under;
      try {
        const found = await this.trained(state, under.stop.signal);
        if (under.stop.signal.aborted) continue;
        [this.ground, this.runs] = found;
        this.letGo();
        this.note();
        this.draw(history.state);
      } catch (error) {
        if (under.stop.signal.aborted) continue;
        if ((error as Error).name === "AbortError") break; // nobody sees it any more
        this.refused = under.key;
        if (this.wanted(history.state) === under.key) write(this.trouble, `${(error as Error).message}.`);
      } finally {
        clearTimeout(this.under.late);
      }
    }
    this.under = null;
    this.context.changed();
    if (this.current(history.state)) this.fill(history.state);
  }

  private async trained(state: State, signal: AbortSignal): Promise<[Ground, Run[]]> {
    const ground = new Ground(this.settings(state), this.seed(state));
    const train = async (slot: Slot): Promise<Run> => {
      const key = this.keyOf(state, slot);
      const known = this.runs.find((run) => run.key === key);
      if (known) return { ...known, slot };
      return { slot, key, trained: await ground.train(slot, await this.kernel(state, slot), this.pool, signal) };
    };
    return [ground, await Promise.all(this.slots(state).map(train))];
  }

  private kernel({ policy, optimizer }: State, slot: Slot) {
    return this.context.shelf.record(slot, `${policy} ${optimizer}`);
  }

  /** Says what there is to say of the world that is shown. */
  private note(): void {
    write(this.trouble, [this.ground!.note, this.untrained].filter(Boolean).map((text) => `${text}.`).join(" "));
  }

  /** Trains the other seeds and then draws bands. */
  private fill(state: State): void {
    const seeds = state.seeds as number;
    const slots = this.slots(state);
    const key = JSON.stringify([seeds, slots.map((slot) => this.keyOf(state, slot))]);
    if (this.under || key === this.filled) return;
    this.filling?.abort();
    this.filled = key;
    this.untrained = "";
    this.note();
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
      if (this.filled !== key) return;
      if (error.name === "AbortError") this.filled = "";
      else {
        this.untrained = error.message;
        this.note();
      }
    });
  }

  private draw(state: State): void {
    if (!this.ground) return;
    const { world, wanted } = this.ground;
    const hidden = world.observed.map((seen) => 1 - seen);
    const revealed = state.guess !== "none";
    const when = revealed ? this.player.when : 0;
    const at = shownStep(when, wanted);
    this.scrub({ ...state, when });
    for (const map of [this.world, ...this.maps]) map.reshape(world.prompts, world.responses);
    this.drawWorld(world, hidden);
    while (this.maps.length > this.runs.length) this.maps.pop()!.remove();
    while (this.maps.length < this.runs.length) this.maps.push(this.map("", "π", "logarithmic"));
    this.pictures.classList.toggle("gl-many", this.runs.length > 2);
    const size = world.utility.length;
    const policies = this.runs.map(({ trained }) => Float64Array.from(trained.logp.subarray(at * size, (at + 1) * size), Math.exp));
    this.maps.forEach((map, number) => {
      map.title = this.runs[number].slot.name;
      map.show(policies[number], hidden);
    });
    this.brief = this.runs.length > 3;
    this.drawCurves(wanted, wanted[at], revealed);
    this.drawPrompt(policies);
    write(this.step, `step ${wanted[at]} of ${wanted[wanted.length - 1]}`);
    this.player.button.disabled = !revealed;
    this.drawTable(at, revealed);
    this.context.changed();
  }

  /** Draws the utility; while a brush paints on the reference, that. */
  private drawWorld(world: World, hidden: Uint8Array): void {
    const reference = this.tools.onReference;
    const values = reference ? world.refLogp.map(Math.exp) : world.utility;
    this.world.title = reference ? "World: reference π_ref" : "World: utility u";
    this.world.quantity = reference ? "π_ref" : "u";
    this.world.ends = reference ? [0, Math.max(...extent(values))] : apart(extent(values));
    this.world.show(values, hidden);
  }

  private drawCurves(wanted: number[], step: number, revealed: boolean): void {
    CURVES.forEach(([name], number) => {
      const present = this.runs.map((run) => curveOf(run, name, wanted, this.nameOf(run.slot)));
      const curves = revealed ? [...(this.kept?.curves[name] ?? []), ...present] : [];
      const all = curves.flatMap(({ y, low = [], high = [] }) => [y, low, high]);
      const [least, most] = extent(...all);
      const ends: [number, number] = name === "utility" ? [Math.min(0, least), endAbove(most)] : [0, endAbove(Math.max(most, 0.1))];
      const plot = this.curves[number];
      plot.frameTo([0, wanted[wanted.length - 1]], ends);
      plot.waits = revealed ? "" : CLOSED;
      plot.show(curves);
      plot.rest(step);
    });
  }

  private nameOf({ key, name }: Slot): string {
    return this.brief ? key.toUpperCase() : name;
  }

  private drawPrompt(policies: Float64Array[]): void {
    const { world } = this.ground!;
    const { responses } = world;
    const row = this.row();
    const x = Array.from({ length: responses }, (_, at) => at);
    const part = (table: ArrayLike<number>) => x.map((at) => table[row * responses + at]);
    const reference: Curve = { name: "reference", color: "#888888", dash: "1 3", x, y: part(world.refLogp).map(Math.exp) };
    const curves = this.runs.map(({ slot }, at): Curve => ({ name: this.nameOf(slot), color: slot.color, dash: slot.dash, x, y: part(policies[at]) }));
    this.prompt.title = `Prompt ${row}`;
    const [, most] = extent(reference.y, ...curves.map(({ y }) => y));
    this.prompt.frameTo([0, responses - 1], [0, Math.min(1, endAbove(most))]);
    this.prompt.show([...curves, reference]);
    this.prompt.mark(this.cell && this.cell[0] === row ? this.cell[1] : null);
  }

  private drawTable(at: number, revealed: boolean): void {
    const known = revealed || at > 0;
    const rows = TABLE.map(([label, name]) => [label, known ? this.runs.map((run) => meanOf(run, name, at)) : null] as const);
    const seeds = this.runs[0]?.band?.length ?? 1;
    this.table.caption = seeds > 1 ? `${SHOWN}: means over ${seeds} seeds` : SHOWN;
    this.table.compare(this.runs.map(({ slot }) => slot.name), rows);
  }

  outcome(): [truth: string, sentence: string] | null {
    const ends = this.runs.map((run) => ({ slot: run.slot, end: meanOf(run, "utility", -1) })).sort((one, other) => other.end - one.end);
    const [first, second] = ends;
    if (!second) return null;
    const gap = first.end - second.end;
    if (gap <= CLOSE) return ["equal", `the best two end within ${CLOSE} nats of each other.`];
    return [first.slot.key, `${first.slot.name} ends highest, by ${spelt(gap)} nats.`];
  }

  private map(title: string, quantity: string, kind: "linear" | "logarithmic"): HeatMap {
    const logarithmic = kind === "logarithmic";
    const map = new HeatMap(this.pictures, {
      title, description: `${quantity} by prompt and response; responses in no pair are struck through`,
      rows: this.ground?.world.prompts ?? 1, columns: this.ground?.world.responses ?? 1,
      height: 190, names: ["prompt", "response"], quantity, colors: "cividis", ends: logarithmic ? [LEAST, 1] : [0, 4], logarithmic,
    });
    map.onhover = (cell) => this.point(cell, map);
    map.onchoose = ([prompt]) => this.history.set({ prompt: prompt });
    return map;
  }

  /** The prompt that is drawn: the chosen one, or the last where the world has fewer. */
  private row(): number {
    return Math.min(this.history.state.prompt as number, this.ground!.world.prompts - 1);
  }

  /** Marks a cell in every picture that has it. */
  private point(cell: Cell | null, from?: HeatMap): void {
    this.cell = cell;
    for (const map of [this.world, ...this.maps]) if (map !== from) map.mark(cell);
    if (from) this.prompt.mark(cell && cell[0] === this.row() ? cell[1] : null);
  }

  private brushChanged(): void {
    this.world.painting = this.tools.painting;
    this.draw(this.history.state);
  }

  get hasPin(): boolean {
    return this.kept !== null;
  }

  /** Keeps the curves that are shown, to be drawn faintly from now on, or lets the kept ones go. */
  pin(on: boolean): void {
    if (!this.ground) return;
    const { wanted } = this.ground;
    const faint = (name: (typeof CURVES)[number][0]) =>
      this.runs.map((run) => ({ ...curveOf({ ...run, band: undefined }, name, wanted, ""), faint: true }));
    this.kept = on ? { key: this.place(), curves: Object.fromEntries(CURVES.map(([name]) => [name, faint(name)])) } : null;
    this.draw(this.history.state);
  }

  /** Which world is shown: settings of one kind of world may be compared, other sizes and worlds of one's own not. */
  private place(): string {
    const { prompts, responses } = this.ground!.world;
    return `${prompts}×${responses} ${this.history.state.world}`;
  }

  /** Lets curves of another world go. */
  private letGo(): void {
    if (this.kept?.key !== this.place()) this.kept = null;
  }
}

/** True if a guess is all that has changed: a link, a file or an undo to a state that was seen plays nothing. */
function guessed(before: State | null, state: State): boolean {
  if (before?.guess !== "none" || state.guess === "none") return false;
  return Object.keys(state).every((name) => name === "guess" || Object.is(state[name], before[name]));
}

/** A number of a run at a step, by its place: the mean over seeds where others than the first are trained. */
function meanOf({ trained, band = [trained] }: Run, what: keyof Omit<Trained, "logp">, at: number): number {
  return band.reduce((sum, one) => sum + one[what].at(at)!, 0) / band.length;
}

function curveOf(run: Run, what: keyof Omit<Trained, "logp">, x: number[], name: string): Curve {
  const { slot: { color, dash }, band } = run;
  const curve = { name, color, dash, x, y: x.map((_, step) => meanOf(run, what, step)) };
  if (!band) return curve;
  const at = x.map((_, step) => band.map((one) => one[what][step]).sort((one, other) => one - other));
  const quantile = (sorted: number[], share: number) => {
    const place = share * (sorted.length - 1);
    const [low, high] = [sorted[Math.floor(place)], sorted[Math.ceil(place)]];
    return low + (high - low) * (place - Math.floor(place));
  };
  return {
    ...curve, low: at.map((sorted) => quantile(sorted, 0.1)), high: at.map((sorted) => quantile(sorted, 0.9)),
  };
}

/** Ends of a colour scale, which must not be one number. */
function apart([low, high]: [number, number]): [number, number] {
  return low < high ? [low, high] : [low, low + 1];
}

/** An end of an axis: a whole number above 1, else as `roundUp`; with room for the rounding of float32. */
function endAbove(value: number): number {
  return value > 1 ? Math.ceil(value - 1e-5) : roundUp(Math.max(value, 1e-9), 1e-5);
}
