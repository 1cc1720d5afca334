/** Distribution shift: the charts and numbers of gradlab/widgets/shift_explorer.py. */

import type { AxisMessage, CurveMessage, CurvesMessage, Dash, HandleMessage } from "./chart_messages";
import { acrossHandle, axis, curve, curves } from "./chart_records";
import type { Reading } from "./number_table";
import { ALLOWED_CELLS, type Placement, placed, productNoise, ROUNDING, type Side } from "./extrema";
import { type Bump, cells, onCells, SHAPES } from "./families";
import { type Formula, remembered } from "./formulas";
import type { Marker } from "./marks";
import { fixed, general, interp, greatest, largest, linspace, numbers, repr, spread, sum } from "./numeric";
import { BALANCED_WEIGHT, INK, NOT_TRUE, TRUE } from "./palette";
import type { State } from "./state";
import { bdpoWeight, beatsLimit, dpoWeight } from "./weights";

type Name = "dpo" | "balanced" | "bdpo";
const NAMES: readonly Name[] = ["dpo", "balanced", "bdpo"];
const STATED: Record<Name, Side> = { dpo: "outside", balanced: "inside", bdpo: "inside" };
const CALLED: Record<Name, string> = { dpo: "DPO's w", balanced: "balanced w·p", bdpo: "bDPO's own w" };
const SHORT: Record<Name, string> = { dpo: "w", balanced: "w·p", bdpo: "bDPO" };
const COLORS: Record<Name, string> = { dpo: "#000000", balanced: BALANCED_WEIGHT, bdpo: "#D55E00" };
const BUMPS: ["p" | "q", string, string, Dash][] = [["p", "policy p", "#000000", ""], ["q", "preference q", "#777777", "dashed"]];
const LIMIT_POINTS = 201;
const LIMIT_MISS = 0.01; // in units of y: a miss in the limit that is no error of its points
const LEVEL = 1e-9; // weights below this size are rounding
const HEIGHT = 170;

/** The weights of one case on one set of responses, and the places of their extrema. */
interface Weights {
  y: number[];
  p: number[];
  q: number[];
  values: Record<Name, number[]>;
  places: Record<Name, Placement>;
}

const bump = (state: State, which: "p" | "q"): Bump => [numbers(state)[`mu_${which}`], numbers(state)[`sigma_${which}`]];

function weighed(state: State, y: number[], p: number[], q: number[], values: Record<Name, number[]>): Weights {
  const [low, high] = ends(state);
  const place = (name: Name) =>
    placed(STATED[name], y, values[name], low, high, name === "balanced" ? productNoise(values[name], p) : undefined);
  return { y, p, q, values, places: { dpo: place("dpo"), balanced: place("balanced"), bdpo: place("bdpo") } };
}

const ends = (state: State) => {
  const { mu_p, mu_q } = numbers(state);
  return [Math.min(mu_p, mu_q), Math.max(mu_p, mu_q)];
};

function gridOf(state: State): Weights {
  const y = cells(numbers(state).n, numbers(state).support);
  const [logP, logQ] = (["p", "q"] as const).map((which) => onCells(state.family as string, y, bump(state, which)));
  const [p, q] = [logP, logQ].map((logs) => logs.map(Math.exp));
  const dpo = dpoWeight(p, q);
  return weighed(state, y, p, q, { dpo, balanced: dpo.map((w, at) => w * p[at]), bdpo: bdpoWeight(logP, q) });
}

function limitOf(state: State): Weights {
  const [family, half] = [state.family as string, numbers(state).support / 2];
  const y = linspace(-half, half, LIMIT_POINTS);
  const [p, q] = (["p", "q"] as const).map((which) => {
    const [mode, width] = bump(state, which);
    const density = y.map((at) => SHAPES[family].density((at - mode) / width));
    const whole = sum(density.slice(1).map((value, at) => ((y[at + 1] - y[at]) * (value + density[at])) / 2));
    return density.map((value) => value / whole);
  });
  const beats = (which: "p" | "q", beta: 1 | 0.5) => beatsLimit(y, family, bump(state, which), -half, half, beta);
  const preferred = beats("q", 1);
  const less = (other: number[]) => preferred.map((value, at) => value - other[at]);
  const dpo = less(beats("p", 1));
  const bdpo = less(beats("p", 0.5)).map((value) => value / 2); // in the limit Balanced-DPO is DPO at β/2
  return weighed(state, y, p, q, { dpo, balanced: dpo.map((w, at) => w * p[at]), bdpo });
}

/** A case on its grid, and in the continuous limit. */
class Shift {
  readonly low: number;
  readonly high: number;
  readonly cell: number;
  readonly says: Record<Name, string>;

  constructor(readonly state: State, readonly grid: Weights, readonly limit: Weights) {
    [this.low, this.high] = ends(state);
    this.cell = numbers(state).support / numbers(state).n;
    this.says = Object.fromEntries(NAMES.map((name) => [name, this.verdict(name)])) as Record<Name, string>;
  }

  private verdict(name: Name): string {
    if (this.low === this.high) return "says nothing, μ_p = μ_q";
    const { slack } = this.grid.places[name];
    if (slack + ALLOWED_CELLS * this.cell >= -ROUNDING) return "true";
    return `misses by ${fixed(-slack, 2)} in y, ${fixed(-slack / this.cell, 1)} cells`;
  }

  /** The weight on the grid, comparable with its limit. */
  scaled(name: Name): number[] {
    return this.grid.values[name].map((value) => value / this.scale(name));
  }

  scale(name: Name): number {
    return this.grid.y.length * (name === "balanced" ? this.cell : 1);
  }

  size(name: Name): number {
    return Math.max(largest(this.scaled(name)), largest(this.limit.values[name]), LEVEL);
  }

  /** The largest difference of bDPO from its limit, as a share of the limit's range. */
  get gap(): number {
    const limit = this.limit.values.bdpo;
    const apart = this.scaled("bdpo").map((value, at) => value - interp(this.grid.y[at], this.limit.y, limit));
    return largest(apart) / Math.max(spread(limit), 1e-300);
  }
}

const CASE = ["family", "mu_p", "mu_q", "sigma_p", "sigma_q", "support"];
const limit = remembered(CASE, limitOf);
const shift = remembered([...CASE, "n"], (state) => new Shift(state, gridOf(state), limit(state)));

const across = ({ support }: Record<string, number>): AxisMessage => axis("response y", -support / 2, support / 2);

function bumps({ grid }: Shift, faint = false): CurveMessage[] {
  const top = Math.max(greatest(grid.p), greatest(grid.q));
  return BUMPS.map(([which, name, color, dash]) => curve(name, grid.y, grid[which].map((p) => p / top), color, { dash, faint }));
}

/** A handle on the peak, which moves the mode, and one a width away, which changes the width. */
function handles({ x, y, color }: CurveMessage, which: "p" | "q", state: State): HandleMessage[] {
  const [mode, width] = bump(state, which);
  const side = mode > 0 ? -1 : 1; // where there is more room, so that any width can be reached
  const place = mode + side * width;
  const height = (at: number) => interp(at, x as number[], y as number[]);
  return [
    acrossHandle(`μ_${which}, the mode of ${which}`, mode, height(mode), color, `mu_${which}`),
    acrossHandle(`σ_${which}, the width of ${which}`, place, height(place), color, `sigma_${which}`, mode, side, "diamond"),
  ];
}

function bumpsChart(result: Shift, pinned: Shift | null): CurvesMessage {
  const { state, low, high } = result;
  const shown = bumps(result);
  return curves(
    "policy and preference",
    `Curves of policy p, with its mode at ${general(state.mu_p as number)}, and of preference q, at ${general(state.mu_q as number)}.`,
    across(numbers(state)), axis("relative probability", 0, 1.15), [...(pinned ? bumps(pinned, true) : []), ...shown],
    {
      bands: [{ low, high, label: "[μ_p, μ_q]" }], link: "y", height: HEIGHT,
      handles: shown.flatMap((one, at) => handles(one, BUMPS[at][0], state)),
    },
  );
}

function weightCurve(name: Name, of: Shift, faint = false): CurveMessage {
  const size = of.size(name);
  return curve(CALLED[name], of.grid.y, of.scaled(name).map((value) => value / size), COLORS[name], { faint });
}

/** The minima and the maxima inside and outside the interval, filled where Theorem 3 puts them. */
function triangles(name: Name, { low, high, grid }: Shift, scale: number): CurveMessage[] {
  if (low === high) return []; // p = q leaves only rounding
  const markers: ["minimum" | "maximum", Marker][] = [["minimum", "triangle-down"], ["maximum", "triangle-up"]];
  return markers.flatMap(([kind, marker]) =>
    (["inside", "outside"] as const).flatMap((where) => {
      const within = (at: number) => (low <= at && at <= high) === (where === "inside");
      const shown = grid.places[name].extrema.filter((one) => one.kind === kind && within(one.position));
      if (!shown.length) return [];
      const [x, y] = [shown.map(({ position }) => position), shown.map(({ value }) => value / scale)];
      return [curve(`${kind.slice(0, 3)} ${where}`, x, y, COLORS[name], { marker, line: false, filled: STATED[name] === where })];
    }),
  );
}

function weightChart(name: Name, result: Shift, pinned: Shift | null): CurvesMessage {
  const [size, says, x] = [result.size(name), result.says[name], across(numbers(result.state))];
  const { low, high } = result;
  return curves(
    `${CALLED[name]}; ${name === "bdpo" ? "implied" : "stated"}: extrema ${STATED[name]}`,
    `The weight over the responses, with its extrema; Theorem 3 here: ${says}.`, x, axis("relative weight", -1.15, 1.6),
    [
      ...(pinned ? [weightCurve(name, pinned, true)] : []),
      curve("n → ∞", result.limit.y, result.limit.values[name].map((value) => value / size), INK, { dash: "dotted" }),
      weightCurve(name, result), ...triangles(name, result, result.scale(name) * size),
    ],
    {
      bands: [{ low, high, label: "" }], rules: [{ x: null, y: 0, label: "", dash: "" }],
      labels: [{ x: x.low, y: 1.15, text: says, color: says === "true" ? TRUE : NOT_TRUE }], link: "y", height: HEIGHT,
    },
  );
}

const perName = <T>(value: (name: Name) => T) => Object.fromEntries(NAMES.map((name) => [SHORT[name], value(name)]));

export const SHIFT: Formula = {
  charts(state, pinned) {
    const [result, kept] = [shift(state), pinned && shift(pinned)];
    return [bumpsChart(result, kept), ...NAMES.map((name) => weightChart(name, result, kept))];
  },
  readings(state) {
    const { says, grid, gap, low, high } = shift(state);
    const reach: Reading[] = [{ name: "reach", value: perName((name) => grid.places[name].reach), unit: "units of y" }];
    const far = { [SHORT.bdpo]: `${fixed(100 * gap, 0)}% of its range` };
    return [
      { name: "Theorem 3", value: perName((name) => says[name]), unit: "" },
      ...(low < high ? reach : []), { name: "distance to DPO(β/2)", value: far, unit: "" },
    ];
  },
  outcome(state) {
    const { low, high, limit: { places } } = shift(state);
    if (low === high) return ["", "Where μ_p = μ_q there is no interval, and Theorem 3 says nothing."];
    const halves = ["dpo", "balanced"] as const;
    // an extremum at laplace's kink is found to half a step
    const allowed = state.family === "laplace" ? numbers(state).support / (LIMIT_POINTS - 1) : LIMIT_MISS;
    const miss = (name: Name) => Math.max(-places[name].slack, 0);
    const stays = (name: Name) => miss(name) <= allowed;
    if (halves.every(stays)) return ["both", "Both stay true here: a peak with a kink can hold the minimum of w·p exactly at μ_p."];
    const said = halves.map((name) => `${CALLED[name]} ${stays(name) ? "stays as stated" : `misses by ${fixed(miss(name), 2)} in y`}`);
    return [halves.find(stays) ?? "none", `With infinitely many responses ${said.join(", ")}.`];
  },
  parts(state) {
    const logs = (which: "p" | "q") => `on_cells('${state.family as string}', y, ${bump(state, which).map(repr).join(", ")})`;
    return { p: logs("p"), q: logs("q") };
  },
};
