"""Distribution shift: the extrema of three weight functions, against the interval of Theorem 3."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pandas as pd
from scipy.integrate import trapezoid

from gradlab.plotting.charts import Axis, Band, Curve, Curves, Dash, Handle, Label, Marker, Move, Rule
from gradlab.plotting.looks import look as look_of
from gradlab.plotting.palette import BALANCED_WEIGHT, INK, NOT_TRUE, TRUE
from gradlab.theory import (
    Extremum,
    Placement,
    balanced_weight,
    bdpo_weight,
    bdpo_weight_limit,
    dpo_weight,
    dpo_weight_limit,
    families,
    inside,
    outside,
    product_noise,
)
from gradlab.theory.extrema import ALLOWED_CELLS, ROUNDING
from gradlab.widgets.controls import Choice, Controls, Whole, slider
from gradlab.widgets.explorer import Explorer, Reading, Story

STATEMENTS: dict[str, Callable[..., Placement]] = {"dpo": outside, "balanced": inside, "bdpo": inside}
_NAMES = {"dpo": "DPO's w", "balanced": "balanced w·p", "bdpo": "bDPO's own w"}
_SHORT = {"dpo": "w", "balanced": "w·p", "bdpo": "bDPO"}  # columns of the table
_COLORS = {"dpo": look_of("dpo")["color"], "balanced": BALANCED_WEIGHT, "bdpo": look_of("bdpo")["color"]}
_SHAPES: dict[str, tuple[str, str, Dash]] = {
    "p": ("policy p", "#000000", ""),
    "q": ("preference q", "#777777", "dashed"),
}
_HEIGHT = 170  # of each chart, in pixels
_LIMIT_POINTS = 201  # at which the continuous limit is evaluated
_LIMIT_MISS = 0.01  # in units of y: a miss in the limit that is no error of its points
_LEVEL = 1e-9  # weights below this size are rounding
_CASE = ("family", "mu_p", "mu_q", "sigma_p", "sigma_q", "support")
_CODE = """\
import numpy as np

from gradlab.theory import balanced_weight, bdpo_weight, dpo_weight, inside, outside, product_noise
from gradlab.theory.families import cells, on_cells

n, support = {n}, {support}
y = cells(n, support)  # 0 is the middle
log_p, log_q = {p}, {q}
low, high = sorted(({mu_p}, {mu_q}))
w = dpo_weight(log_p, log_q)
balanced = balanced_weight(log_p, log_q, weight=w)
places = {{
    "dpo": outside(y, w, low, high),
    "balanced": inside(y, balanced, low, high, product_noise(balanced, np.exp(log_p))),
    "bdpo": inside(y, bdpo_weight(log_p, log_q), low, high),
}}
for name, place in places.items():  # a miss of one cell is allowed
    true = place.slack + support / n >= -1e-9
    miss = f"misses by {{-place.slack:.2f}} in y, {{-place.slack * n / support:.1f}} cells"
    print(name, "true" if true else miss, f"reach {{place.reach:.3g}}")
"""


@dataclass(frozen=True)
class Weights:
    """The weight functions of one case on one set of responses, and the places of their extrema."""

    y: np.ndarray
    p: np.ndarray  # probabilities, or densities in the limit
    q: np.ndarray
    values: dict[str, np.ndarray]
    places: dict[str, Placement]


@dataclass(frozen=True)
class Shift:
    """A case on its grid, and in the continuous limit."""

    state: SimpleNamespace
    grid: Weights
    limit: Weights

    @property
    def low(self) -> float:
        """The lower of the two modes."""
        return min(self.state.mu_p, self.state.mu_q)

    @property
    def high(self) -> float:
        """The higher of the two modes."""
        return max(self.state.mu_p, self.state.mu_q)

    @property
    def cell(self) -> float:
        """The length of a cell of the grid."""
        return self.state.support / self.state.n

    def says(self, name: str) -> str:
        """Say whether Theorem 3's statement on that weight is true: it may miss by a cell of the grid."""
        if self.low == self.high:
            return "says nothing, μ_p = μ_q"
        slack = self.grid.places[name].slack
        return (
            "true"
            if slack + ALLOWED_CELLS * self.cell >= -ROUNDING
            else f"misses by {-slack:.2f} in y, {-slack / self.cell:.1f} cells"
        )

    def scale(self, name: str) -> float:
        """Return the divisor that makes a weight on the grid comparable with its limit, a mean or a density."""
        return len(self.grid.y) * (self.cell if name == "balanced" else 1.0)

    def size(self, name: str) -> float:
        """Return the largest size of a weight, on the grid or in the limit."""
        on_grid, limit = self.grid.values[name] / self.scale(name), self.limit.values[name]
        return max(float(np.abs(on_grid).max()), float(np.abs(limit).max()), _LEVEL)

    def extrema(self, name: str) -> tuple[Extremum, ...]:
        """Return a weight's extrema; none where the modes coincide, since p = q leaves only rounding."""
        return self.grid.places[name].extrema if self.low < self.high else ()

    @property
    def gap(self) -> float:
        """The distance of bDPO from its limit, half of DPO's weight at β/2: the largest difference over the range."""
        limit = self.limit.values["bdpo"]
        at_grid = np.interp(self.grid.y, self.limit.y, limit)
        apart = np.abs(self.grid.values["bdpo"] / self.scale("bdpo") - at_grid)
        return float(apart.max() / max(np.ptp(limit), 1e-300))


class ShiftExplorer(Explorer):
    """Policy and preference apart: the weights of DPO, of w·p and of Balanced-DPO, and whether Theorem 3 holds."""

    name = "shift"
    in_page = True
    template = _CODE
    question = "When policy and preference differ, which responses does a loss raise and lower most?"
    prediction = (
        "Theorem 3 of the paper puts the extrema of DPO's weight outside [μ_p, μ_q], and those of the balanced weight "
        "w·p inside. At the start both statements are true, on 20 responses, where an extremum may miss by one cell."
    )
    first_move = "Drag a peak of the first chart to move a mode, or the diamond on its slope to make it wider."
    ask = "Theorem 3: DPO's extrema lie outside [μ_p, μ_q], those of w·p inside. Which stays true on ever finer grids?"
    answers: ClassVar = {"both": "both", "dpo": "only DPO's half", "balanced": "only the half on w·p"}
    reading = (
        "First: policy p (solid) and preference q (dashed), each divided by the larger of their peaks; the grey band "
        "is [μ_p, μ_q], the interval between the modes. Drag a peak to move a mode, and the diamond on a slope, one σ "
        "away, to change a width. "
        "Each weight is scaled, with its limit, to a largest size of 1; responses above zero are raised, those "
        "below are lowered. "
        "Triangles are the extrema, filled where Theorem 3 puts them, hollow elsewhere. Dotted: the continuous limit, "
        "infinitely many responses; faint: what you pinned. As in the claims "
        "report, an extremum may miss by one cell of the grid. Reach: how far the lowest or the highest point lies "
        "outside the band. Lengths are in units of y; on a support of 20 with 20 responses, one unit is one response."
    )
    takeaway = (
        "For p and q with one mode each, DPO's half of Theorem 3 is true: from μ_p to μ_q, q rises and p falls, so w "
        "only grows. The balanced half is true only on coarse grids, where one cell is allowed. In the continuous "
        "limit it is always false for smooth p and q: w·p still rises at μ_p, so that lower values lie outside the "
        "band. (A peak with a kink, as laplace has, can hold the minimum exactly at μ_p.) In the Gaussian cases of the "
        "claims report w·p never reached farther out than DPO's w. Balanced-DPO does not inherit this: its weights are "
        "not w·p, and on finer grids they approach those of DPO at β/2, slowly, as 1/log n."
    )
    stories = (
        Story(
            "The textbook case",
            "narrow p and q, far apart, on 20 responses: all three statements are true, two of them because a miss "
            "of less than one cell is allowed. The hollow triangles show these misses.",
        ),
        Story(
            "Refine the grid",
            "the same p and q on 800 responses. DPO's statement stays true. The minimum of w·p has hardly moved, "
            "but it lies outside the band by several of the small cells, so the statement is no longer true. "
            "bDPO's extrema have even moved farther out.",
            {"n": 800},
        ),
        Story(
            "Balanced-DPO on a fine grid",
            "the finer the grid, the smaller all probabilities, and the closer every λ is to ½: bDPO's weight "
            "approaches the dotted line, which is DPO at β/2. It does so slowly: its distance to DPO(β/2) is 31% of "
            "the range on 20 responses, and still 20% on 800. Its extrema approach those of DPO, outside the band.",
            {"n": 800, "mu_p": -3.0, "mu_q": 3.0, "sigma_p": 3.0, "sigma_q": 3.0},
        ),
        Story(
            "Never farther out than DPO's",
            "wide and close: the balanced statement fails by far, but w·p reaches only half as far out as DPO's w. In "
            "every Gaussian case of the claims report w·p reached less far than w. bDPO did not: here its minimum lies "
            "farther out than DPO's.",
            {"n": 200, "mu_p": -1.0, "mu_q": 1.0, "sigma_p": 3.0, "sigma_q": 3.0},
        ),
    )

    unfolds = ("Family and support",)

    def make_controls(self) -> dict[str, Controls]:
        """Return the controls of policy, preference and responses."""
        return {
            "Policy p": {
                "mu_p": slider("μ_p", -4.0, -8.0, 8.0, "its mode; 0 is the middle of the support"),
                "sigma_p": slider("σ_p", 1.5, 0.75, 8.0, "its width"),
            },
            "Preference q": {
                "mu_q": slider("μ_q", 4.0, -8.0, 8.0, "its mode"),
                "sigma_q": slider("σ_q", 1.5, 0.75, 8.0, "its width"),
            },
            "Responses": {"n": Whole("responses n", 20, 10, 800, "grid resolution")},
            "Family and support": {
                "family": Choice("family", "gaussian", list(families.SHAPES), "of p and of q"),
                "support": slider("support", 20.0, 16.0, 40.0, "length of the interval of responses"),
            },
        }

    def compute(self, state: SimpleNamespace) -> Shift:
        """Return the weights on the grid, and their limit where the case is new."""
        case = tuple(getattr(state, key) for key in _CASE)
        return Shift(state, _on_grid(state), self.remember("limit", case, lambda: _limit(state)))

    def charts(self, result: Shift, pinned: Shift | None) -> list[Curves]:
        """Return four charts: policy and preference, then the weights with their extrema."""
        return [_shapes_chart(result, pinned), *(_weight_chart(name, result, pinned) for name in STATEMENTS)]

    def readings(self, result: Shift) -> list[Reading]:
        """Return verdicts, reaches, and the distance of Balanced-DPO from its limit."""
        rows = [Reading("Theorem 3", {_SHORT[name]: result.says(name) for name in STATEMENTS})]
        if result.low < result.high:
            reach = {_SHORT[name]: place.reach for name, place in result.grid.places.items()}
            rows.append(Reading("reach", reach, "units of y"))
        return [*rows, Reading("distance to DPO(β/2)", {_SHORT["bdpo"]: f"{result.gap:.0%} of its range"})]

    def outcome(self, result: Shift) -> tuple[str, str]:
        """Return which half of Theorem 3 is true in the continuous limit."""
        if result.low == result.high:
            return "", "Where μ_p = μ_q there is no interval, and Theorem 3 says nothing."
        misses = {name: max(-result.limit.places[name].slack, 0.0) for name in ("dpo", "balanced")}
        kink = result.state.family == "laplace"  # an extremum at its kink is found to half a step
        allowed = result.state.support / (_LIMIT_POINTS - 1) if kink else _LIMIT_MISS
        true = {name: miss <= allowed for name, miss in misses.items()}
        if all(true.values()):
            return "both", "Both stay true here: a peak with a kink can hold the minimum of w·p exactly at μ_p."
        said = [
            f"{_NAMES[name]} {'stays as stated' if true[name] else f'misses by {misses[name]:.2f} in y'}"
            for name in true
        ]
        return next((name for name in true if true[name]), "none"), f"With infinitely many responses {', '.join(said)}."

    def frame(self) -> pd.DataFrame:
        """Return the curves, one row per response: probabilities, and weights without scaling."""
        grid = self.result.grid
        return pd.DataFrame({"y": grid.y, "policy": grid.p, "preference": grid.q, **grid.values})

    def code_parts(self, state: SimpleNamespace) -> dict[str, str]:
        """Return the distributions, with the widths that they have."""
        p, q = (
            f"on_cells({state.family!r}, y, {mode!r}, {width!r})"
            for mode, width in (_bump(state, which) for which in "pq")
        )
        return {"p": p, "q": q}


def _shapes_chart(result: Shift, pinned: Shift | None) -> Curves:
    """Return policy and preference, with handles that move their modes and widths."""
    curves = [] if pinned is None else [*_shapes(pinned, faint=True)]
    curves += _shapes(result)
    return Curves(
        "policy and preference",
        f"Curves of policy p, with its mode at {result.state.mu_p:g}, and of preference q, at {result.state.mu_q:g}.",
        _across(result), Axis("relative probability", 0, 1.15), curves, bands=[_band(result, "[μ_p, μ_q]")],
        handles=[handle for curve, which in zip(curves[-2:], "pq", strict=True) for handle in
                 _handles(curve, which, result.state)],
        link="y", height=_HEIGHT,
    )  # fmt: skip


def _shapes(of: Shift, *, faint: bool = False) -> Iterator[Curve]:
    top = max(of.grid.p.max(), of.grid.q.max())
    for which, (name, color, dash) in _SHAPES.items():
        values = getattr(of.grid, which) / top
        yield Curve(name, of.grid.y, values, color, dash, faint=faint)


def _handles(curve: Curve, which: str, state: SimpleNamespace) -> Iterator[Handle]:
    """Yield a handle on the peak, which moves the mode, and one a width away, which changes the width."""
    mode, width = _bump(state, which)
    side = -1 if mode > 0 else 1  # the side with more room, so that any width can be reached
    place = mode + side * width
    peak, slope = (float(np.interp(at, curve.x, curve.y)) for at in (mode, place))
    yield Handle(f"μ_{which}, the mode of {which}", mode, peak, curve.color, [Move(f"mu_{which}", "x")])
    yield Handle(
        f"σ_{which}, the width of {which}", place, slope, curve.color,
        [Move(f"sigma_{which}", "x", origin=mode, factor=side)], shape="diamond",
    )  # fmt: skip


def _weight_chart(name: str, result: Shift, pinned: Shift | None) -> Curves:
    """Return a weight on the grid and in the limit, with its extrema and what Theorem 3 says of them."""
    size, says = result.size(name), result.says(name)
    scale = result.scale(name) * size
    curves = [] if pinned is None else [_weight(name, pinned, pinned.size(name), faint=True)]
    curves += [
        Curve("n → ∞", result.limit.y, result.limit.values[name] / size, INK, "dotted"),
        _weight(name, result, size),
        *_triangles(name, result, scale),
    ]
    where = f"{'implied' if name == 'bdpo' else 'stated'}: extrema {STATEMENTS[name].__name__}"
    verdict = Label(_across(result).low, 1.15, says, TRUE if says == "true" else NOT_TRUE)
    return Curves(
        f"{_NAMES[name]}; {where}", f"The weight over the responses, with its extrema; Theorem 3 here: {says}.",
        _across(result), Axis("relative weight", -1.15, 1.6), curves, bands=[_band(result)], rules=[Rule(y=0)],
        labels=[verdict], link="y", height=_HEIGHT,
    )  # fmt: skip


def _weight(name: str, of: Shift, size: float, *, faint: bool = False) -> Curve:
    values = of.grid.values[name] / (of.scale(name) * size)
    return Curve(_NAMES[name], of.grid.y, values, _COLORS[name], faint=faint)


def _triangles(name: str, result: Shift, scale: float) -> Iterator[Curve]:
    """Yield the minima and the maxima inside and outside the interval, filled where Theorem 3 puts them."""
    markers: dict[str, Marker] = {"minimum": "triangle-down", "maximum": "triangle-up"}
    for kind, marker in markers.items():
        for where in (inside, outside):
            shown = [
                (at.position, at.value / scale)
                for at in result.extrema(name)
                if at.kind == kind and (result.low <= at.position <= result.high) == (where is inside)
            ]
            if shown:
                x, y = np.array(shown).T
                called = f"{kind[:3]} {where.__name__}"
                stated = STATEMENTS[name] is where
                yield Curve(called, x, y, _COLORS[name], marker=marker, line=False, filled=stated)


def _across(of: Shift) -> Axis:
    return Axis("response y", -of.state.support / 2, of.state.support / 2)


def _band(of: Shift, label: str = "") -> Band:
    return Band(of.low, of.high, label)


def _bump(state: SimpleNamespace, which: str) -> tuple[float, float]:
    """Return mode and width of p or of q."""
    return getattr(state, f"mu_{which}"), getattr(state, f"sigma_{which}")


def _on_grid(state: SimpleNamespace) -> Weights:
    y = families.cells(state.n, state.support)
    log_p, log_q = (families.on_cells(state.family, y, *_bump(state, which)) for which in "pq")
    dpo = dpo_weight(log_p, log_q)
    balanced, bdpo = balanced_weight(log_p, log_q, weight=dpo), bdpo_weight(log_p, log_q)
    return _placed(state, y, np.exp(log_p), np.exp(log_q), {"dpo": dpo, "balanced": balanced, "bdpo": bdpo})


def _limit(state: SimpleNamespace) -> Weights:
    ends = -state.support / 2, state.support / 2
    y = np.linspace(*ends, _LIMIT_POINTS)
    log_p, log_q = (families.log_density(state.family, *_bump(state, which)) for which in "pq")
    p, q = (density / trapezoid(density, y) for density in (np.exp(log_p(y)), np.exp(log_q(y))))  # on the support
    dpo, bdpo = (weight(y, log_p, log_q, *ends) for weight in (dpo_weight_limit, bdpo_weight_limit))
    return _placed(state, y, p, q, {"dpo": dpo, "balanced": dpo * p, "bdpo": bdpo})


def _placed(
    state: SimpleNamespace, y: np.ndarray, p: np.ndarray, q: np.ndarray, values: dict[str, np.ndarray]
) -> Weights:
    low, high = sorted((state.mu_p, state.mu_q))
    noise = {"balanced": product_noise(values["balanced"], p)}  # true down to its farthest tails
    places = {name: place(y, values[name], low, high, noise.get(name)) for name, place in STATEMENTS.items()}
    return Weights(y, p, q, values, places)
