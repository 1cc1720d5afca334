/** Reward against distance from the reference as β moves: the charts and numbers of gradlab/widgets/frontier_explorer.py. */

import type { ChartMessage, CurveMessage, HandleMessage } from "./chart_messages";
import { acrossHandle, axis, curve, curves } from "./chart_records";
import type { Reading } from "./number_table";
import { metricsOf } from "./metrics";
import { INK, LOOKS } from "./palette";
import type { Slot } from "./spec";
import { logSoftmax, type World } from "./world";

export const BETAS = Array.from({ length: 11 }, (_, at) => 10 ** ((at - 5) / 5)); // of the curves: from 0.1 to 10, with 1
const IDEAL_BETAS = Array.from({ length: 160 }, (_, at) => 0.02 * 1e5 ** (at / 159)); // of the dotted curve
const LABELS = { utility: "expected utility E[u] (nats)", unobserved: "mass on unobserved responses" };
const TOPS = [0.02, 0.05, 0.1, 0.2, 0.5, 1];
const FARTHEST = 3.05; // KL from a uniform reference over 20 responses is at most log 20 = 3.0
const CLOSE = 0.03; // nats of utility within which two curves count as meeting
const STOPS = 9; // of a dragged mark, from one trained β to the next

/** The end of a training, or the ideal policy, at one β. */
export interface Point {
  beta: number;
  kl: number;
  utility: number;
  unobserved: number;
}

/** What is shown: the points of each loss by rising β as far as they are trained, among them that of its own β. */
export interface Frontiers {
  value: "utility" | "unobserved";
  slots: Slot[];
  lines: Point[][];
  ideal: Point[];
  /** E[u] of the reference, and of the best response of each prompt. */
  ends: [number, number];
}

/** A loss's β; 1 where it has none. */
export const betaOf = ({ hyper, loss }: Slot) => hyper.beta ?? loss.hyper.beta ?? 1;
const along = (line: readonly Point[], key: keyof Point) => line.map((point) => point[key]);
/** The point at a loss's own β. */
export const markOf = ({ slots, lines }: Frontiers, at: number) => lines[at].find(({ beta }) => beta === betaOf(slots[at]))!;

/** How much more expected utility is possible at a point's KL: the ideal curve is the lower envelope of its tangents. */
function belowIdeal({ ideal, ends }: Frontiers, { kl, utility }: Point): number {
  return Math.min(ends[1], ...ideal.map((one) => one.utility + one.beta * (kl - one.kl))) - utility;
}

/** The expected utility where a line, as β falls, first passes a KL; NaN where it does not yet. */
function utilityAt(line: readonly Point[], level: number): number {
  const rising: Point[] = [];
  for (const point of [...line].reverse()) if (!rising.length || point.kl > rising.at(-1)!.kl) rising.push(point);
  const after = rising.findIndex(({ kl }) => kl >= level);
  if (after < 0 || (after === 0 && rising[0].kl > level)) return NaN;
  if (after === 0) return rising[0].utility;
  const [one, other] = [rising[after - 1], rising[after]];
  return one.utility + ((other.utility - one.utility) * (level - one.kl)) / (other.kl - one.kl);
}

/** The path of a mark: the drawn line, with stops between the trained β. */
function trackOf(control: string, line: readonly Point[], key: keyof Point): HandleMessage["track"] {
  const places = Array.from({ length: STOPS * (line.length - 1) + 1 }, (_, at) => at);
  const between = (of: (point: Point) => number) =>
    places.map((place) => {
      const [at, share] = [Math.floor(place / STOPS), (place % STOPS) / STOPS];
      return share ? of(line[at]) + share * (of(line[at + 1]) - of(line[at])) : of(line[at]);
    });
  const betas = between(({ beta }) => Math.log(beta)).map((log) => Number(Math.exp(log).toPrecision(3)));
  return { control, values: betas, x: between(({ kl }) => kl), y: between((point) => point[key]) };
}

/** Limits of the vertical axis in whole steps, so that they seldom change. */
function limitsOf({ value, lines, ideal, ends: [least, most] }: Frontiers): [number, number] {
  const values = lines.flatMap((line) => along(line, value));
  if (value !== "utility") {
    const highest = Math.max(...values, ...along(ideal, value));
    return [0, TOPS.find((top) => highest <= top * (1 + 1e-9)) ?? 1];
  }
  const low = Math.min(...values, least);
  const step = 10 ** Math.floor(Math.log10(Math.max(most - low, 1e-9))) / 2;
  return [Math.floor(low / step) * step, Math.ceil(most / step) * step];
}

/** The lines of all losses, with the pinned ones faintly behind. */
function linesOf(shown: Frontiers, pinned: Frontiers | null, x: keyof Point, y: keyof Point, falling = false): CurveMessage[] {
  const drawn = (name: string, { key, color }: Slot, line: Point[], more: Partial<CurveMessage>) => {
    const points = falling ? [...line].reverse() : line;
    return curve(name, along(points, x), along(points, y), color, { dash: LOOKS[key][1], ...more });
  };
  return shown.slots.flatMap((slot, at) => {
    const before = pinned?.lines[pinned.slots.findIndex(({ key }) => key === slot.key)];
    const faint = before ? [drawn(`${slot.key.toUpperCase()}, pinned`, slot, before, { faint: true })] : [];
    return [...faint, drawn(slot.name, slot, shown.lines[at], { marker: "dot" })];
  });
}

/** The frontier, and how far each β goes. */
export function charts(shown: Frontiers, pinned: Frontiers | null): ChartMessage[] {
  const { value, slots, lines, ideal } = shown;
  const highest = Math.max(...lines.flat().map(({ kl }) => kl));
  const farthest = highest <= FARTHEST ? FARTHEST : Math.ceil(highest);
  const ones = lines.flatMap((line) => line.filter(({ beta }) => beta === 1));
  const best = [...ideal].reverse();
  const all = slots.map((slot, at) => ({ slot, line: lines[at], mark: markOf(shown, at) }));
  const moved = all.filter(({ slot }) => "beta" in slot.hyper);
  const named = (key: string) => `β of ${key.toUpperCase()}`;
  return [
    curves(
      "what each loss buys",
      "Expected utility, or mass on unobserved responses, against KL from the reference: one curve per loss, marks at the " +
        "chosen β and at 1, and the ideal curve",
      axis("KL from the reference (nats)", 0, farthest), axis(LABELS[value], ...limitsOf(shown)),
      [
        curve("ideal, π_ref exp(u/β)", along(best, "kl"), along(best, value), INK, { dash: "dotted" }),
        ...linesOf(shown, pinned, "kl", value, true),
        curve("at the paper's β = 1", along(ones, "kl"), along(ones, value), INK, { marker: "ring", line: false }),
      ],
      {
        handles: moved.map(({ slot: { key, color }, line, mark }) => ({
          name: named(key), x: mark.kl, y: mark[value], color, moves: [], shape: "dot",
          track: trackOf(`beta_${key}`, line, value),
        })),
        height: 300,
      },
    ),
    curves(
      "how far each β goes", "KL from the reference against β, one curve per loss, marks at the chosen β",
      axis("β", BETAS[0], BETAS[10], "log"), axis("KL from the reference (nats)", 0, farthest),
      linesOf(shown, pinned, "beta", "kl"),
      {
        rules: [{ x: 1, y: null, label: "the paper's β", dash: "" }],
        handles: moved.map(({ slot: { key, color }, mark }) =>
          acrossHandle(`${named(key)}, how far`, mark.beta, mark.kl, color, `beta_${key}`)),
        height: 300,
      },
    ),
  ];
}

/** Where each loss's policy ends at its β, and how many trainings the lines hold. */
export function readings(shown: Frontiers): Reading[] {
  const { value, slots, lines } = shown;
  const each = (of: (at: number) => number) => Object.fromEntries(slots.map(({ key }, at) => [key.toUpperCase(), of(at)]));
  const [label, unit] = [LABELS[value].replace(" (nats)", ""), value === "utility" ? "nats" : ""];
  return [
    { name: "β", value: each((at) => betaOf(slots[at])), unit: "" },
    { name: "KL from the reference", value: each((at) => markOf(shown, at).kl), unit: "nats" },
    { name: label, value: each((at) => markOf(shown, at)[value]), unit },
    { name: "below the ideal at that KL", value: each((at) => belowIdeal(shown, markOf(shown, at))), unit: "nats" },
    { name: "trainings so far", value: each((at) => lines[at].length), unit: "" },
  ];
}

/** Whose line is higher at the KL of the nearer mark of A's and B's; null until both reach it. */
export function outcome(shown: Frontiers): [truth: string, sentence: string] | null {
  const level = Math.min(markOf(shown, 0).kl, markOf(shown, 1).kl);
  const [a, b] = [0, 1].map((at) => utilityAt(shown.lines[at], level));
  if (!Number.isFinite(a - b)) return null;
  const truth = Math.abs(a - b) < CLOSE ? "equal" : a > b ? "a" : "b";
  const [at, one, other] = [level, a, b].map((value) => value.toFixed(2));
  return [truth, `At a KL of ${at} nats A's curve is at ${one} nats of utility, and B's at ${other}.`];
}

/** The ideal policies of a world, log-softmax of log π_ref + u/β. */
export function idealOf(world: World): Point[] {
  const { utility, refLogp, responses } = world;
  const policies = IDEAL_BETAS.map((beta) => {
    const logits = new Float64Array(utility.length);
    for (let at = 0; at < logits.length; at++) logits[at] = refLogp[at] + utility[at] / beta;
    return logSoftmax(logits, responses);
  });
  return metricsOf(policies, world).map((found, at) => ({ beta: IDEAL_BETAS[at], ...found }));
}

/** E[u] of the reference, and of the best response of each prompt. */
export function endsOf({ utility, refLogp, prompts, responses }: World): [number, number] {
  let [reference, best] = [0, 0];
  for (let row = 0; row < utility.length; row += responses) {
    const of = utility.subarray(row, row + responses);
    best += Math.max(...of);
    of.forEach((one, at) => (reference += Math.exp(refLogp[row + at]) * one));
  }
  return [reference / prompts, best / prompts];
}
