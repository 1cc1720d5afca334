"""Distribution shift: the extrema of three weight functions, against the interval of Theorem 3."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MultipleLocator
from scipy.integrate import trapezoid

from gradlab.plotting.looks import look as look_of
from gradlab.plotting.palette import BALANCED_WEIGHT, NOT_TRUE, TRUE
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
from gradlab.widgets.controls import Controls, choice, slider, whole_slider
from gradlab.widgets.explorer import Explorer, Story
from gradlab.widgets.view import View, look

STATEMENTS: dict[str, Callable[..., Placement]] = {"dpo": outside, "balanced": inside, "bdpo": inside}
_NAMES = {"dpo": "DPO's w", "balanced": "balanced w·p", "bdpo": "bDPO's own w"}
_COLOURS = {"dpo": look_of("dpo")["color"], "balanced": BALANCED_WEIGHT, "bdpo": look_of("bdpo")["color"]}
_P: dict[str, Any] = {"color": "black"}
_Q: dict[str, Any] = {"color": "#777777", "linestyle": "--"}
_BAND = "#E4E4E4"
_LIMIT_POINTS = 201  # at which the continuous limit is evaluated
_DOTTED = 60  # up to this many responses, each has a dot
_CASE = ("family", "mu_p", "mu_q", "sigma_p", "sigma_q", "support")


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

    low: float
    high: float
    cell: float
    grid: Weights
    limit: Weights

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
        return max(float(np.abs(on_grid).max()), float(np.abs(limit).max()), 1e-9)  # less is rounding

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
    question = "When policy and preference differ, which responses does a loss raise and lower most?"
    prediction = (
        "Theorem 3 of the paper puts the extrema of DPO's weight outside [μ_p, μ_q], and those of the balanced weight "
        "w·p inside. Here both statements are true, on 20 responses. Before you move anything: which of them will "
        "still be true on 800?"
    )
    reading = (
        "Upper left: policy p (solid) and preference q (dashed); the grey band is [μ_p, μ_q], the interval between the "
        "modes. Each weight is scaled, with its limit, to a largest size of 1; responses above zero are raised, those "
        "below are lowered. "
        "Triangles are the extrema, filled where Theorem 3 puts them, hollow elsewhere. Dotted: the continuous limit, "
        "infinitely many responses; faint: the setting before you touched this control. As in the claims "
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
            "approaches the dotted line, which is DPO at β/2. It does so slowly: the number bDPO − DPO(β/2) is 31% of "
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

    def make_controls(self) -> dict[str, Controls]:
        """Return the controls of policy, preference and responses."""
        return {
            "Policy p": {
                "mu_p": slider("μ_p", -4.0, -8.0, 8.0, 0.25, "its mode; 0 is the middle of the support"),
                "sigma_p": slider("σ_p", 1.5, 0.75, 8.0, 0.25, "its width"),
            },
            "Preference q": {
                "mu_q": slider("μ_q", 4.0, -8.0, 8.0, 0.25, "its mode"),
                "sigma_q": slider("σ_q", 1.5, 0.75, 8.0, 0.25, "its width"),
            },
            "Responses": {
                "family": choice("family", "gaussian", list(families.SHAPES), "of p and of q"),
                "support": slider("support", 20.0, 16.0, 40.0, 4.0, "length of the interval of responses"),
                "n": whole_slider("responses n", 20, 10, 800, "grid resolution", step=10),
            },
        }

    def compute(self, state: SimpleNamespace) -> Shift:
        """Return the weights on the grid, and their limit where the case is new."""
        case = tuple(getattr(state, key) for key in _CASE)
        limit = self.remember("limit", case, lambda: _limit(state))
        low, high = sorted((state.mu_p, state.mu_q))
        return Shift(low, high, state.support / state.n, _on_grid(state), limit)

    def make_views(self) -> dict[str, View]:
        """Return the views: distributions and DPO's weight; the balanced weight and Balanced-DPO's."""
        with mpl.rc_context(look()):
            left = View(550, 420, "Policy, preference and DPO's weight over the responses, with its extrema")
            right = View(550, 420, "The balanced weight and Balanced-DPO's weight over the responses, with extrema")
            (shape, dpo), (balanced, bdpo) = (view.figure.subplots(2, 1, sharex=True) for view in (left, right))
            self._make_shapes(left, shape)
            self._parts = {
                name: _make_weight(view, axis, name)
                for name, view, axis in (("dpo", left, dpo), ("balanced", right, balanced), ("bdpo", right, bdpo))
            }
            self._bands = [_band(view, axis) for view, axis in
                           ((left, shape), (left, dpo), (right, balanced), (right, bdpo))]  # fmt: skip
            self._across = (dpo, bdpo)
            grey = "#444444"
            left.figure.legend(ncols=3, loc="outside upper center", handles=[
                Line2D([], [], **_P, label="policy p"), Line2D([], [], **_Q, label="preference q"),
                Patch(color=_BAND, label="[μ_p, μ_q]"),
            ])  # fmt: skip
            right.figure.legend(ncols=3, loc="outside upper center", handles=[
                Line2D([], [], color=grey, marker="^", linestyle="", label="extremum as stated"),
                Line2D([], [], color=grey, marker="^", linestyle="", markerfacecolor="white", label="elsewhere"),
                Line2D([], [], color=grey, linestyle=":", linewidth=1.2, label="n → ∞"),
            ])  # fmt: skip
        return {"dpo": left, "balanced": right}

    def show(self, result: Shift, former: Shift | None) -> dict[str, Any]:
        """Show curves, band and triangles; return verdicts and reaches."""
        half = result.cell * len(result.grid.y) / 2
        for axis, view in zip(self._across, self.views.values(), strict=True):
            view.limits(axis, "x", -half, half)
        for band in self._bands:
            band.set_x(result.low)
            band.set_width(result.high - result.low)
        top = max(result.grid.p.max(), result.grid.q.max())
        for line, values in zip(self._shapes, (result.grid.p, result.grid.q), strict=True):
            _set(line, result.grid.y, values / top)
        for name in STATEMENTS:
            self._show_weight(name, result, former)
        numbers: dict[str, Any] = {
            f"{_NAMES[name]} {wanted.__name__}": result.says(name) for name, wanted in STATEMENTS.items()
        }
        for name, text in (("dpo", "w"), ("balanced", "w·p"), ("bdpo", "bDPO")):
            if result.low < result.high:
                numbers[f"reach {text}"] = result.grid.places[name].reach
        return {**numbers, "bDPO − DPO(β/2)": f"{result.gap:.0%} of its range"}

    def frame(self) -> pd.DataFrame:
        """Return the curves, one row per response: probabilities, and weights without scaling."""
        grid = self.result.grid
        return pd.DataFrame({"y": grid.y, "policy": grid.p, "preference": grid.q, **grid.values})

    def code(self, state: SimpleNamespace) -> str:
        """Return code for the weights and the three statements."""
        p, q = (
            f"on_cells({state.family!r}, y, {mode!r}, {width!r})"
            for mode, width in (_bump(state, which) for which in "pq")
        )
        return f"""import numpy as np

from gradlab.theory import balanced_weight, bdpo_weight, dpo_weight, inside, outside, product_noise
from gradlab.theory.families import cells, on_cells

n, support = {state.n!r}, {state.support!r}
y = cells(n, support)  # 0 is the middle
log_p, log_q = {p}, {q}
low, high = sorted(({state.mu_p!r}, {state.mu_q!r}))
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

    def _make_shapes(self, view: View, axis: Axes) -> None:
        axis.set(ylim=(0, 1.1), title="policy and preference", yticks=(0, 0.5, 1))
        self._shapes = [view.live(axis.plot([], [], **shown, markersize=5)[0]) for shown in (_P, _Q)]

    def _show_weight(self, name: str, result: Shift, former: Shift | None) -> None:
        parts, size = self._parts[name], result.size(name)
        scale = result.scale(name) * size
        _set(parts["line"], result.grid.y, result.grid.values[name] / scale)
        parts["limit"].set_data(result.limit.y, result.limit.values[name] / size)
        parts["ghost"].set_data([], [])
        if former is not None:
            of_former = former.scale(name) * former.size(name)
            parts["ghost"].set_data(former.grid.y, former.grid.values[name] / of_former)
        everything = result.extrema(name)
        for kind in ("minimum", "maximum"):
            for where in ("as stated", "elsewhere"):
                shown = [at for at in everything if at.kind == kind and self._where(name, at.position, result) == where]
                parts[kind, where].set_data([at.position for at in shown], [at.value / scale for at in shown])
        says = result.says(name)
        parts["text"].set_text(says)
        parts["text"].set_color(TRUE if says == "true" else NOT_TRUE)

    @staticmethod
    def _where(name: str, position: float, result: Shift) -> str:
        within = result.low <= position <= result.high
        return "as stated" if within == (STATEMENTS[name] is inside) else "elsewhere"


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


def _make_weight(view: View, axis: Axes, name: str) -> dict[Any, Any]:
    """Make the live parts of one weight's panel."""
    colour, stated = _COLOURS[name], "implied" if name == "bdpo" else "stated"
    axis.set(
        ylim=(-1.15, 1.6), yticks=(-1, 0, 1), title=f"{_NAMES[name]}: {stated}, extrema {STATEMENTS[name].__name__}"
    )
    if name != "balanced":
        axis.set_xlabel("response y")
    axis.axhline(0, color="#999999", linewidth=0.8)
    axis.xaxis.set_major_locator(MultipleLocator(5))
    parts: dict[Any, Any] = {
        "ghost": axis.plot([], [], color=colour, alpha=0.3, linewidth=1)[0],
        "limit": axis.plot([], [], color="#444444", linestyle=":", linewidth=1.2)[0],
        "line": axis.plot([], [], color=colour, markersize=5)[0],
        "text": axis.text(0.02, 0.97, "", transform=axis.transAxes, va="top"),
    }
    for kind, marker in (("minimum", "v"), ("maximum", "^")):
        for where, face in (("as stated", colour), ("elsewhere", "white")):
            parts[kind, where] = axis.plot([], [], marker, markersize=8, color=colour, markerfacecolor=face,
                                           clip_on=False, zorder=5)[0]  # fmt: skip
    return {key: view.live(part) for key, part in parts.items()}


def _band(view: View, axis: Axes) -> Rectangle:
    """Draw the interval between the modes, not yet in its place."""
    band = Rectangle((0, 0), 0, 1, color=_BAND, alpha=0.7, linewidth=0, zorder=0.5)
    band.set_transform(axis.get_xaxis_transform())
    axis.add_artist(band)
    return view.live(band)


def _set(line: Line2D, y: np.ndarray, values: np.ndarray) -> None:
    """Set the curve, with a dot at each response where there are few."""
    line.set_data(y, values)
    line.set_marker("." if len(y) <= _DOTTED else "")
