/** The pair explorer in a page: fields of arrows over policies to drag, gradients of both sides, and a real step. */

import { BarPlot } from "./bars";
import { layOut, losses, prediction, type Show } from "./controls";
import { make, NumberTable } from "./dom";
import { type Effect, effect, firstOrder } from "./effects";
import { type Arrow, FieldPlot, type Point, SPACING } from "./field";
import { type Given, partOf, PROB, ROOM, type Slot, slotsOf } from "./given";
import type { Handle } from "./handles";
import { Kernel } from "./kernel";
import { logProbRatio, slopes, winWeight } from "./pairs";
import { BALANCED_WEIGHT, colorTable, LOSER, TRUE, WINNER } from "./palette";
import type { Plot } from "./plot";
import { pairCode } from "./python";
import { spelt } from "./reading";
import type { History, State } from "./state";

export const READING =
  "Maps: one per loss, over π of the winner and of the loser; grey has no policies, since π_w + π_l ≤ 1, and on the " +
  "dashed line both are equal. Arrows are directions of descent: of the partial derivatives, or of a small step on the " +
  "logits. Their colour is the ratio of the two gradients in probabilities, pale where the loser's is larger, dark where " +
  "the winner's is. The dot is the policy, the diamond the reference; drag them, or focus them and use arrow keys. The " +
  "line leads to the policy after one real step. Bars say which way descent moves each response, and the table has the " +
  "numbers; each other is any of the responses that the pair does not name.";
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

export class PairLab {
  readonly element = make("section", { className: "gl-explorer", ariaLabel: "One pair", role: "tabpanel" });
  private readonly kernels = new Map<string, Kernel>();
  private readonly shows: Show[] = [];
  private readonly maps: FieldPlot[] = [];
  private readonly fields = make("div", { className: "gl-pictures gl-fields" });
  private readonly gradients: BarPlot;
  private readonly steps: BarPlot;
  private readonly table = new NumberTable("What each loss does to the pair");
  private readonly ask: (state: State, told: string) => void;
  private readonly own: HTMLElement;

  constructor(
    parent: HTMLElement,
    private readonly history: History,
    private readonly given: Given,
  ) {
    const { asked, controls, stage, add, pick } = layOut(this.element, "pair", history, this.shows);
    parent.append(this.element);
    this.ask = prediction(asked, history, "pair.guess", "Predict: in one real step of A on the logits, whose π changes more?", () => [
      ["winner", "the winner's"],
      ["loser", "the loser's"],
      ["equal", "both alike"],
    ]);
    this.shows.push(losses(controls, history, given));
    const prob = { ...PROB, scale: "logit" as const };
    add(controls, "win", { label: "π_w", ...prob });
    add(controls, "lose", { label: "π_l", ...prob });
    const menus = make("div", { className: "gl-choices" });
    controls.append(menus);
    pick(menus, "reference", "reference", ["uniform", "the policy", "own values"]);
    pick(menus, "axes", "axes", ["π", "log π"]);
    pick(menus, "arrows", "arrows", ["partial derivatives", "step on logits"]);
    this.own = make("div");
    controls.append(this.own);
    add(this.own, "ref_win", { label: "π_ref of the winner", ...prob });
    add(this.own, "ref_lose", { label: "π_ref of the loser", ...prob });
    add(controls, "responses", { label: "responses n", low: 3, high: 20, whole: true });
    add(controls, "step", { label: "step size", low: 1e-3, high: 100, scale: "log" });
    const bars = make("div", { className: "gl-pictures" });
    stage.append(this.fields, scaleOfRatios(), bars, this.table.element);
    const bar = (title: string, label: string) =>
      new BarPlot(bars, GROUPS, { title, description: `${title} of winner, loser and each other response, per loss`, height: 140, x: { label, domain: [-1, 1] } });
    this.gradients = bar("Gradient", "−∂L/∂π");
    this.steps = bar("One real step on the logits", "Δπ");
  }

  /** Loads the kernels. */
  async load(): Promise<void> {
    for (const { name, slopes: record } of this.given.losses) if (record) this.kernels.set(name, await Kernel.load(record));
  }

  code(): string {
    const part = partOf(this.history.state, "pair");
    return pairCode(part, slotsOf(this.history.state, this.given.losses), this.reference(this.history.state));
  }

  /** The numbers that are shown, for tests and for a file. */
  numbers(): Record<string, Effect> {
    const { win, lose, n, step, slots, reference } = this.read(this.history.state);
    return Object.fromEntries(slots.map((slot) => [slot.key, effect(win, lose, n, this.slope(slot, win, lose, reference), step)]));
  }

  /** The pictures, for files. */
  get plots(): Plot[] {
    return [...this.maps, this.gradients, this.steps];
  }

  update(state: State): void {
    for (const show of this.shows) show(state);
    this.own.hidden = state["pair.reference"] !== "own values";
    const { win, lose, n, step, slots, reference } = this.read(state);
    const kind = state["pair.axes"] === "π" ? "linear" : "log";
    while (this.maps.length > slots.length) this.maps.pop()!.remove();
    while (this.maps.length < slots.length) this.addMap(kind);
    const effects = slots.map((slot) => effect(win, lose, n, this.slope(slot, win, lose, reference), step));
    slots.forEach((slot, at) => {
      const map = this.maps[at];
      map.title = slot.name;
      map.axes(kind, kind === "log" ? [LEAST, 1] : [0, 1]);
      map.describe = ([one, two]) => this.describe(slot, one, two, reference);
      const after: Point = [win + effects[at].changeProb[0], lose + effects[at].changeProb[1]];
      const trail: Point[] = state["pair.guess"] === "none" ? [] : [[win, lose], after];
      map.show(this.arrows(slot, state, n, reference), this.handles(state, win, lose, reference), trail);
    });
    const bars = (of: (one: Effect) => readonly number[]) =>
      slots.map(({ name, color, dash }, at) => ({ name, color, dashed: dash !== undefined, values: of(effects[at]) }));
    this.gradients.show(bars(({ byProb }) => byProb));
    const revealed = state["pair.guess"] !== "none";
    this.steps.show(revealed ? bars(({ changeProb }) => changeProb) : []);
    const rows = [...TABLE, ...STEP].map(([label, of], at) => [label, revealed || at < TABLE.length ? effects.map(of) : null] as const);
    this.table.compare(slots.map(({ name }) => name), rows);
    this.ask(state, revealed ? this.told(state, effects[0]) : "");
  }

  private told(state: State, { changeProb: [win, lose] }: Effect): string {
    const [up, down] = [Math.abs(win), Math.abs(lose)];
    const truth = Math.abs(up - down) <= 0.02 * Math.max(up, down) ? "equal" : up > down ? "winner" : "loser";
    const sentence = `Δπ is ${spelt(win)} for the winner, ${spelt(lose)} for the loser.`;
    if (state["pair.guess"] === "shown") return sentence;
    return `${state["pair.guess"] === truth ? "As expected" : "Not as expected"}: ${sentence}`;
  }

  private read(state: State) {
    const slots = slotsOf(state, this.given.losses);
    const [win, lose] = [state["pair.win"] as number, state["pair.lose"] as number];
    return {
      win, lose: Math.min(lose, ROOM - win), n: state["pair.responses"] as number, step: state["pair.step"] as number, slots,
      reference: this.reference(state),
    };
  }

  private reference(state: State): [number, number] {
    const kind = state["pair.reference"];
    const even = 1 / (state["pair.responses"] as number);
    if (kind === "uniform") return [even, even];
    const [win, lose] = kind === "the policy" ? ["pair.win", "pair.lose"] : ["pair.ref_win", "pair.ref_lose"];
    return [state[win] as number, state[lose] as number];
  }

  private slope(slot: Slot, win: number, lose: number, reference: [number, number]): [number, number] {
    const found = this.slopes(slot, [Math.log(win)], [Math.log(lose)], reference);
    return [found.win[0], found.lose[0]];
  }

  private slopes({ loss, hyper }: Slot, win: number[], lose: number[], [refWin, refLose]: [number, number]) {
    const kernel = this.kernels.get(loss.name)!;
    const same = (value: number) => win.map(() => Math.log(value));
    const pairs = { win, lose, refWin: same(refWin), refLose: same(refLose) };
    return slopes(Object.keys(hyper).length ? kernel.at(hyper) : kernel, pairs);
  }

  private describe(slot: Slot, win: number, lose: number, reference: [number, number]): string {
    const here = `π_w ${spelt(win)}, π_l ${spelt(lose)}`;
    if (win + lose > 1) return `${here}: no policy`;
    const [one, two] = this.slope(slot, Math.max(win, LEAST), Math.max(lose, LEAST), reference);
    const ratio = Math.exp(logProbRatio(one, two, Math.log(Math.max(win, LEAST)), Math.log(Math.max(lose, LEAST))));
    return `${here}: ratio ${spelt(ratio)}, λ_w ${spelt(winWeight(one, two))}`;
  }

  private arrows(slot: Slot, state: State, n: number, reference: [number, number]): Arrow[] {
    const logarithmic = state["pair.axes"] !== "π";
    const stepping = state["pair.arrows"] === "step on logits";
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
    const end = () => this.history.rest();
    const moved = (at: Point, names: [string, string], gesture: string, more = {}) => {
      const [one, two] = inside(at);
      this.history.set({ [names[0]]: one, [names[1]]: two, ...more }, gesture);
    };
    const policy: Handle = {
      name: "policy", color: TRUE, at: [win, lose], end, move: (at) => moved(at, ["pair.win", "pair.lose"], "policy"),
    };
    const reference: Handle = {
      name: "reference", color: BALANCED_WEIGHT, at: [refWin, refLose], end, shape: "diamond",
      move: (at) => moved(at, ["pair.ref_win", "pair.ref_lose"], "reference", { "pair.reference": "own values" }),
    };
    return state["pair.reference"] === "the policy" ? [policy] : [reference, policy];
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
    "∂L/∂π larger on the loser, 10 : 1",
    bar,
    "on the winner. Drag the dot (policy) and the diamond (reference); the line is one real step.",
  );
}
