/** Effects of a gradient on one pair in its softmax, as in gradlab/theory/changes.py: gradients in three spaces, a step. */

import { spelt } from "./reading";
import type { State } from "./state";

/** The largest π_w + π_l: others hold the rest. */
export const ROOM = 1 - 1e-4;
const CLOSE = 0.02; // of the larger change: the two count as equal
const ROUNDING = 1e-12; // nats: a smaller change of log π is none

/** Winner, loser, and each of the others, which share the rest evenly. */
export type Three = [winner: number, loser: number, other: number];

export interface Effect {
  /** −∂L/∂π, −∂L/∂log π and −∂L/∂logit. */
  byProb: Three;
  byLogp: Three;
  byLogit: Three;
  /** Changes in one real step of gradient descent on the logits: Δ log π in nats, and Δπ. */
  changeLogp: Three;
  changeProb: Three;
  /** |∂L/∂log π_w| / |∂L/∂log π_l|, and |∂L/∂π_w| / |∂L/∂π_l|. */
  rho: number;
  ratio: number;
}

/** The effect of slopes ∂L/∂log π_w and ∂L/∂log π_l at a policy of n > 2 responses. */
export function effect(win: number, lose: number, n: number, slopes: [number, number], step: number): Effect {
  const prob: Three = [win, lose, (1 - win - lose) / (n - 2)];
  const byLogp: Three = [0 - slopes[0], 0 - slopes[1], 0];
  const total = byLogp[0] + byLogp[1];
  const byLogit = byLogp.map((pull, at) => pull - prob[at] * total) as Three;
  const most = Math.max(...byLogit) * step;
  const mass = prob.map((one, at) => one * Math.exp(step * byLogit[at] - most));
  const shift = most + Math.log(mass[0] + mass[1] + (n - 2) * mass[2]);
  const changeLogp = byLogit.map((pull) => step * pull - shift) as Three;
  const rho = Math.abs(slopes[0]) / Math.abs(slopes[1]);
  return {
    byProb: byLogp.map((pull, at) => pull / prob[at]) as Three,
    byLogp,
    byLogit,
    changeLogp,
    changeProb: prob.map((one, at) => one * Math.expm1(changeLogp[at])) as Three,
    rho,
    ratio: (rho * lose) / win,
  };
}

/** Two probabilities that leave room for the others: the loser's gives way. */
export function keptApart(win: number, lose: number): [number, number] {
  return [win, Math.min(lose, ROOM - win)];
}

/** π_w and π_l of a pair's state. */
export function policyOf({ win, lose }: State): [number, number] {
  return keptApart(win as number, lose as number);
}

/** π_ref of winner and loser in a pair's state. */
export function referenceOf(state: State): [number, number] {
  const even = 1 / (state.responses as number);
  if (state.reference === "uniform") return [even, even];
  return state.reference === "the policy" ? policyOf(state) : keptApart(state.ref_win as number, state.ref_lose as number);
}

/** Whose probability a step changes more, and by how much both change. */
export function movedMore({ changeProb, changeLogp }: Effect): [truth: string, sentence: string] {
  const [win, lose] = changeProb.map((change, at) => (Math.abs(changeLogp[at]) > ROUNDING ? change : 0));
  const [up, down] = [Math.abs(win), Math.abs(lose)];
  const truth = Math.abs(up - down) <= CLOSE * Math.max(up, down) ? "equal" : up > down ? "winner" : "loser";
  return [truth, `Δπ is ${spelt(win)} for the winner, ${spelt(lose)} for the loser.`];
}

/** The change of log π_w and log π_l in a small step on the logits, up to a factor, from −∂L/∂log π of both. */
export function firstOrder(win: number, lose: number, n: number, [one, two]: [number, number]): [number, number] {
  const other = (1 - win - lose) / (n - 2);
  const total = one + two;
  const logits = [one - win * total, two - lose * total, -other * total];
  const mean = win * logits[0] + lose * logits[1] + (n - 2) * other * logits[2];
  return [logits[0] - mean, logits[1] - mean];
}
