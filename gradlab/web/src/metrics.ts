/** Metrics of a policy, as in gradlab/lab/metrics.py: log π and the rest are (X, Y), row by row; means over prompts. */

import type { Reals } from "./kernel";

type Table = Reals | ArrayLike<number>;

/** E_π[u], in nats of preference. */
export function expectedUtility(logp: Table, utility: Table, responses: number): number {
  return mean(logp, responses, (at) => Math.exp(logp[at]) * utility[at]);
}

/** (E_π[u] − E_ref[u]) / (max u − E_ref[u]), over the prompts in which anything can be gained; NaN where there is none. */
export function utilityShare(logp: Table, utility: Table, refLogp: Table, responses: number): number {
  let total = 0;
  let prompts = 0;
  for (let row = 0; row < logp.length; row += responses) {
    let best = -Infinity;
    for (let at = row; at < row + responses; at++) best = Math.max(best, utility[at]);
    let reachable = 0;
    let left = 0;
    for (let at = row; at < row + responses; at++) {
      reachable += Math.exp(refLogp[at]) * (best - utility[at]);
      left += Math.exp(logp[at]) * (best - utility[at]);
    }
    if (reachable > 0) {
      total += (reachable - left) / reachable;
      prompts++;
    }
  }
  return total / prompts;
}

/** KL(π‖π_ref), in nats. */
export function klToReference(logp: Table, refLogp: Table, responses: number): number {
  return mean(logp, responses, (at) => Math.exp(logp[at]) * (logp[at] - refLogp[at]));
}

/** −E_π[log π], in nats. */
export function entropy(logp: Table, responses: number): number {
  return mean(logp, responses, (at) => -Math.exp(logp[at]) * logp[at]);
}

/** The probability on responses that appear in no pair; `observed` has 1 for the others. */
export function unobservedMass(logp: Table, observed: ArrayLike<number>, responses: number): number {
  return mean(logp, responses, (at) => (observed[at] ? 0 : Math.exp(logp[at])));
}

/** P(y ≻ y') for y ~ π, y' ~ opponent, by Bradley–Terry. */
export function winRate(logp: Table, opponentLogp: Table, utility: Table, responses: number): number {
  return mean(logp, responses, (at) => {
    const row = at - (at % responses);
    let beats = 0;
    for (let other = row; other < row + responses; other++) {
      beats += Math.exp(opponentLogp[other]) / (1 + Math.exp(utility[other] - utility[at]));
    }
    return Math.exp(logp[at]) * beats;
  });
}

/** The share of prompts whose most probable response is a best one; where several tie, their mean counts. */
export function top1Accuracy(logp: Table, utility: Table, responses: number): number {
  let total = 0;
  for (let row = 0; row < logp.length; row += responses) {
    let top = -Infinity;
    let best = -Infinity;
    for (let at = row; at < row + responses; at++) {
      top = Math.max(top, logp[at]);
      best = Math.max(best, utility[at]);
    }
    let tied = 0;
    let right = 0;
    for (let at = row; at < row + responses; at++) {
      if (logp[at] !== top) continue;
      tied++;
      if (utility[at] === best) right++;
    }
    total += right / tied;
  }
  return total / (logp.length / responses);
}

function mean(logp: Table, responses: number, term: (at: number) => number): number {
  let total = 0;
  for (let at = 0; at < logp.length; at++) total += term(at);
  return total / (logp.length / responses);
}
