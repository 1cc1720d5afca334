/** Weights on responses, on a grid and in the limit: gradlab/theory/weights.py and continuous.py, uniform reference, β = 1. */

import { type Bump, SHAPES } from "./families";
import { clip } from "./numeric";

type Values = readonly number[];

/** DPO's w_i = Σ_j [q_i/(q_i + q_j) − p_i/(p_i + p_j)]; each pair of responses is weighed once. */
export function dpoWeight(p: Values, q: Values): number[] {
  const n = p.length;
  const w = Array<number>(n).fill(0);
  for (let i = 0; i < n; i++) {
    const [pi, qi] = [p[i], q[i]];
    let own = w[i];
    for (let j = i + 1; j < n; j++) {
      const pull = qi / (qi + q[j]) - pi / (pi + p[j]);
      own += pull;
      w[j] -= pull;
    }
    w[i] = own;
  }
  return w;
}

/** Balanced-DPO's w_i = Σ_j λ_ij [q_i/(q_i + q_j) − σ(m_ij)], m_ij = (λ_ij − λ_ji) log n, λ_ij = log p_j/(log p_i + log p_j). */
export function bdpoWeight(logP: Values, q: Values): number[] {
  const n = logP.length;
  const size = Math.log(n);
  const cost = logP.map((log) => Math.max(-log, 0) + 2 ** -1022);
  const w = Array<number>(n).fill(0);
  for (let i = 0; i < n; i++) {
    const [ci, qi] = [cost[i], q[i]];
    let own = w[i];
    for (let j = i + 1; j < n; j++) {
      const share = cost[j] / (ci + cost[j]);
      const pull = qi / (qi + q[j]) - 1 / (1 + Math.exp(size * (1 - 2 * share)));
      own += share * pull;
      w[j] -= (1 - share) * pull;
    }
    w[i] = own;
  }
  return w;
}

const [NODES, SHARES] = legendre(16);
const OFFSETS = [-36, -24, -16, -11, -7, -4, -2, 0, 2, 4, 7, 11, 16, 24, 36]; // of σ's argument, at the ends of panels

/**
 * The mean over t, uniform on [low, high], of σ(β(s(y) − s(t))) for each y, with a log-density s: how often y beats another
 * response. β is 1 or ½.
 *
 * s is even around its mode and falls on both sides. Its argument crosses [−36, 36], beyond which σ is 0 or 1 to the last
 * bit, in panels that widen from s(t) = s(y) on; 16 Gauss nodes in each leave an error below 1e-12.
 */
export function beatsLimit(y: Values, family: string, [mode, width]: Bump, low: number, high: number, beta: 1 | 0.5): number[] {
  const { density, log, back } = SHAPES[family];
  const [near, far] = [mode - low, high - mode].map((side) => side / width).sort((one, other) => one - other);
  return y.map((at) => {
    const place = (at - mode) / width;
    const [here, height] = [log(place), density(place)];
    const ends = OFFSETS.map((offset) => back(Math.min(here - offset / beta, 0)));
    /** The integral on one side of the mode, of 1/(1 + (density(t)/density(y))^β). */
    const part = (from: number, to: number) => {
      const [middle, half] = [(from + to) / 2, (to - from) / 2];
      let total = 0;
      for (let k = 0; k < NODES.length; k++) {
        const odds = density(middle + half * NODES[k]) / height;
        total += SHARES[k] / (1 + (beta === 1 ? odds : Math.sqrt(odds)));
      }
      return half * total;
    };
    let total = 0;
    for (let k = 0; k + 1 < ends.length && ends[k] < far; k++) {
      const [from, to] = [ends[k], Math.min(ends[k + 1], far)];
      const shared = clip(near, from, to);
      if (shared > from) total += 2 * part(from, shared);
      if (to > shared) total += part(shared, to);
    }
    const outermost = ends[ends.length - 1];
    return (total + Math.max(near - outermost, 0) + Math.max(far - outermost, 0)) / (near + far);
  });
}

/** Nodes on [−1, 1] and weights of Gauss and Legendre, by Newton's method. */
function legendre(count: number): [nodes: number[], shares: number[]] {
  const nodes = Array.from({ length: count }, (_, at) => Math.cos((Math.PI * (at + 0.75)) / (count + 0.5)));
  const slope = (x: number): [value: number, slope: number] => {
    let [before, value] = [1, x];
    for (let k = 2; k <= count; k++) [before, value] = [value, ((2 * k - 1) * x * value - (k - 1) * before) / k];
    return [value, (count * (before - x * value)) / (1 - x * x)];
  };
  for (let times = 0; times < 6; times++) {
    nodes.forEach((x, at) => {
      const [value, rise] = slope(x);
      nodes[at] = x - value / rise;
    });
  }
  return [nodes, nodes.map((x) => 2 / ((1 - x * x) * slope(x)[1] ** 2))];
}
