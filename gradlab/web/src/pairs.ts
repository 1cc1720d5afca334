/** Slopes of a loss on single pairs, by its slopes kernel, and the ratios that follow from slopes. */

import type { Kernel, Reals } from "./kernel";

/** Log-probabilities of N pairs, each (N), and the lengths of responses in tokens; absent: 1 each. */
export interface PairLogps {
  win: ArrayLike<number>;
  lose: ArrayLike<number>;
  refWin: ArrayLike<number>;
  refLose: ArrayLike<number>;
  winLen?: ArrayLike<number>;
  loseLen?: ArrayLike<number>;
}

/** Returns ∂L/∂log π_w and ∂L/∂log π_l of each pair, both (N). */
export function slopes(kernel: Kernel, pairs: PairLogps): { win: Reals; lose: Reals } {
  const { lanes, constants } = kernel.record;
  const pairCount = pairs.win.length;
  const rows = Math.ceil(pairCount / lanes);
  const one = new Float64Array(pairCount).fill(1);
  const { win, lose, refWin, refLose, winLen = one, loseLen = one } = pairs;
  const inputs = { win, lose, ref_win: refWin, ref_lose: refLose, win_len: winLen, lose_len: loseLen };
  const names = [...Object.keys(inputs), "win_slope", "lose_slope"];
  const lengths = Object.fromEntries(names.map((name) => [name, rows * lanes]));
  const arrays = kernel.allocate({ constants: Math.max(constants.length, 1), ...lengths });
  arrays.reals.constants.set(constants);
  for (const [name, values] of Object.entries(inputs)) {
    if (values.length !== pairCount) throw new Error(`${name} must have ${pairCount} numbers, got ${values.length}`);
    arrays.reals[name].fill(name.endsWith("len") ? 1 : -1).set(values); // what fills the last row up is possible too
  }
  kernel.call({ count: rows }, arrays);
  return { win: arrays.reals.win_slope.slice(0, pairCount), lose: arrays.reals.lose_slope.slice(0, pairCount) };
}

/** λ_w: the winner's share of the two slopes' sizes; NaN where neither side has a slope. */
export function winWeight(winSlope: number, loseSlope: number): number {
  return Math.abs(winSlope) / (Math.abs(winSlope) + Math.abs(loseSlope));
}

/** log(|∂L/∂π_w| / |∂L/∂π_l|), in nats, as `gradlab.losses.log_prob_ratio`. */
export function logProbRatio(winSlope: number, loseSlope: number, win: number, lose: number): number {
  return Math.log(Math.abs(winSlope)) - Math.log(Math.abs(loseSlope)) + (lose - win);
}
