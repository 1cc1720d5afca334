/** Data that Python gives the lab in a page, written by gradlab/widgets/page.py, and the settings that follow from them. */

import type { KernelRecord } from "./kernel";
import { CHOSEN, SETTINGS } from "./palette";
import type { SliderOptions } from "./slider";
import type { Field, State, Value } from "./state";
import { MASK_KINDS, REFERENCES, UTILITIES } from "./world";

/** A registered loss; `trains` is null, and `reason` says why, where the engine has no kernel of it. */
export interface GivenLoss {
  name: string;
  label: string;
  equation: string;
  source: string;
  family: string;
  hyper: Record<string, number>;
  slopes: KernelRecord | null;
  /** Kernels that train, by "policy optimizer". */
  trains: Record<string, KernelRecord> | null;
  reason: string;
}

/** A control's range, as Python's `SliderRange`; with `log`, ends are powers of ten. */
export interface Range {
  low: number;
  high: number;
  log: boolean;
}

export interface GivenStory {
  title: string;
  lookAt: string;
  state: Record<string, Value>;
}

export interface GivenTexts {
  question: string;
  takeaway: string;
  stories: GivenStory[];
}

export interface Given {
  /** Sentences of the report: first the answer, then the rest. */
  answer: string[];
  losses: GivenLoss[];
  hyper: Record<string, Range>;
  pair: GivenTexts;
  grid: GivenTexts;
}

export const SLOTS = ["a", "b", "c", "d", "e", "f"] as const;
const LOOKS: [string, string | undefined][] = [
  [CHOSEN[0], undefined],
  [CHOSEN[1], "7 3"],
  [CHOSEN[2], "2 3"],
  [SETTINGS[2], "9 3 2 3"],
  [SETTINGS[5], undefined],
  [SETTINGS[1], "7 3"],
];

export type Explorer = "pair" | "grid";
type Entry = [Field, Value];
const number = (low: number, high: number, start: number, whole?: boolean): Entry => [{ kind: "number", low, high, whole }, start];
const choice = (start: string, ...options: string[]): Entry => [{ kind: "choice", options: [start, ...options] }, start];

export const PROB = { low: 1e-12, high: 0.999 };
export const ROOM = 1 - 1e-4; // the largest π_w + π_l: others hold the rest
export const PAINTED = /^([0-7]{400})?$/;

/** Settings by name; those of an explorer have the names of its controls in Python, after its own name. */
function entries({ losses, hyper }: Given): Record<string, Entry> {
  const names = losses.filter(({ trains, slopes }) => trains && slopes).map(({ name }) => name);
  const all: Record<string, Entry> = { view: choice("pair", "grid"), count: number(2, 6, 2, true) };
  const starts = ["dpo", "bdpo", "nbdpo", "fixed-weight", "ipo", "cdpo"].map((name, at) => (names.includes(name) ? name : names[at % names.length]));
  SLOTS.forEach((slot, at) => {
    all[`loss_${slot}`] = [{ kind: "choice", options: names }, starts[at]];
    for (const [name, { low, high, log }] of Object.entries(hyper)) {
      const owner = losses.find((loss) => name in loss.hyper)!;
      all[`${name}_${slot}`] = log ? number(10 ** low, 10 ** high, owner.hyper[name]) : number(low, high, owner.hyper[name]);
    }
  });
  const prob = (start: number) => number(PROB.low, PROB.high, start);
  const pair = {
    win: prob(0.5), lose: prob(0.1), responses: number(3, 20, 5, true), step: number(1e-3, 100, 1),
    reference: choice("uniform", "the policy", "own values"), ref_win: prob(0.2), ref_lose: prob(0.2),
    axes: choice("π", "log π"), arrows: choice("partial derivatives", "step on logits"),
    guess: choice("none", "winner", "loser", "equal", "shown"),
  };
  const grid = {
    utility: choice(...UTILITIES), sigma: number(0.5, 10, 3), scale: number(0.25, 12, 4),
    mask_rate: number(0, 0.8, 0), mask_kind: choice(...MASK_KINDS), reference: choice(...REFERENCES),
    shift: number(0, 15, 6), seed: number(0, 99, 0, true), pairs: choice("exact", "20", "100", "500"),
    seeds: number(1, 20, 1, true), policy: choice("free", "shared"), optimizer: choice("adam", "gd"),
    learning_rate: number(1e-3, 10, 0.05), steps: number(10, 2000, 500, true), when: number(0, 100, 100),
    prompt: number(0, 19, 10, true), guess: choice("none", ...SLOTS, "equal", "shown"),
    painted: [{ kind: "text", pattern: PAINTED, form: "400 digits from 0 to 7, or nothing" }, ""] as Entry,
  };
  for (const [name, entry] of Object.entries(pair)) all[`pair.${name}`] = entry;
  for (const [name, entry] of Object.entries(grid)) all[`grid.${name}`] = entry;
  return all;
}

export function specOf(given: Given): { spec: Record<string, Field>; defaults: State } {
  const all = Object.entries(entries(given));
  return {
    spec: Object.fromEntries(all.map(([name, [field]]) => [name, field])),
    defaults: Object.fromEntries(all.map(([name, [, start]]) => [name, start])),
  };
}

/** A loss as it is chosen: its place, name, look, and the hyper-parameters that a page moves. */
export interface Slot {
  key: string;
  name: string;
  loss: GivenLoss;
  color: string;
  dash: string | undefined;
  hyper: Record<string, number>;
}

export function slotsOf(state: State, losses: readonly GivenLoss[]): Slot[] {
  return SLOTS.slice(0, state.count as number).map((key, at) => {
    const loss = losses.find(({ name }) => name === state[`loss_${key}`])!;
    const hyper = Object.fromEntries(movable(loss).map((name) => [name, state[`${name}_${key}`] as number]));
    const [color, dash] = LOOKS[at];
    return { key, name: `${key.toUpperCase()} ${loss.label}`, loss, color, dash, hyper };
  });
}

/** The hyper-parameters of a loss that all its kernels serve at any value. */
export function movable({ hyper, slopes, trains }: GivenLoss): string[] {
  const kernels = [slopes, ...Object.values(trains ?? {})];
  return Object.keys(hyper).filter((name) => kernels.every((kernel) => kernel?.laws && name in kernel.hyper));
}

export function sliderOf(name: string, { low, high, log }: Range): SliderOptions {
  const label = name === "beta" ? "β" : name.replaceAll("_", " ");
  return log ? { label, low: 10 ** low, high: 10 ** high, scale: "log" } : { label, low, high };
}

/** The settings of one explorer without its name, such as `scale` for "grid.scale". */
export function partOf(state: State, explorer: Explorer): Record<string, Value> {
  const own = Object.entries(state).filter(([name]) => name.startsWith(`${explorer}.`));
  return Object.fromEntries(own.map(([name, value]) => [name.slice(explorer.length + 1), value]));
}

/** The whole state at which a story of an explorer is told. */
export function storyState(story: GivenStory, explorer: Explorer, defaults: State, state: State): State {
  const told = { ...defaults, view: explorer, [`${explorer}.guess`]: state[`${explorer}.guess`] } as Record<string, Value>;
  for (const [name, value] of Object.entries(story.state)) {
    told[name in defaults ? name : `${explorer}.${name}`] = name === "pairs" ? String(value) : value;
  }
  const other = explorer === "pair" ? "grid" : "pair";
  for (const name of Object.keys(state)) if (name.startsWith(`${other}.`)) told[name] = state[name];
  return told;
}
