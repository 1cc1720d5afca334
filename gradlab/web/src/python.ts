/** The lab's state as Python, to be run where gradlab is installed. */

import type { Slot } from "./spec";
import type { Value } from "./state";

type Part = Record<string, Value>;
const quoted = (value: Value): string =>
  typeof value === "string" ? JSON.stringify(value) : typeof value === "boolean" ? (value ? "True" : "False") : String(value);
const called = (names: readonly string[], part: Part) => names.map((name) => `${name}=${quoted(part[name])}`).join(", ");
const lossCode = ({ loss, hyper }: Slot) => `gl.pair_loss(${[quoted(loss.name), called(Object.keys(hyper), hyper)].filter(Boolean).join(", ")})`;
const dictionary = (slots: readonly Slot[]) => `{${slots.map((slot) => `${quoted(slot.name)}: ${lossCode(slot)}`).join(", ")}}`;

export function gridCode(part: Part, slots: readonly Slot[]): string {
  const world = ["utility", "sigma", "scale", "mask_rate", "mask_kind", "reference", "shift", "seed"];
  const training = `${called(["policy", "optimizer", "learning_rate", "steps"], part)}, pairs=${part.pairs === "exact" ? "None" : part.pairs}`;
  const painted = part.painted
    ? [
        "import numpy as np",
        `painted = np.array(list(${quoted(part.painted)}), int).reshape(20, 20)  # 1: seen and hidden change places, 2: u = max, 4: u = 0`,
        `utility = np.where(painted & 2, ${part.scale}, np.where(painted & 4, 0.0, world.utility))`,
        "world = gl.World(utility, world.observed ^ (painted & 1 > 0), world.ref_logp, world.hidden_pairs)",
      ]
    : [];
  return [
    "import gradlab as gl",
    "",
    `world = gl.gaussian_world(${called(world, part)})`,
    ...painted,
    `training = gl.Training(${training}, record=24, dtype="float32")`,
    `for name, loss in ${dictionary(slots)}.items():`,
    `    trained = gl.fit(world, loss, training, seed=${part.seed})`,
    '    print(name, trained.history.iloc[-1][["step", "utility", "kl", "unobserved_mass"]].to_dict())',
    "",
  ].join("\n");
}

export function pairCode(part: Part, slots: readonly Slot[], [refWin, refLose]: [number, number]): string {
  return [
    "import math",
    "",
    "import numpy as np",
    "import torch",
    "",
    "import gradlab as gl",
    "",
    `n, step, win, lose = ${part.responses}, ${part.step}, ${part.win}, ${part.lose}`,
    "log_p = np.log([win, lose] + [(1 - win - lose) / (n - 2)] * (n - 2))  # winner, loser, others",
    `logs = [torch.tensor(math.log(p), dtype=torch.float64) for p in (win, lose, ${refWin}, ${refLose})]`,
    `for name, loss in ${dictionary(slots)}.items():`,
    "    pair = gl.PairLogps(*logs)",
    "    by_win, by_lose = (-float(slope) for slope in gl.losses.slopes(loss, pair))",
    "    change = gl.theory.realised_change(log_p, [by_win, by_lose] + [0] * (n - 2), step)",
    "    ratio = float(gl.log_prob_ratio(loss, pair).exp())",
    '    print(name, {"ratio": ratio, "by_logp": [by_win, by_lose], "change": (np.exp(log_p) * np.expm1(change))[:3].tolist()})',
    "",
  ].join("\n");
}
