/** The lab's state as Python, to be run where gradlab is installed. */

import { policyOf, referenceOf } from "./effects";
import { repr } from "./numeric";
import { type Mark, misfit, paintOfText } from "./paint";
import { baseOf, RECORD, recordedSteps, shownStep } from "./runs";
import type { Slot } from "./spec";
import type { State, Value } from "./state";
import type { World } from "./world";


/** A value as Python writes it. */
function quoted(value: Value): string {
  if (typeof value === "boolean") return value ? "True" : "False";
  return typeof value === "string" ? `'${value.replace(/[\\']/g, "\\$&")}'` : repr(value);
}

const called = (names: readonly string[], part: Record<string, Value>) => names.map((name) => `${name}=${quoted(part[name])}`).join(", ");
const lossCode = ({ loss, hyper }: Slot) =>
  `gl.pair_loss(${[quoted(loss.name), called(Object.keys(hyper), hyper)].filter(Boolean).join(", ")})`;
const dictionary = (slots: readonly Slot[]) =>
  `{${slots.map((slot) => `"${slot.key.toUpperCase()}": ${lossCode(slot)}`).join(", ")}}`;

const WORLD = ["prompts", "responses", "utility", "sigma", "scale", "mask_rate", "mask_kind", "reference", "shift"];
const RECIPE = ["policy", "optimizer", "learning_rate", "steps"];

/** The call that draws a state's world; `seed` as code. */
function worldCall(state: State, seed = String(state.seed)): string {
  return `gl.gaussian_world(${called(WORLD.filter((name) => name in state), state)}, seed=${seed})`;
}

function trainingCall(state: State, record: number): string {
  const pairs = state.pairs === "exact" ? "None" : state.pairs;
  return `gl.Training(${called(RECIPE.filter((name) => name in state), state)}, pairs=${pairs}, record=${record})`;
}

/** What the template of the grid names beside settings. */
export function gridParts(state: State, slots: readonly Slot[]): Record<string, string> {
  const [seed, count] = [state.seed as number, state.seeds as number];
  const base = baseOf(state, seed);
  const paint = state.painted && !misfit(state.painted as string, base) ? paintCode(state.painted as string) : [];
  const lines = [...(state.world ? worldCode(base) : [`world = ${worldCall(state, "seed")}`]), ...paint];
  const steps = recordedSteps(state.steps as number);
  return {
    numpy: state.world || paint.length ? "import numpy as np\n\n" : "", imports: "", losses: dictionary(slots),
    world: lines.map((line) => `    ${line}`).join("\n"),
    seeds: `[${Array.from({ length: count }, (_, at) => seed + at).join(", ")}]`,
    training: trainingCall(state, RECORD), index: String(shownStep(state.when as number, steps)),
  };
}

/** What the template of the frontier names beside settings. */
export function frontierParts(state: State, slots: readonly Slot[], betas: readonly number[]): Record<string, string> {
  const numbers = `[${betas.map(repr).join(", ")}]`;
  return { imports: "", losses: dictionary(slots), world: worldCall(state), training: trainingCall(state, 1), betas: numbers };
}

/** A world of one's own, written out. */
function worldCode({ prompts, responses, utility, observed, refLogp, hiddenPairs, lengths }: World): string[] {
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
    ...(lengths ? array("lengths", lengths) : []),
    `world = gl.World(utility, observed, ref_logp${hiddenPairs ? ", hidden_pairs" : ""}${lengths ? ", lengths=lengths" : ""})`,
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
    steps.length ? "ref_logp" : "world.ref_logp", "world.hidden_pairs", "world.lengths",
  ];
  return [...flips, ...levels, ...steps, ...(steps.length ? normalised : []), `world = gl.World(${parts.join(", ")})`];
}

/** What the template of a pair names beside settings. */
export function pairParts(state: State, slots: readonly Slot[]): Record<string, string> {
  const [win, lose] = policyOf(state).map(repr);
  const { reference } = state;
  const values = `np.log([${referenceOf(state).map(repr).join(", ")}])`;
  const ref = reference === "uniform" ? "np.full(2, -np.log(n))" : reference === "the policy" ? "log_p[:2]" : values;
  return { win, lose, ref, imports: "", losses: dictionary(slots) };
}

/** Python's template with settings, or parts, in place of {name}, and single braces for doubled ones. */
export function filled(template: string, state: State, parts: Record<string, string> = {}): string {
  const part = (name: string) => parts[name] ?? quoted(state[name]);
  return template.replace(/\{\{|\}\}|\{(\w+)\}/g, (found, name?: string) => (name ? part(name) : found[0]));
}
