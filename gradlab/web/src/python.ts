/** The lab's state as Python, to be run where gradlab is installed. */

import { policyOf, referenceOf } from "./effects";
import { repr } from "./numeric";
import { type Mark, misfit, paintOfText } from "./paint";
import { baseOf } from "./runs";
import type { Slot } from "./spec";
import type { State, Value } from "./state";
import type { World } from "./world";

type Part = Record<string, Value>;

/** A value as Python writes it. */
function quoted(value: Value): string {
  if (typeof value === "boolean") return value ? "True" : "False";
  return typeof value === "string" ? `'${value.replace(/[\\']/g, "\\$&")}'` : repr(value);
}

const called = (names: readonly string[], part: Part) => names.map((name) => `${name}=${quoted(part[name])}`).join(", ");
const lossCode = ({ loss, hyper }: Slot) =>
  `gl.pair_loss(${[quoted(loss.name), called(Object.keys(hyper), hyper)].filter(Boolean).join(", ")})`;
const dictionary = (slots: readonly Slot[]) => `{${slots.map((slot) => `${quoted(slot.name)}: ${lossCode(slot)}`).join(", ")}}`;

const WORLD = ["prompts", "responses", "utility", "sigma", "scale", "mask_rate", "mask_kind", "reference", "shift", "seed"];

export function gridCode(part: Part, slots: readonly Slot[]): string {
  const base = baseOf(part, part.seed as number);
  const paint = part.painted && !misfit(part.painted as string, base) ? paintCode(part.painted as string) : [];
  const world = part.world ? worldCode(base) : [`world = gl.gaussian_world(${called(WORLD, part)})`];
  const training = `${called(["policy", "optimizer", "learning_rate", "steps"], part)}, pairs=${part.pairs === "exact" ? "None" : part.pairs}`;
  return [
    ...(part.world || paint.length ? ["import numpy as np", ""] : []),
    "import gradlab as gl",
    "",
    ...world,
    ...paint,
    `training = gl.Training(${training}, record=24, dtype="float32")`,
    `for name, loss in ${dictionary(slots)}.items():`,
    `    trained = gl.fit(world, loss, training, seed=${part.seed})`,
    '    print(name, trained.history.iloc[-1][["step", "utility", "kl", "unobserved_mass"]].to_dict())',
    "",
  ].join("\n");
}

/** All trainings of the frontier, as FrontierExplorer.code writes them. */
export function frontierCode(part: Part, slots: readonly Slot[], betas: readonly number[]): string {
  const losses = slots.map((slot) => `${quoted(slot.key.toUpperCase())}: ${lossCode(slot)}`);
  const world = called(WORLD.filter((name) => name in part), part);
  const training = `${called(["policy", "steps"], part)}, pairs=${part.pairs === "exact" ? "None" : part.pairs}, record=1`;
  return [
    "from dataclasses import replace", "", "import pandas as pd", "", "import gradlab as gl", "",
    `world = gl.gaussian_world(${world})`,
    `training = gl.Training(${training})`,
    `betas = [${betas.join(", ")}]`, "rows = []",
    `for side, chosen in {${losses.join(", ")}}.items():`,
    '    own = {*betas, chosen.beta} if hasattr(chosen, "beta") else {1.0}',
    "    for beta in sorted(own):",
    '        loss = replace(chosen, beta=beta) if hasattr(chosen, "beta") else chosen',
    `        end = gl.fit(world, loss, training, seed=${part.seed}).history.iloc[-1]`,
    '        found = end[["kl", "utility", "unobserved_mass"]]',
    '        rows.append({"side": side, "loss": loss.name, "beta": beta, **found})',
    "curves = pd.DataFrame(rows)", "print(curves)", "",
  ].join("\n");
}

/** A world of one's own, written out. */
function worldCode({ prompts, responses, utility, observed, refLogp, hiddenPairs }: World): string[] {
  const table = (values: ArrayLike<number>) =>
    Array.from({ length: prompts }, (_, row) => {
      const numbers = Array.from({ length: responses }, (__, at) => values[row * responses + at]);
      return `    [${numbers.join(", ")}],`;
    });
  const array = (name: string, values: ArrayLike<number>, type = "") => [`${name} = np.array([`, ...table(values), `]${type})`];
  const hidden = [...(hiddenPairs ?? []).entries()].filter(([, one]) => one).map(([slot]) => slot);
  const hiding = [
    `hidden_pairs = np.zeros((${prompts}, ${responses}, ${responses}), bool)`,
    `hidden_pairs.flat[[${hidden.join(", ")}]] = True`,
  ];
  return [
    ...array("utility", utility),
    ...(observed.every(Boolean) ? ["observed = np.ones_like(utility, bool)"] : array("observed", observed, ", bool")),
    ...array("ref_logp", refLogp),
    ...(hiddenPairs ? hiding : []),
    `world = gl.World(utility, observed, ref_logp${hiddenPairs ? ", hidden_pairs" : ""})`,
  ];
}

/** Paint on the world that the code has made. */
function paintCode(text: string): string[] {
  const { marks } = paintOfText(text);
  const array = (name: string, of: (mark: Mark) => number, words: string) => {
    const numbers = marks.map(of);
    if (!numbers.some(Boolean)) return [];
    return [`${name} = np.array([${numbers.join(", ")}]).reshape(world.utility.shape)  # ${words}`];
  };
  const flips = array("flips", ({ flip }) => Number(flip), "1: seen and hidden change places");
  const level = ({ utility }: Mark) => ["worst", "", "best"].indexOf(utility) - 1;
  const levels = array("levels", level, "1: the highest utility, -1: the lowest");
  const steps = array("steps", (mark) => mark.steps, "nats by which log π_ref moves before it is normalised");
  const normalised = ["logits = world.ref_logp + steps", "ref_logp = logits - np.log(np.exp(logits).sum(1, keepdims=True))"];
  const utility = "np.select([levels > 0, levels < 0], [world.utility.max(), world.utility.min()], world.utility)";
  const parts = [
    levels.length ? utility : "world.utility", flips.length ? "world.observed ^ (flips > 0)" : "world.observed",
    steps.length ? "ref_logp" : "world.ref_logp", "world.hidden_pairs",
  ];
  return [...flips, ...levels, ...steps, ...(steps.length ? normalised : []), `world = gl.World(${parts.join(", ")})`];
}

/** What the template of a pair names beside settings. */
export function pairParts(state: State, slots: readonly Slot[]): Record<string, string> {
  const [win, lose] = policyOf(state).map(repr);
  const { reference } = state;
  const values = `np.log([${referenceOf(state).map(repr).join(", ")}])`;
  const ref = reference === "uniform" ? "np.full(2, -np.log(n))" : reference === "the policy" ? "log_p[:2]" : values;
  const losses = slots.map((slot) => `"${slot.key.toUpperCase()}": ${lossCode(slot)}`);
  return { win, lose, ref, imports: "", losses: `{${losses.join(", ")}}` };
}

/** Python's template with settings, or parts, in place of {name}, and single braces for doubled ones. */
export function filled(template: string, state: State, parts: Record<string, string> = {}): string {
  const part = (name: string) => parts[name] ?? quoted(state[name]);
  return template.replace(/\{\{|\}\}|\{(\w+)\}/g, (found, name?: string) => (name ? part(name) : found[0]));
}
