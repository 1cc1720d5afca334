/** What a loss does to a pair, as maps: those of gradlab/atlas/pictures.py, computed by the loss's slopes kernel. */

import type { ArrowsMessage, AxisMessage, MapMessage } from "./chart_messages";
import { axis } from "./chart_records";
import type { Reading } from "./number_table";
import { type PairLogps, slopes } from "./pairs";
import type { Kernel } from "./kernel";
import { colorTable } from "./palette";
import type { Slot } from "./spec";

const LAB_REFERENCE = 0.05; // π_ref of either response in the lab's grids: one of twenty
const [TOKENS, NATS] = [100, 100]; // length of a language model's response, and −log π_ref of it
const REACH = 99; // the largest |h| on the map of directions, in nats
const LEAST = 1e-4; // the least probability on the map of ratios
const TIMES = 8; // colours end where one side's slope is this many times the other's
const [CELLS, ARROWS] = [41, 10];
const SIDES = colorTable("sides");

/** Slopes on a grid of pairs: `win` along columns, `lose` along rows; NaN where no policy can be. */
interface Grid {
  win: number[];
  lose: number[];
  possible: boolean[];
  winSlope: number[];
  loseSlope: number[];
}

/** A loss on all three grids, and its slopes at π = π_ref, for two responses of 100 tokens with one nat each. */
export interface Seen {
  slot: Slot;
  ratios: Grid;
  directions: Grid;
  steps: Grid;
  start: [win: number, lose: number];
}

/** Looks at a loss by its slopes kernel. */
export function seenBy(kernel: Kernel, slot: Slot): Seen {
  const own = kernel.record.laws && Object.keys(slot.hyper).length ? kernel.at(slot.hyper) : kernel;
  const apart = spread(CELLS, REACH);
  const logp = apart.map((one) => one - NATS);
  const at = slopes(own, fixed([-NATS], [-NATS], -NATS, TOKENS));
  return {
    slot,
    ratios: gridOf(own, ...inLab(middles(Math.log(LEAST), 0, CELLS).map(Math.exp))),
    directions: gridOf(own, apart, logp, -NATS, TOKENS),
    steps: gridOf(own, ...inLab(middles(0, 1, ARROWS))),
    start: [at.win[0], at.lose[0]],
  };
}

/** The map of log₂ ρ over (π_w, π_l). */
export function ratioMap({ slot, ratios: { win, lose, possible, winSlope, loseSlope } }: Seen): MapMessage {
  const end = Math.log2(TIMES) * 1.01;
  const values = winSlope.map((slope, at) => {
    const ratio = Math.log2(Math.abs(slope)) - Math.log2(Math.abs(loseSlope[at]));
    return possible[at] ? Math.min(Math.max(ratio, -end), end) : NaN;
  });
  const axes = ["π_w", "π_l"].map((name) => axis(name, LEAST, 1, "log")) as [AxisMessage, AxisMessage];
  return {
    ...map(`${slot.name}: log ρ`, "How much larger the winner's slope is than the loser's, by their probabilities", axes, win, lose),
    values, quantity: "log₂ ρ", low: -Math.log2(TIMES), high: Math.log2(TIMES), colors: "sides",
    struck: null, struck_means: "struck through", ring: [LAB_REFERENCE, LAB_REFERENCE],
  };
}

/** The directions in which descent moves both responses of a cell: 1 up, −1 down, 0 nowhere; NaN where no policy can be. */
function moves({ possible, winSlope, loseSlope }: Grid): [win: number[], lose: number[]] {
  const each = (slopes: number[]) => slopes.map((slope, at) => (possible[at] ? -Math.sign(slope) : NaN));
  return [each(winSlope), each(loseSlope)];
}

/** The map of directions over (h_w, h_l). */
export function signMap({ slot, directions }: Seen): MapMessage {
  const [winner, loser] = moves(directions);
  const axes = ["h_w, nats", "h_l, nats"].map((name) => axis(name, -REACH, REACH, "symlog")) as [AxisMessage, AxisMessage];
  const said = "Where descent raises or lowers the winner, by both log-ratios";
  return {
    ...map(`${slot.name}: directions`, said, axes, directions.win, directions.lose),
    values: winner, quantity: "winner: 1 up, −1 down", low: -1, high: 1, colors: "turned",
    struck: loser.map((one) => Number(one > 0)), struck_means: "loser pushed up", ring: [0, 0],
  };
}

/** The directions of a step of descent on logits over (π_w, π_l). */
export function stepField({ slot, steps: { win, lose, possible, winSlope, loseSlope } }: Seen): ArrowsMessage {
  const places = possible.flatMap((one, at) => {
    const [w, l] = [win[at % win.length], lose[Math.floor(at / win.length)]];
    const step = stepOf(w, l, -winSlope[at], -loseSlope[at]);
    return one && Number.isFinite(step[0]) ? [{ w, l, step }] : [];
  });
  const sizes = places.map(({ step }) => Math.hypot(...step));
  const still = 1e-12 * Math.max(0, ...sizes);
  const arrows = places.map(({ step: [right, up] }, at) => (sizes[at] <= still ? [0, 0, 0] : [right, up, Math.log2(Math.abs(right) / Math.abs(up))]));
  return {
    type: "arrows", title: `${slot.name}: a step`,
    description: "Where a step of descent on logits leads, by the probabilities of both responses",
    x: axis("π_w", 0, 1), y: axis("π_l", 0, 1),
    at_x: places.map(({ w }) => w), at_y: places.map(({ l }) => l),
    right: arrows.map(([right]) => right), up: arrows.map(([, up]) => up),
    colors: arrows.map(([, , farther]) => sideColor(farther / Math.log2(TIMES))),
    handles: [], trail: [], height: 260,
  };
}

/** Which losses push the winner down somewhere on the map of directions. */
export function lowered(all: readonly Seen[]): boolean[] {
  return all.map(({ directions }) => moves(directions)[0].some((one) => one < 0));
}

/** The losses' rows of the atlas: what they state, and what the maps show; `revealed`: directions too. */
export function readings(all: readonly Seen[], revealed: boolean): Reading[] {
  const each = (of: (seen: Seen) => number | string) => Object.fromEntries(all.map((seen) => [seen.slot.key.toUpperCase(), of(seen)]));
  const stated = (key: string) => each(({ slot: { loss } }) => loss.atlas[key] || "–");
  const share = (side: 0 | 1, sign: number) => each(({ directions }) => {
    const shown = moves(directions)[side].filter((one) => !Number.isNaN(one));
    return shown.filter((one) => one === sign).length / shown.length;
  });
  const turned: Reading[] = [
    { name: "share of the map on which descent lowers log π_w", value: share(0, -1), unit: "" },
    { name: "share of the map on which descent raises log π_l", value: share(1, 1), unit: "" },
  ];
  return [
    { name: "ρ", value: stated("rho"), unit: "" },
    { name: "loss at π = π_ref", value: stated("start"), unit: "" },
    { name: "∂L/∂log π_w at π = π_ref", value: each(({ start }) => start[0]), unit: "" },
    { name: "∂L/∂log π_l at π = π_ref", value: each(({ start }) => start[1]), unit: "" },
    ...(revealed ? turned : []),
    { name: "least at", value: stated("optimum"), unit: "" },
    { name: "bounded", value: stated("bounded"), unit: "" },
    { name: "log π of a response", value: stated("convention"), unit: "" },
  ];
}

function map(title: string, description: string, [x, y]: [AxisMessage, AxisMessage], columns: number[], rows: number[]) {
  const none = { logarithmic: false, levels: [], picks: ["", ""] as [string, string], link: "", height: 240 };
  return { type: "map" as const, title, description, x, y, columns, rows, ...none };
}

/** Log-probabilities of all pairs of these, row by row. */
function fixed(win: readonly number[], lose: readonly number[], reference: number, tokens: number): PairLogps {
  const pairs = lose.flatMap((down) => win.map((across) => [across, down]));
  const same = (value: number) => pairs.map(() => value);
  return {
    win: pairs.map(([across]) => across), lose: pairs.map(([, down]) => down),
    refWin: same(reference), refLose: same(reference), winLen: same(tokens), loseLen: same(tokens),
  };
}

function gridOf(kernel: Kernel, shown: number[], logp: number[], reference: number, tokens: number): Grid {
  const pairs = fixed(logp, logp, reference, tokens);
  const found = slopes(kernel, pairs);
  const possible = Array.from(pairs.win, (one, at) => Math.exp(one) + Math.exp(pairs.lose[at]) <= 1);
  return { win: shown, lose: shown, possible, winSlope: Array.from(found.win), loseSlope: Array.from(found.lose) };
}

/** The lab's grid over these probabilities: one token each, and one of twenty responses under the reference. */
function inLab(probabilities: number[]): [number[], number[], number, number] {
  return [probabilities, probabilities.map(Math.log), Math.log(LAB_REFERENCE), 1];
}

/** The middles of so many equal stretches. */
function middles(low: number, high: number, cells: number): number[] {
  return Array.from({ length: cells }, (_, at) => low + ((high - low) * (at + 0.5)) / cells);
}

/** Numbers from −reach to reach that are even in sign(v)·log(1 + |v|). */
function spread(cells: number, reach: number): number[] {
  return Array.from({ length: cells }, (_, at) => {
    const even = Math.log1p(reach) * ((2 * at) / (cells - 1) - 1);
    return Math.sign(even) * Math.expm1(Math.abs(even));
  });
}

/** The changes of π_w and π_l by a step on logits; `winDown` and `loseDown` are −∂L/∂log π. */
function stepOf(win: number, lose: number, winDown: number, loseDown: number): [number, number] {
  const rest = 1 - win - lose;
  const total = winDown + loseDown;
  const [one, two, other] = [winDown - win * total, loseDown - lose * total, -rest * total];
  const mean = win * one + lose * two + rest * other;
  return [win * (one - mean), lose * (two - mean)];
}

/** A colour between the loser's, at −1 and below, and the winner's, at 1 and above. */
function sideColor(share: number): string {
  const at = 3 * Math.min(255, Math.floor(256 * ((Math.min(Math.max(share, -1), 1) + 1) / 2)));
  return `#${[...SIDES.subarray(at, at + 3)].map((part) => part.toString(16).padStart(2, "0")).join("")}`;
}
