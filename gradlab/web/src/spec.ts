/** What Python says of an explorer: its texts, its controls with their ranges, and the losses that it offers. */

import type { KernelRecord } from "./kernel";
import { DASHES, LOOKS } from "./palette";
import type { SliderOptions } from "./slider";
import { type Field, type Fields, refusal, type State, type Value } from "./state";

/** A control's facts, as `Control.spec()` in Python gives them; `loss`, `hyper` and `of` say to which loss it belongs. */
export interface ControlSpec {
  kind: "number" | "whole" | "choice" | "flag" | "text";
  label: string;
  hint: string;
  start: Value;
  /** Its value in an explorer without start values of its own, which a link leaves out; missing: `start`. */
  usual?: Value;
  low?: number | null;
  high?: number | null;
  scale?: "linear" | "log" | "logit";
  options?: { label: string; value: Value }[];
  /** Whether options, or label and ends, change with other controls: Python alone checks a value then. */
  changing?: boolean;
  /** Lines that are seen of a text; missing: one. */
  rows?: number;
  /** What Python says of the present value, such as why it is not used. */
  note?: string;
  loss?: string;
  hyper?: string;
  of?: string;
}

/** A registered loss; `reason` says why there is no kernel of it. A page without Python brings all kernels. */
export interface LossFacts {
  name: string;
  label: string;
  /** The label, with "{name}" for each hyper-parameter whose number is in it. */
  title: string;
  equation: string;
  source: string;
  family: string;
  hyper: Record<string, number>;
  /** The ends and the scale of each of these numbers' tracks. */
  stops: Record<string, [low: number | null, high: number | null, scale: ControlSpec["scale"]]>;
  reason: string;
  /** What the loss states of itself, as texts: rho, start, optimum, bounded, convention. */
  atlas: Record<string, string>;
  slopes?: KernelRecord | null;
  /** Kernels that train, by "policy optimizer". */
  trains?: Record<string, KernelRecord> | null;
}

export interface Story {
  title: string;
  lookAt: string;
  state: Record<string, Value>;
}

export interface Spec {
  name: string;
  question: string;
  prediction: string;
  /** What to do first. */
  firstMove: string;
  ask: string;
  answers: [value: string, label: string][];
  reading: string;
  takeaway: string;
  stories: Story[];
  /** True: the page computes. False: Python sends charts. */
  inPage: boolean;
  /** Code that computes what is shown, to be filled by `filled`; "" where the view writes it. */
  template: string;
  groups: { heading: string; folded: boolean; controls: string[] }[];
  controls: Record<string, ControlSpec>;
  losses: LossFacts[];
}

/** Data that Python gives the lab's page, written by gradlab/widgets/page.py. */
export interface Given {
  /** Sentences of the report: first the answer, then the rest. */
  answer: string[];
  /** Sentences for a reader who knows none of the words. */
  lead: string[];
  losses: LossFacts[];
  explorers: Record<string, Omit<Spec, "losses">>;
  /** The address of the lab that reads links, where it is another page. */
  page?: string;
}

export const SLOTS = ["a", "b", "c", "d", "e", "f"] as const;

function fieldOf({ kind, low, high, options, changing }: ControlSpec): Field {
  if (kind === "choice" && !changing) return { kind, options: options!.map(({ value }) => value) };
  if (kind === "flag") return { kind };
  if (kind === "text" || kind === "choice") return { kind: "text", pattern: /^/, form: "a text" };
  const ends = changing ? [-Infinity, Infinity] : [low ?? -Infinity, high ?? Infinity];
  return { kind: "number", low: ends[0], high: ends[1], whole: kind === "whole" };
}

/** What may be set, and the values at the start. */
export function fieldsOf({ controls }: Pick<Spec, "controls">): { fields: Fields; defaults: State; usual: State } {
  const all = Object.entries(controls);
  return {
    fields: Object.fromEntries(all.map(([name, control]) => [name, fieldOf(control)])),
    defaults: Object.fromEntries(all.map(([name, { start }]) => [name, start])),
    usual: Object.fromEntries(all.map(([name, { start, usual = start }]) => [name, usual])),
  };
}

/** A loss as it is chosen: its place, name, look, and the hyper-parameters that are moved. */
export interface Slot {
  key: string;
  name: string;
  loss: LossFacts;
  color: string;
  dash: string | undefined;
  hyper: Record<string, number>;
}

/** The losses that a state chooses, in their order; `count` of them where the explorer has that control. */
export function slotsOf(state: State, losses: readonly LossFacts[]): Slot[] {
  const there = SLOTS.filter((key) => `loss_${key}` in state);
  return there.slice(0, (state.count as number | undefined) ?? there.length).map((key) => {
    const loss = losses.find(({ name }) => name === state[`loss_${key}`])!;
    const hyper = Object.fromEntries(movable(loss).map((name) => [name, state[`${name}_${key}`] as number]));
    const [color, dash] = LOOKS[key];
    return { key, name: `${key.toUpperCase()} ${titled(loss, hyper)}`, loss, color, dash: DASHES[dash], hyper };
  });
}

/** A loss's label at these hyper-parameters. */
function titled({ title, hyper: defaults }: LossFacts, hyper: Record<string, number>): string {
  const all = { ...defaults, ...hyper };
  return title.replace(/\{(\w+)\}/g, (text, name: string) => (Object.hasOwn(all, name) ? String(Number(all[name].toPrecision(6))) : text));
}

/** The hyper-parameters of a loss that can be moved: all where Python makes kernels, else those that the kernels serve. */
export function movable({ hyper, slopes, trains }: LossFacts): string[] {
  const kernels = [slopes, ...Object.values(trains ?? {})].filter((kernel) => kernel !== undefined);
  return Object.keys(hyper).filter((name) => kernels.every((kernel) => kernel?.laws && name in kernel.hyper));
}

/** How a slider shows a number; of a loss's number, with the stops that this loss has. */
export function sliderOf({ label, hint, kind, hyper, ...all }: ControlSpec, loss?: LossFacts): SliderOptions {
  const [from, to] = [all.low ?? -Infinity, all.high ?? Infinity];
  const [low, high, scale] = loss?.stops[hyper ?? ""] ?? [from, to, all.scale];
  return { label, hint, low: Math.max(low ?? from, from), high: Math.min(high ?? to, to), scale, whole: kind === "whole" };
}

/**
 * The numbers that go with a newly chosen loss, as `LossNumber.following` in Python has it: its default, where the value
 * was untouched or is none that the loss takes.
 */
export function followers(key: string, chosen: LossFacts, state: State, losses: readonly LossFacts[], controls: Spec["controls"]): State {
  const former = losses.find(({ name }) => name === state[`loss_${key}`])!;
  const numbers = Object.entries(controls).filter(([, { of, kind }]) => of === key && kind === "number");
  return Object.fromEntries(numbers.map(([name, control]) => {
    const hyper = control.hyper!;
    const value = state[name] as number;
    const start = (control.usual ?? control.start) as number;
    const { low, high } = sliderOf(control, chosen);
    const untouched = value === (former.hyper[hyper] ?? start);
    const next = untouched || value < low || value > high ? (chosen.hyper[hyper] ?? start) : value;
    return [name, Math.min(Math.max(next, low), high)];
  }));
}

/** The numbers of a state that its losses do not take, as `LossNumber.accepted_of` in Python has it: why, and the loss's own. */
export function notTaken(state: State, { controls, losses }: Pick<Spec, "controls" | "losses">): { name: string; reason: string; usual: number }[] {
  return Object.entries(controls).flatMap(([name, control]) => {
    const chosen = losses.find((loss) => control.of && loss.name === state[`loss_${control.of}`]);
    const usual = chosen?.hyper[control.hyper ?? ""];
    if (!chosen || usual === undefined) return [];
    const { low, high } = sliderOf(control, chosen);
    const reason = refusal(name, state[name], { kind: "number", low, high });
    return reason ? [{ name, reason: `${reason} (${chosen.label})`, usual }] : [];
  });
}

/** The whole state at which a story is told; the reader's guess stays. */
export function storyState({ state: told }: Story, defaults: State, state: State): State {
  return { ...defaults, ...("guess" in state ? { guess: state.guess } : {}), ...told };
}
