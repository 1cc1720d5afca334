/** The three foundations: the charts and numbers of gradlab/widgets/{sigmoid,credit,offline}_explorer.py. */

import { acrossHandle, axis, curve, curves } from "./chart_records";
import type { Dash } from "./chart_messages";
import type { Formula } from "./formulas";
import { clip, linspace, logSum, numbers, sum } from "./numeric";
import { CHOSEN, INK } from "./palette";
import { spelt } from "./reading";
import type { State } from "./state";

const [VIOLET, OCHRE] = CHOSEN;
const expit = (z: number) => 1 / (1 + Math.exp(-z));
const softplus = (z: number) => Math.max(z, 0) + Math.log1p(Math.exp(-Math.abs(z)));

const MARGINS = linspace(-8, 8, 321);
const expectedLoss = (gap: number, margin: number) => expit(gap) * softplus(-margin) + expit(-gap) * softplus(margin);
const pull = (gap: number, margin: number) => expit(gap) - expit(margin);

export const SIGMOID: Formula = {
  charts(state, pinned) {
    const { gap, margin } = numbers(state);
    const loss = (one: State) => MARGINS.map((at) => expectedLoss(numbers(one).gap, at));
    const faint = pinned ? [curve("pinned", MARGINS, loss(pinned), VIOLET, { faint: true })] : [];
    return [
      curves(
        "share of comparisons won", "The sigmoid over the gap in utility, with the pair on it",
        axis("gap Δu (nats)", -8, 8), axis("P(w ≻ l) = σ(Δu)", 0, 1),
        [curve("σ(Δu)", MARGINS, MARGINS.map(expit), VIOLET)],
        { handles: [acrossHandle("gap Δu", gap, expit(gap), OCHRE, "gap")] },
      ),
      curves(
        "expected loss of the pair", "The expected loss over the policy's margin, with its lowest point",
        axis("margin m", -8, 8), axis("expected loss (nats)", -0.5, 8),
        [
          ...faint, curve("loss", MARGINS, loss(state), VIOLET),
          curve("lowest point", [gap], [expectedLoss(gap, gap) - 0.25], INK, { marker: "triangle-up", line: false }),
        ],
        { handles: [acrossHandle("margin m", margin, expectedLoss(gap, margin), OCHRE, "margin")] },
      ),
    ];
  },
  readings(state) {
    const { gap, margin } = numbers(state);
    return [
      { name: "P(w ≻ l)", value: expit(gap), unit: "" },
      { name: "loss", value: expectedLoss(gap, margin), unit: "nats" },
      { name: "pull on m", value: pull(gap, margin), unit: "" },
    ];
  },
  outcome(state) {
    const { gap, margin } = numbers(state);
    const here = `${spelt(pull(gap, margin))} at m = ${spelt(margin)}`;
    return ["gap", `The pull is σ(Δu) − σ(m): zero at m = Δu = ${spelt(gap)}, and ${here}.`];
  },
};

const LENGTHS = [...new Set(linspace(0, 3, 60).map((power) => Math.round(10 ** power)))];
const LEAST = 0.1; // of the axis: 0 samples, which means no noise at all, are drawn here
type Scheme = "whole" | "own";
const SCHEMES: [Scheme, string, string, Dash][] = [
  ["whole", "credit for the whole", VIOLET, ""],
  ["own", "credit for one's own token", OCHRE, "dashed"],
];

/** Samples for a gradient as large as its standard error: variance over squared mean. */
function needed(state: State, scheme: Scheme, length = numbers(state).length): number {
  const { right: p } = numbers(state);
  const shift = scheme === "whole" ? (length - 1) * p : 0; // the mean of the other tokens' reward
  const b = state.baseline === "mean" ? p + shift : 0;
  const noise = scheme === "whole" ? (length - 1) * p * (1 - p) : 0;
  const second = (share: number, a: number) => share * (a - p) ** 2 * ((a + shift - b) ** 2 + noise);
  const mean = p * (1 - p);
  return (second(p, 1) + second(1 - p, 0) - mean ** 2) / mean ** 2;
}

export const CREDIT: Formula = {
  charts(state, pinned) {
    const samples = (one: State, scheme: Scheme) => LENGTHS.map((length) => Math.max(needed(one, scheme, length), LEAST));
    const shown = SCHEMES.flatMap(([scheme, label, color, dash]) => [
      ...(pinned ? [curve(`${label}, pinned`, LENGTHS, samples(pinned, scheme), color, { dash, faint: true })] : []),
      curve(label, LENGTHS, samples(state, scheme), color, { dash }),
    ]);
    const { length } = numbers(state);
    const handles = SCHEMES.map(([scheme, label, color]) =>
      acrossHandle(`tokens T, ${label}`, length, Math.max(needed(state, scheme), LEAST), color, "length"),
    );
    return [
      curves(
        "samples until the gradient equals its standard error",
        "Samples needed over the length of the response, for two ways to give credit",
        axis("tokens T", 1, 1000, "log"), axis("samples needed", LEAST / 2, 1e8, "log"), shown, { handles, height: 280 },
      ),
    ];
  },
  readings: (state) => SCHEMES.map(([scheme, label]) => ({ name: `samples, ${label}`, value: needed(state, scheme), unit: "" })),
  outcome(state) {
    const growth = needed(state, "whole", 1000) / needed(state, "whole", 100);
    const truth = growth < 10 ** 0.5 ? "same" : growth < 10 ** 1.5 ? "ten" : "hundred";
    return [truth, `With these settings 1,000 tokens need ${spelt(growth)} times as many samples as 100.`];
  },
};

const RESPONSES = linspace(0, 19, 20);
const PLACES = linspace(0, 19, 77); // of the policy's centre
const ENDS = [1e-4, 1e6] as const; // of the axis of samples

/** Log-probabilities of a Gaussian over the responses. */
function bell(centre: number, width: number): number[] {
  const logits = RESPONSES.map((at) => -(((at - centre) / width) ** 2) / 2);
  const all = logSum(logits);
  return logits.map((logit) => logit - all);
}

const share = (policy: number[], data: number[]) => Math.exp(-logSum(policy.map((log, at) => 2 * log - data[at])));
const dataOf = (state: State) => bell(numbers(state).data_centre, numbers(state).data_width);
const policyOf = (state: State) => bell(numbers(state).centre, numbers(state).width);
const shareOf = (state: State) => share(policyOf(state), dataOf(state));
const worth = (state: State) => PLACES.map((at) => numbers(state).samples * share(bell(at, numbers(state).width), dataOf(state)));
const odds = (logs: number[]) => logs.map(Math.exp);
const mean = (logs: number[]) => sum(logs.map((log, at) => Math.exp(log) * at));

/** The marks on a bell that move its centre and its width; the second is where there is more room. */
function marksOf(prefix: string, whose: string, centre: number, width: number, color: string) {
  const top = 1 / sum(RESPONSES.map((at) => Math.exp(-(((at - centre) / width) ** 2) / 2)));
  const side = centre <= 9.5 ? 1 : -1;
  const shape = prefix ? "diamond" : "dot";
  return [
    acrossHandle(`${whose} centre`, centre, top, color, `${prefix}centre`, 0, 1, shape),
    acrossHandle(`${whose} width`, centre + side * width, top * Math.exp(-0.5), color, `${prefix}width`, centre, side, shape),
  ];
}

export const OFFLINE: Formula = {
  charts(state, pinned) {
    const { data_centre, data_width, centre, width, samples } = numbers(state);
    const handles = [
      ...marksOf("data_", "the data's", data_centre, data_width, INK),
      ...marksOf("", "the policy's", centre, width, VIOLET),
    ];
    const highest = Math.max(...handles.map(({ y }) => y!));
    const here = clip(samples * shareOf(state), ...ENDS);
    const faint = pinned ? [curve("policy, pinned", RESPONSES, odds(policyOf(pinned)), VIOLET, { faint: true })] : [];
    const faintWorth = pinned ? [curve("worth, pinned", PLACES, worth(pinned), VIOLET, { faint: true })] : [];
    return [
      curves(
        "data and policy", "The probabilities of 20 responses under the data's distribution and the policy",
        axis("response", 0, 19), axis("probability", 0, [0.25, 0.5, 0.9].find((end) => end >= highest)!),
        [
          ...faint, curve("data", RESPONSES, odds(dataOf(state)), INK, { marker: "diamond" }),
          curve("policy", RESPONSES, odds(policyOf(state)), VIOLET, { marker: "dot" }),
        ],
        { handles },
      ),
      curves(
        "what the data are worth", "What the data are worth over the centre of the policy",
        axis("centre of the policy (response)", 0, 19), axis("samples of its own", ...ENDS, "log"),
        [...faintWorth, curve("worth", PLACES, worth(state), VIOLET)],
        {
          rules: [{ x: null, y: 1, label: "a single sample", dash: "dotted" }],
          handles: [acrossHandle("the policy's centre", centre, here, OCHRE, "centre")],
        },
      ),
    ];
  },
  readings(state) {
    const left = shareOf(state);
    return [
      { name: "shift of the mean", value: Math.abs(mean(policyOf(state)) - mean(dataOf(state))), unit: "responses" },
      { name: "share left", value: left, unit: "" },
      { name: "worth samples", value: numbers(state).samples * left, unit: "" },
    ];
  },
  outcome(state) {
    const { samples } = numbers(state);
    const told = spelt(10_000 * share(bell(13, 2), bell(7, 2)));
    const here = `here ${spelt(samples)} are worth ${spelt(samples * shareOf(state))}`;
    return ["two", `10,000 samples around 7 are worth ${told} of a policy around 13, both of width 2; ${here}.`];
  },
};
