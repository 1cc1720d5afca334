/** Metrics of a policy, as in gradlab/lab/metrics.py: tables are (X, Y), row by row; means over prompts. */

import type { Reals } from "./kernel";
import type { World } from "./world";

type Table = Reals | ArrayLike<number>;

/** What a world tells of a policy. */
export interface Metrics {
  /** E_π[u], in nats of preference. */
  utility: number;
  /** KL(π‖π_ref), in nats. */
  kl: number;
  /** The probability on responses that appear in no pair. */
  unobserved: number;
  /** (E_π[u] − E_ref[u]) / (max u − E_ref[u]), over the prompts in which anything can be gained; NaN where there is none. */
  share: number;
}

/** The metrics of policies on a world, from log π of each. */
export function metricsOf(
  policies: readonly Table[],
  world: Pick<World, "utility" | "observed" | "refLogp" | "responses">,
): Metrics[] {
  const { utility, observed, refLogp, responses } = world;
  const prompts = utility.length / responses;
  const best = Array.from({ length: prompts }, (_, row) => Math.max(...utility.subarray(row * responses, (row + 1) * responses)));
  const left = (row: number, prob: (at: number) => number) => {
    let sum = 0;
    for (let at = row * responses; at < (row + 1) * responses; at++) sum += prob(at) * (best[row] - utility[at]);
    return sum;
  };
  const reachable = best.map((_, row) => left(row, (at) => Math.exp(refLogp[at])));
  const gainful = reachable.filter((gain) => gain > 0).length;
  return policies.map((logp) => {
    const prob = new Float64Array(logp.length);
    for (let at = 0; at < prob.length; at++) prob[at] = Math.exp(logp[at]); // from(…) takes many times as long
    const sum = { utility: 0, kl: 0, unobserved: 0, share: 0 };
    for (let at = 0; at < prob.length; at++) {
      sum.utility += prob[at] * utility[at];
      sum.kl += prob[at] * (logp[at] - refLogp[at]);
      if (!observed[at]) sum.unobserved += prob[at];
    }
    reachable.forEach((gain, row) => {
      if (gain > 0) sum.share += (gain - left(row, (at) => prob[at])) / gain;
    });
    return {
      utility: sum.utility / prompts, kl: sum.kl / prompts, unobserved: sum.unobserved / prompts, share: sum.share / gainful,
    };
  });
}
