"""Variance: both sides of Theorems 4–5, the condition that decides, and the region where the theorems hold."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from gradlab.plotting.charts import Axis, Bar, Bars, Chart, Curve, Curves, Dash, Handle, Level, Map, Marker, Move, Rule
from gradlab.plotting.palette import INK, NOT_TRUE, SETTINGS, TRUE
from gradlab.theory import balanced_weight, covariance_gap, dpo_weight, families, variance_ratio
from gradlab.theory.weight_variance import noise_to_signal
from gradlab.widgets.controls import Choice, Controls, Whole, log_slider, slider
from gradlab.widgets.explorer import Explorer, Reading, Story

DRAWS = 50  # of Dirichlet policies and preferences
POINTS = 25  # of the map, each way
_STRIDES = (8, 4, 2, 1)  # of the map, from coarse to fine
_WORK = 1_200_000  # pairs of responses between two looks at the page, about 50 ms
_SIDES = ("Var[w p]", "Var[w] E[p²]", "Cov(w², p²)", "E[w p]²")
_LOOKS: dict[str, tuple[str, str, Dash]] = {
    "p": ("policy p", "#000000", ""),
    "q": ("preference q", "#777777", "dashed"),
    "w": ("w", SETTINGS[0], ""),
    "product": ("w·p", SETTINGS[1], "dashed"),
}
_HEIGHT = 165  # of each chart, in pixels
_RATIO = "log₁₀ bound/variance"  # Var[w] E[p²] / Var[w p]: above 0 where the theorems hold

FAMILIES: dict[str, Callable[..., families.Pair]] = {
    "gaussian": families.gaussian_pair,
    "one peak": families.peak_pair,
    "Dirichlet": families.dirichlet_pair,
}
_UP = {  # the y axis of the map: its control, its values and its name
    "gaussian": ("sigma_p", np.geomspace(0.375, 12, POINTS), "σ_p (y)"),
    "one peak": ("rest", np.geomspace(1e-4, 0.5, POINTS), "1 − peak"),
}
_ACROSS = np.linspace(0, 12, POINTS)


class Around:
    """log₁₀ of the ratio at the settings around a case, computed part by part, a map from coarse to fine."""

    def __init__(self, family: str, arguments: dict[str, Any]) -> None:
        """Make the map around a case of this family with these arguments, or its draws; compute the first part."""
        self._family = FAMILIES[family]
        self._at_once = max(1, _WORK // arguments["n"] ** 2)
        if family in _UP:
            up, heights, _ = _UP[family]
            self.settings = [{**arguments, "distance": across, up: height} for height in heights for across in _ACROSS]
            self.values = np.full((POINTS, POINTS), np.nan)  # up and across
        else:
            self.settings = [{**arguments, "seed": seed} for seed in range(DRAWS)]
            self.values = np.full((DRAWS, 1), np.nan)
        self.stride = _STRIDES[0]  # the stride of the finest complete level
        self.go_on()

    @property
    def known(self) -> np.ndarray:
        """The finest complete map."""
        return self.values[:: self.stride, :: self.stride]

    @property
    def whole(self) -> np.ndarray:
        """The finest complete map at all points, interpolated where it is coarser."""
        places, known = np.arange(POINTS), self.known
        for _ in range(2):
            known = np.stack([np.interp(places, places[:: self.stride], column) for column in known.T])
        return known

    def go_on(self) -> bool:
        """Compute one more part; return False if nothing is left. It can stop anywhere: the values say what is done."""
        places = np.arange(self.values.size).reshape(self.values.shape)
        for stride in _STRIDES:
            level = places[::stride, ::stride].ravel()
            todo = level[np.isnan(self.values.flat[level])]
            if len(todo):
                part = todo[: self._at_once]
                self.values.flat[part] = _log_ratios(self._family, [self.settings[place] for place in part])
                self.stride = stride if len(part) == len(todo) else self.stride
                return True
        return False


@dataclass(frozen=True)
class Variances:
    """One case, both sides of the theorem and of its condition, and the cases around it."""

    state: SimpleNamespace
    y: np.ndarray
    p: np.ndarray
    q: np.ndarray
    w: np.ndarray
    product: np.ndarray
    around: Around

    @property
    def sides(self) -> dict[str, float]:
        """Return Var[w p] and its bound in the theorems; Cov(w², p²) and the bound that it must stay below."""
        mean = float(self.product.mean() ** 2)
        covariance = float(covariance_gap(self.w, self.p)) + mean  # E[w] is 0
        return dict(zip(_SIDES, (float(self.product.var()), float(self.w.var() * (self.p**2).mean()), covariance, mean),
                        strict=True))  # fmt: skip

    @property
    def ratio(self) -> float:
        """The ratio Var[w p] / (Var[w] E[p²]): the theorems say that it is below 1."""
        return float(variance_ratio(self.w, self.p))

    @property
    def noise(self) -> float:
        """The noise against signal, Var/E|·|², of w·p over that of w."""
        return float(noise_to_signal(self.product) / noise_to_signal(self.w))


class VarianceExplorer(Explorer):
    """Two distributions, their weights, and whether weighting by p lowers the weights' variance."""

    name = "variance"
    question = "Does weighting by p make DPO's weights vary less?"
    prediction = (
        "Theorems 4 and 5 of the paper say that it does: Var[w p] < Var[w] E[p²]. At the start it does. Policies "
        "around this one are narrower or wider, and nearer to the preference or farther away."
    )
    first_move = "Choose a guess to open the map, and click a point of it: all charts show that policy."
    ask = "At the start Var[w p] < Var[w] E[p²], as Theorems 4–5 say. For how many policies around this one is it so?"
    answers: ClassVar = {"all": "for all", "most": "for more than half", "few": "for half or fewer"}
    reading = (
        "First: policy p and preference q, each divided by the larger of their peaks. Drag a peak to move both modes "
        "apart, and the diamonds, one σ away, to change a width. Below: DPO's weight w and the balanced weight w·p, "
        "each divided by its largest size. The bars are the two sides of the theorems, Var[w p] < Var[w] E[p²], and of "
        "the condition that decides, Cov(w², p²) < E[w p]², in units of Var[w] E[p²]: each statement is true where the "
        "first bar of its two is the shorter. With E[w] = 0 both are always true together. The map shows the theorems' "
        "bound over the variance around the case, with lengths in units of y: teal where they hold, brown where not, "
        "the line between; the ring is the case, and a click moves it. For Dirichlet draws a mark is a draw, a dot "
        "where the theorems hold, a cross where not. Faint curves: what you pinned."
    )
    takeaway = (
        "The inequality is not a law: with E[w] = 0 it is the same as Cov(w², p²) < E[w p]², so it fails where the "
        "policy puts its mass on responses of large w². It fails for every policy that prefers one of three or more "
        "responses and treats the others alike, where the preference is uniform. The claims report has the proof "
        "(variance), and shows each family of p and q by itself. Less variance is also not less "
        "noise, since w·p is smaller too. The row on noise compares both relative to their mean size: above 1, w·p is "
        "the noisier weight."
    )
    stories = (
        Story(
            "Where it holds",
            "policy and preference of similar widths, 3 apart: Var[w p] is below half of what the theorems allow, "
            "since w² is small where p is large. Relative to its mean size, w·p still varies more than w.",
        ),
        Story(
            "A confident policy under a large shift",
            "p lies on a tenth of the responses, far from the preference, and DPO's weight is largest exactly there: "
            "Cov(w², p²) is positive and above E[w p]². The theorems do not hold.",
            {"distance": 10.0, "sigma_p": 0.5},
        ),
        Story(
            "A narrow policy, no shift",
            "both modes are at the same response, but p is much narrower than q: w is most negative at the peak of p, "
            "and Var[w p] is more than four times the bound. No shift is needed for the theorems to fail.",
            {"distance": 0.0, "sigma_p": 0.75},
        ),
        Story(
            "Random policies",
            "Dirichlet draws on 20 responses, all concentrations 1: the theorems hold for 27 of 50. Move the seed "
            "through the draws, or raise n: with 200 responses they hold for 10.",
            {"family": "Dirichlet", "n": 20},
        ),
    )

    unfolds = ("Family and responses",)

    def make_controls(self) -> dict[str, Controls]:
        """Return the controls of policy, preference, family and responses."""
        return {
            "Policy p": {
                "distance": slider("distance", 3.0, 0.0, 12.0, "of the modes, in units of y"),
                "sigma_p": log_slider("σ_p", 2.5, np.log10(0.375), np.log10(12), "width of p, in units of y"),
                "rest": log_slider("1 − peak", 0.1, -4, np.log10(0.5), "probability that is not on the peak"),
                "alpha_p": log_slider("α of p", 1.0, -1, 1, "concentration: the lower, the fewer likely responses"),
                "seed": Whole("seed", 0, 0, DRAWS - 1, "draws p and q"),
            },
            "Preference q": {
                "sigma_q": slider("σ_q", 3.0, 0.75, 8.0, "width of q, in units of y"),
                "alpha_q": log_slider("α of q", 1.0, -1, 1, "concentration"),
            },
            "Family and responses": {
                "family": Choice("family", "gaussian", list(FAMILIES), "of policy and preference"),
                "n": Whole("responses n", 100, 20, 200, "on a support of 20 units"),
            },
        }

    def adapt(self, state: SimpleNamespace) -> None:
        """Hide the controls that the family does not have."""
        arguments = _arguments(state.family)
        for key, control in self.controls.items():
            control.hidden = key not in ("family", "guess", *arguments)

    def compute(self, state: SimpleNamespace) -> Iterator[Variances]:
        """Yield the case at once, and then again with finer maps; a map is kept until q or n changes."""
        arguments = {key: getattr(state, key) for key in _arguments(state.family)}
        log_p, log_q = FAMILIES[state.family](**arguments)
        w = dpo_weight(log_p, log_q)
        if np.ptp(w) < 1e-9:
            where = ", ".join(f"{key}={value:g}" for key, value in arguments.items())
            raise ValueError(f"p and q must differ for there to be a weight; they are equal at {where}")
        moving = ("distance", "sigma_p", "rest", "seed")
        kept = (state.family, *(value for key, value in arguments.items() if key not in moving))
        around = self.remember("around", kept, lambda: Around(state.family, arguments))
        case = Variances(state, families.cells(state.n), np.exp(log_p), np.exp(log_q), w,
                         balanced_weight(log_p, log_q, weight=w), around)  # fmt: skip
        yield case
        while around.go_on():
            yield case

    def charts(self, result: Variances, pinned: Variances | None) -> list[Chart]:
        """Return four charts: policy and preference; the map or the draws; the weights; both sides."""
        around = _map(result) if result.state.family in _UP else _draws(result)
        return [_shapes(result, pinned), around, _weights(result, pinned), _sides(result)]

    def before_guess(self, charts: Sequence[Chart]) -> list[Chart]:
        """Return the charts with an empty map, since the map answers."""
        return [
            replace(chart, title="the map opens with your guess", values=np.full_like(chart.values, np.nan), levels=())
            if isinstance(chart, Map)
            else chart
            for chart in charts
        ]

    def readings(self, result: Variances) -> list[Reading]:
        """Return both sides of both statements, and noise against signal."""
        variance, bound, covariance, mean = result.sides.values()
        left, right, other_left, other_right = _SIDES
        theorems = {"left": variance, "right": bound, "left / right": result.ratio,
                    "verdict": "hold" if variance < bound else "do not hold"}  # fmt: skip
        condition = {"left": covariance, "right": mean, "verdict": "true" if covariance < mean else "not true"}
        return [
            Reading("theorems", theorems, f"{left} < {right}"),
            Reading("condition", condition, f"{other_left} < {other_right}"),
            Reading("noise", {"left / right": result.noise}, "of w·p over that of w"),
        ]

    def outcome(self, result: Variances) -> tuple[str, str]:
        """Return for how many of the settings around the case the theorems hold."""
        known = result.around.values[np.isfinite(result.around.values)]
        holds = int((known < 0).sum())
        truth = "all" if holds == len(known) else "most" if 2 * holds > len(known) else "few"
        where = "settings of the map" if result.state.family in _UP else "draws"
        return truth, f"They hold for {holds} of {len(known)} {where}."

    def frame(self) -> pd.DataFrame:
        """Return the case first, then the cases around it: settings, and log₁₀ of the ratio of the theorems' sides."""
        result = self.result
        settings = {key: getattr(result.state, key) for key in _arguments(result.state.family)}
        rows = [{**settings, "log10_ratio": np.log10(result.ratio), "shown": True}]
        known = zip(result.around.settings, result.around.values.flat, strict=True)
        rows += [{**settings, "log10_ratio": value, "shown": False} for settings, value in known]
        return pd.DataFrame(rows).assign(family=result.state.family)

    def code(self, state: SimpleNamespace) -> str:
        """Return code for both sides of the theorems and of the condition."""
        family = FAMILIES[state.family]
        arguments = ", ".join(f"{key}={getattr(state, key)!r}" for key in _arguments(state.family))
        return f"""import numpy as np

from gradlab.theory import covariance_gap, dpo_weight, variance_ratio
from {family.__module__} import {family.__name__}

log_p, log_q = {family.__name__}({arguments})
w, p = dpo_weight(log_p, log_q), np.exp(log_p)
print("Var[w p]", np.var(w * p), "Var[w] E[p²]", np.var(w) * (p**2).mean())
print("ratio", variance_ratio(w, p))  # below 1 where the theorems hold
print("Cov(w², p²) − E[w p]²", covariance_gap(w, p))  # below 0 where they hold
"""


def _shapes(result: Variances, pinned: Variances | None) -> Curves:
    """Return policy and preference, with handles that move their modes and widths."""
    return Curves(
        "policy and preference", "Curves of policy p and of preference q over the responses.",
        Axis("response y", -10, 10), Axis("relative probability", 0, 1.15), _curves("pq", result, pinned),
        handles=[*_handles(result)], link="y", height=_HEIGHT,
    )  # fmt: skip


def _weights(result: Variances, pinned: Variances | None) -> Curves:
    return Curves(
        "weights", "Curves of DPO's weight and of the balanced weight over the responses.",
        Axis("response y", -10, 10), Axis("relative weight", -1.1, 1.1), _curves(("w", "product"), result, pinned),
        rules=[Rule(y=0)], link="y", height=_HEIGHT,
    )  # fmt: skip


def _curves(names: Sequence[str], result: Variances, pinned: Variances | None) -> list[Curve]:
    """Return functions of the responses, p and q with one divisor, weights with one each."""
    curves = []
    for of, faint in ((pinned, True), (result, False)):
        if of is None:
            continue
        for name in names:
            label, color, dash = _LOOKS[name]
            values = getattr(of, name)
            top = max(of.p.max(), of.q.max()) if name in "pq" else np.abs(values).max()
            curves.append(Curve(label, of.y, values / top, color, dash, faint=faint))
    return curves


def _handles(result: Variances) -> Iterator[Handle]:
    """Yield handles on the peaks, which move the modes apart, and one width away, which change the widths."""
    state = result.state
    if state.family not in _UP:
        return
    top = max(result.p.max(), result.q.max())
    for name, side in (("p", -1), ("q", 1)):
        mode, values, color = side * state.distance / 2, getattr(result, name) / top, _LOOKS[name][1]
        peak = float(np.interp(mode, result.y, values))
        yield Handle(f"distance, by the mode of {name}", mode, peak, color, [Move("distance", "x", factor=2 * side)])
        width = f"sigma_{name}"
        place = mode - side * getattr(state, width)  # towards the other mode, where there is room
        if width in _arguments(state.family) and abs(place) <= 10:
            move = Move(width, "x", origin=mode, factor=-side)
            slope = float(np.interp(place, result.y, values))
            yield Handle(f"σ_{name}, the width of {name}", place, slope, color, [move], shape="diamond")


def _sides(result: Variances) -> Bars:
    """Return bars of both sides of the theorems, and of both sides of the condition."""
    sides = result.sides
    said, color = ("hold", TRUE) if result.ratio < 1 else ("do not hold", NOT_TRUE)
    left, right, other_left, other_right = sides
    return Bars(
        f"both sides: the theorems {said}",
        f"Bars of the two sides of the theorems, {left} < {right}, and of the condition, {other_left} < {other_right}.",
        f"in units of {right}", list(sides), [Bar("side", np.array([*sides.values()]) / sides[right], color)],
        height=_HEIGHT,
    )  # fmt: skip


def _map(result: Variances) -> Map:
    """Return the ratio of the theorems' sides around the case, which a click moves."""
    control, heights, label = _UP[result.state.family]
    up = Axis(label, float(heights[0]), float(heights[-1]), "log")
    return Map(
        "where Theorems 4–5 hold (teal)", f"Map of the ratio of the theorems' two sides, by distance and {label}.",
        Axis("distance (y)", 0, 12), up, _ACROSS, heights,
        -result.around.whole, _RATIO, -1, 1, "signed", levels=[Level(0.0, "#000000")],
        ring=(result.state.distance, getattr(result.state, control)), picks=("distance", control), height=_HEIGHT,
    )  # fmt: skip


def _draws(result: Variances) -> Curves:
    """Return the ratio of the theorems' sides for each draw; a click chooses a draw."""
    ratios, seeds = -result.around.values.ravel(), np.arange(DRAWS)
    known = np.isfinite(ratios)
    end = max(1.0, float(np.ceil(np.abs(ratios[known]).max())))
    kinds: tuple[tuple[str, str, Marker, np.ndarray], ...] = (
        ("hold", TRUE, "dot", known & (ratios > 0)),
        ("do not hold", NOT_TRUE, "cross", known & (ratios <= 0)),
    )
    curves = [
        Curve(name, ratios[chosen], seeds[chosen].astype(float), color, marker=marker, line=False)
        for name, color, marker, chosen in kinds
    ]
    here = Curve("this draw", np.array([-np.log10(result.ratio)]), np.array([float(result.state.seed)]), INK,
                 marker="ring", line=False)  # fmt: skip
    return Curves(
        f"Theorems 4–5 hold for {(ratios[known] > 0).sum()} of {known.sum()} draws",
        "One mark per draw of p and q: to the right of 0 the theorems hold.", Axis(_RATIO, -end, end),
        Axis("seed", -1, DRAWS), [*curves, here], rules=[Rule(x=0)], picks=("", "seed"), height=_HEIGHT,
    )  # fmt: skip


def _arguments(family: str) -> tuple[str, ...]:
    return tuple(inspect.signature(FAMILIES[family]).parameters)


def _log_ratios(family: Callable[..., families.Pair], settings: list[dict[str, Any]]) -> np.ndarray:
    """Return log₁₀ of Var[w p] / (Var[w] E[p²]) for each of the settings."""
    if family is families.gaussian_pair:  # off the point where p = q leaves nothing to weigh
        settings = [{**setting, "sigma_p": setting["sigma_p"] * 1.0001} for setting in settings]
    log_p, log_q = (np.stack(logs) for logs in zip(*(family(**setting) for setting in settings), strict=True))
    return np.log10(variance_ratio(dpo_weight(log_p, log_q), np.exp(log_p)))
