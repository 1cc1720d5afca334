/** The pair explorer in a page: fields of arrows over policies to drag, gradients of both sides, and a real step. */

import { BarPlot, type Bars } from "./bars";
import { make, write } from "./dom";
import { NumberTable } from "./number_table";
import { type Effect, effect, firstOrder, movedMore, policyOf, referenceOf, ROOM } from "./effects";
import { type Arrow, FieldPlot, type Point, SPACING } from "./field";
import { CLOSED, type Context, type ExplorerView } from "./explorer";
import type { Handle } from "./handles";
import { Kernel, type KernelRecord } from "./kernel";
import { logProbRatio, slopes, winWeight } from "./pairs";
import { BALANCED_WEIGHT, colorTable, LOSER, TRUE, WINNER } from "./palette";
import type { Plot } from "./plot";
import { filled, pairParts } from "./python";
import { spelt } from "./reading";
import { type Slot, slotsOf } from "./spec";
import type { State } from "./state";

/** Ends of a probability. */
const PROB = { low: 1e-12, high: 0.999 };
const GROUPS = ["winner", "loser", "each other"];
const LEAST = PROB.low;
const SIDES = colorTable("sides");
const TABLE: [string, (one: Effect) => number][] = [
  ["ρ = |∂L/∂log π_w| : |∂L/∂log π_l|", ({ rho }) => rho],
  ["ratio |∂L/∂π_w| : |∂L/∂π_l|", ({ ratio }) => ratio],
  ["λ_w, the winner's share of both slopes", ({ byLogp: [win, lose] }) => winWeight(win, lose)],
  ["−∂L/∂π of the winner", ({ byProb }) => byProb[0]],
  ["−∂L/∂π of the loser", ({ byProb }) => byProb[1]],
];
const STEP: [string, (one: Effect) => number][] = [
  ["Δπ of the winner in one step", ({ changeProb }) => changeProb[0]],
  ["Δπ of the loser in one step", ({ changeProb }) => changeProb[1]],
  ["Δ log π of the winner in one step, nats", ({ changeLogp }) => changeLogp[0]],
  ["Δ log π of the loser in one step, nats", ({ changeLogp }) => changeLogp[1]],
];

/** What is shown of a loss: the policy, and what one real step does to it. */
interface Shown {
  slot: Slot;
  at: Point;
  effect: Effect;
}

export class PairLab implements ExplorerView {
  private readonly kernels = new Map<KernelRecord, Kernel>();
  private readonly maps: FieldPlot[] = [];
  private readonly fields = make("div", { className: "gl-pictures gl-fields" });
  private readonly gradients: BarPlot;
  private readonly steps: BarPlot;
  private readonly table = new NumberTable("What each loss does to the pair");
  private readonly trouble = make("p", { className: "gl-trouble", role: "status" });
  private shown: Shown[] = [];
  private kept: Shown[] = [];
  private waiting = "";

  constructor(private readonly context: Context) {
    const bars = make("div", { className: "gl-pictures" });
    context.stage.append(this.trouble, this.fields, scaleOfRatios(), bars, this.table.element);
    const bar = (title: string, label: string) =>
      new BarPlot(bars, GROUPS, { title, description: `${title} of winner, loser and each other response, per loss`, height: 140, x: { label, domain: [-1, 1] } }, false);
    this.gradients = bar("Gradient", "−∂L/∂π");
    this.steps = bar("One real step on the logits", "Δπ");
  }

  get busy(): boolean {
    return this.waiting !== "";
  }

  hidden(state: State): string[] {
    return state.reference === "own values" ? [] : ["ref_win", "ref_lose"];
  }

  code(): string {
    const { state } = this.context.history;
    return filled(this.context.spec.template, state, pairParts(state, slotsOf(state, this.context.losses)));
  }

  /** The numbers that are shown, for tests and for a file. */
  numbers(): Record<string, Effect> {
    const { win, lose, n, step, slots, reference } = this.read(this.context.history.state);
    return Object.fromEntries(slots.map((slot) => [slot.key, effect(win, lose, n, this.slope(slot, win, lose, reference), step)]));
  }

  /** The pictures, for files. */
  get plots(): Plot[] {
    return [...this.maps, this.gradients, this.steps];
  }

  update(state: State): void {
    if (!this.ready(state)) return;
    const { win, lose, n, step, slots, reference } = this.read(state);
    const kind = state.axes === "π" ? "linear" : "log";
    while (this.maps.length > slots.length) this.maps.pop()!.remove();
    while (this.maps.length < slots.length) this.addMap(kind);
    const at: Point = [win, lose];
    this.shown = slots.map((slot) => ({ slot, at, effect: effect(win, lose, n, this.slope(slot, win, lose, reference), step) }));
    const effects = this.shown.map(({ effect }) => effect);
    const revealed = state.guess !== "none";
    slots.forEach((slot, at) => {
      const map = this.maps[at];
      map.title = slot.name;
      map.axes(kind, kind === "log" ? [LEAST, 1] : [0, 1]);
      map.describe = ([one, two]) => this.describe(slot, one, two, reference);
      const both = [this.shown[at], this.kept.find((one) => one.slot.key === slot.key)];
      const trails = both.map((one) => (one && revealed ? trailOf(one) : []));
      map.show(this.arrows(slot, state, n, reference), this.handles(state, win, lose, reference), ...trails);
    });
    const bars = (of: (one: Effect) => readonly number[]) => [...barsOf(this.kept, of, true), ...barsOf(this.shown, of)];
    this.gradients.show(bars(({ byProb }) => byProb));
    this.steps.waits = revealed ? "" : CLOSED;
    this.steps.show(revealed ? bars(({ changeProb }) => changeProb) : []);
    const rows = [...TABLE, ...STEP].map(([label, of], at) => [label, revealed || at < TABLE.length ? effects.map(of) : null] as const);
    this.table.compare(slots.map(({ name }) => name), rows);
  }

  outcome(): [truth: string, sentence: string] | null {
    return this.shown.length ? movedMore(this.shown[0].effect) : null;
  }

  get hasPin(): boolean {
    return this.kept.length > 0;
  }

  /** Keeps the policy with its gradients and steps, to be drawn faintly from now on, or lets them go. */
  pin(on: boolean): void {
    this.kept = on ? this.shown : [];
    this.update(this.context.history.state);
  }

  /** True if all kernels are here; else they are fetched, and the view is drawn then. */
  private ready(state: State): boolean {
    const { losses, shelf, history, changed } = this.context;
    const slots = slotsOf(state, losses);
    const missing = slots.filter((slot) => !this.kernels.has(shelf.known(slot, "slopes")!));
    if (!missing.length) {
      this.waiting = "";
      write(this.trouble, "");
      return true;
    }
    const waiting = missing.map(({ loss, hyper }) => JSON.stringify([loss.name, hyper])).join();
    if (waiting === this.waiting) return false;
    this.waiting = waiting;
    const fetch = async (slot: Slot) => {
      const record = await shelf.record(slot, "slopes");
      this.kernels.set(record, await Kernel.load(record));
    };
    const done = (text: string) => {
      if (this.waiting !== waiting) return; // another state is shown
      this.waiting = "";
      write(this.trouble, text);
      if (!text) this.update(history.state);
      changed();
    };
    Promise.all(missing.map(fetch)).then(() => done(""), (error: Error) => done(`${error.message}.`));
    return false;
  }

  private read(state: State) {
    const slots = slotsOf(state, this.context.losses);
    const [win, lose] = policyOf(state);
    return { win, lose, n: state.responses as number, step: state.step as number, slots, reference: referenceOf(state) };
  }

  private slope(slot: Slot, win: number, lose: number, reference: [number, number]): [number, number] {
    const found = this.slopes(slot, [Math.log(win)], [Math.log(lose)], reference);
    return [found.win[0], found.lose[0]];
  }

  private slopes(slot: Slot, win: number[], lose: number[], [refWin, refLose]: [number, number]) {
    const kernel = this.kernels.get(this.context.shelf.known(slot, "slopes")!)!;
    const same = (value: number) => win.map(() => Math.log(value));
    const pairs = { win, lose, refWin: same(refWin), refLose: same(refLose) };
    return slopes(kernel.record.laws && Object.keys(slot.hyper).length ? kernel.at(slot.hyper) : kernel, pairs);
  }

  private describe(slot: Slot, win: number, lose: number, reference: [number, number]): string {
    const here = `π_w ${spelt(win)}, π_l ${spelt(lose)}`;
    if (win + lose > 1) return `${here}: no policy`;
    const [one, two] = this.slope(slot, Math.max(win, LEAST), Math.max(lose, LEAST), reference);
    const ratio = Math.exp(logProbRatio(one, two, Math.log(Math.max(win, LEAST)), Math.log(Math.max(lose, LEAST))));
    return `${here}: ratio ${spelt(ratio)}, λ_w ${spelt(winWeight(one, two))}`;
  }

  private arrows(slot: Slot, state: State, n: number, reference: [number, number]): Arrow[] {
    const logarithmic = state.axes !== "π";
    const stepping = state.arrows === "step on logits";
    const line = Array.from({ length: 1 / SPACING }, (_, at) => (at + 0.5) * SPACING).map((place) => (logarithmic ? LEAST ** (1 - place) : place));
    const places = line.flatMap((win) => line.map((lose): Point => [win, lose])).filter(([win, lose]) => win + lose < ROOM);
    const found = this.slopes(slot, places.map(([win]) => Math.log(win)), places.map(([, lose]) => Math.log(lose)), reference);
    return places.map(([win, lose], at) => {
      let pull: Point = [-found.win[at], -found.lose[at]];
      const ratio = logProbRatio(pull[0], pull[1], Math.log(win), Math.log(lose)) / Math.LN10;
      if (stepping) pull = firstOrder(win, lose, n, pull);
      const size = Math.max(Math.abs(pull[0]), Math.abs(pull[1])) || 1; // a logistic slope may be tiny
      const [one, two] = [pull[0] / size, pull[1] / size];
      const [right, up] = logarithmic ? [one, two] : stepping ? [one * win, two * lose] : [one / win, two / lose];
      return { x: win, y: lose, right, up, color: ratioColor(ratio) };
    });
  }

  private handles(state: State, win: number, lose: number, [refWin, refLose]: [number, number]): Handle[] {
    const inside = ([x, y]: Point): Point => {
      const clamp = (value: number) => Math.min(Math.max(value, LEAST), PROB.high);
      const [one, two] = [clamp(x), clamp(y)];
      const share = Math.min(1, ROOM / (one + two));
      return [one * share, two * share];
    };
    const end = () => this.context.history.rest();
    const moved = (at: Point, names: [string, string], gesture: string, more = {}) => {
      const [one, two] = inside(at);
      this.context.history.set({ [names[0]]: one, [names[1]]: two, ...more }, gesture);
    };
    const policy: Handle = {
      name: "policy", color: TRUE, at: [win, lose], end, move: (at) => moved(at, ["win", "lose"], "policy"),
    };
    const reference: Handle = {
      name: "reference", color: BALANCED_WEIGHT, at: [refWin, refLose], end, shape: "diamond",
      move: (at) => moved(at, ["ref_win", "ref_lose"], "reference", { "reference": "own values" }),
    };
    return state.reference === "the policy" ? [policy] : [reference, policy];
  }

  private addMap(kind: "linear" | "log"): void {
    const axis = (label: string) => ({ label, domain: (kind === "log" ? [LEAST, 1] : [0, 1]) as [number, number], kind });
    const map = new FieldPlot(this.fields, {
      title: "", description: "Directions of descent over the policies of one pair, coloured by the ratio of both gradients", height: 260,
      x: axis("π_w"), y: axis("π_l"),
    });
    map.onhover = (at) => this.maps.forEach((other) => other !== map && other.mark(at));
    this.maps.push(map);
  }
}

function trailOf({ at: [win, lose], effect: { changeProb } }: Shown): Point[] {
  return [[win, lose], [win + changeProb[0], lose + changeProb[1]]];
}

function barsOf(all: readonly Shown[], of: (one: Effect) => readonly number[], faint = false): Bars[] {
  return all.map(({ slot: { name, color, dash }, effect }) => (
    { name, color, dashed: dash !== undefined, values: of(effect), faint }
  ));
}

/** The colour of a ratio's logarithm to base ten: at −1 and below the loser's, at 1 and above the winner's. */
function ratioColor(power: number): string {
  const at = 3 * Math.round(255 * Math.min(Math.max((power + 1) / 2, 0), 1));
  return Number.isNaN(power) ? "#7A7A7A" : `rgb(${SIDES[at]}, ${SIDES[at + 1]}, ${SIDES[at + 2]})`;
}

function scaleOfRatios(): HTMLElement {
  const bar = make("span", { className: "gl-ratio-bar", ariaHidden: "true" });
  bar.style.setProperty("--gl-from", LOSER);
  bar.style.setProperty("--gl-to", WINNER);
  return make(
    "div",
    { className: "gl-ratios" },
    make("span", {}, "∂L/∂π larger on the loser, 10 : 1 ", bar, " on the winner."),
    "Dot: the policy; diamond: the reference; line: one real step.",
  );
}
