"""Variance: both sides of Theorems 4–5, the condition that decides, and the region where the theorems hold."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from contourpy import contour_generator

from gradlab.plotting.palette import NOT_TRUE, SETTINGS, SIGNED, TRUE
from gradlab.theory import balanced_weight, covariance_gap, dpo_weight, families, variance_ratio
from gradlab.theory.weight_variance import noise_to_signal
from gradlab.widgets.controls import Controls, choice, log_slider, slider, whole_slider
from gradlab.widgets.explorer import Explorer, Story
from gradlab.widgets.view import View, look

DRAWS = 50  # of Dirichlet policies and preferences
POINTS = 25  # of the map, each way
_STRIDES = (8, 4, 2, 1)  # of the map, from coarse to fine
_WORK = 1_200_000  # pairs of responses between two looks at the page, about 50 ms
_SIDES = {"Var[w p]": TRUE, "Var[w] E[p²]": "#444444", "Cov(w², p²)": NOT_TRUE, "E[w p]²": SETTINGS[5]}
_LOOKS: dict[str, dict[str, Any]] = {
    "p": {"color": "black", "label": "p"},
    "q": {"color": "#777777", "linestyle": "--", "label": "q"},
    "w": {"color": SETTINGS[0], "label": "w"},
    "product": {"color": SETTINGS[1], "linestyle": "--", "label": "w·p"},
}
_MARKS: dict[str, dict[str, Any]] = {"hold": {"marker": "o", "color": TRUE}, "fail": {"marker": "x", "color": NOT_TRUE}}
_RING: dict[str, Any] = {"marker": "o", "markersize": 11, "fillstyle": "none", "markeredgewidth": 2, "color": "black"}
_TOPS = (2.5, 5.0, 10.0, 20.0, 50.0, 200.0)  # of the axis of sides

FAMILIES: dict[str, Callable[..., families.Pair]] = {
    "gaussian": families.gaussian_pair,
    "one peak": families.peak_pair,
    "Dirichlet": families.dirichlet_pair,
}
_UP = {  # the y axis of the map: its name, its ends, its ticks and their labels
    "gaussian": ("sigma_p", np.geomspace(0.375, 12, POINTS), (0.5, 1, 2, 4, 8), "σ_p (units of y)"),
    "one peak": ("rest", np.geomspace(1e-4, 0.5, POINTS), (1e-4, 1e-3, 0.01, 0.1, 0.5), "1 − peak"),
}
_ACROSS = np.linspace(0, 12, POINTS)


class Around:
    """log₁₀ of the ratio at the settings around a case, computed part by part, a map from coarse to fine."""

    def __init__(self, family: str, arguments: dict[str, Any]) -> None:
        """Make the map around a case of this family with these arguments, or its draws; compute the first part."""
        self._family = FAMILIES[family]
        self._at_once = max(1, _WORK // arguments["n"] ** 2)
        if family in _UP:
            up, heights, *_ = _UP[family]
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
        "Theorems 4 and 5 of the paper say that it does: Var[w p] < Var[w] E[p²]. Here it does. Before you move "
        "anything: will it still, for a policy that is much narrower than the preference?"
    )
    reading = (
        "Upper left: policy p and preference q; below them DPO's weight w and the balanced weight w·p, each divided "
        "by its largest size. The bars are the two sides of the theorems and of the condition that decides: with E[w] "
        "= 0, the theorems hold exactly where Cov(w², p²) < E[w p]². All bars are in units of Var[w] E[p²], so that "
        "this bar is 1. The map shows the ratio of the theorems' two sides around the case: teal where they hold, "
        "brown where not, the black line between; the ring is the case, the faint ring the setting before you touched "
        "this control. For Dirichlet draws a mark is a draw, a dot where the theorems hold, a cross where not."
    )
    takeaway = (
        "The inequality is not a law: with E[w] = 0 it is the same as Cov(w², p²) < E[w p]², so it fails where the "
        "policy puts its mass on responses of large w². It fails for every policy that prefers one of three or more "
        "responses and treats the others alike, where the preference is uniform. The claims report has the proof "
        "(variance), and shows each family of p and q by itself. Less variance is also not less "
        "noise, since w·p is smaller too. The last number compares both relative to their mean size: above 1, w·p is "
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

    def make_controls(self) -> dict[str, Controls]:
        """Return the controls of family, policy, preference and responses."""
        return {
            "Policy p": {
                "family": choice("family", "gaussian", list(FAMILIES), "of policy and preference"),
                "distance": slider("distance", 3.0, 0.0, 12.0, 0.25, "of the modes, in units of y"),
                "sigma_p": log_slider("σ_p", 2.5, np.log10(0.375), np.log10(12), "width of p, in units of y"),
                "rest": log_slider("1 − peak", 0.1, -4, np.log10(0.5), "probability that is not on the peak"),
                "alpha_p": log_slider("α of p", 1.0, -1, 1, "concentration: the lower, the fewer likely responses"),
            },
            "Preference q": {
                "sigma_q": slider("σ_q", 3.0, 0.75, 8.0, 0.25, "width of q, in units of y"),
                "alpha_q": log_slider("α of q", 1.0, -1, 1, "concentration"),
            },
            "Responses": {
                "n": whole_slider("responses n", 100, 20, 200, "on a support of 20 units", step=10),
                "seed": whole_slider("seed", 0, 0, DRAWS - 1, "draws p and q"),
            },
        }

    def adapt(self, state: SimpleNamespace) -> None:
        """Show only the controls that the family has."""
        arguments = _arguments(state.family)
        for key, control in self.controls.items():
            control.layout.display = None if key == "family" or key in arguments else "none"

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

    def make_views(self) -> dict[str, View]:
        """Return the views: weights and sides; the map."""
        with mpl.rc_context(look()):
            return {"weights": self._make_weights(), "map": self._make_map()}

    def show(self, result: Variances, former: Variances | None) -> dict[str, Any]:
        """Show curves, bars and map; return both sides, and noise against signal."""
        self._show_weights(result, former)
        self._show_sides(result)
        self._show_around(result, former)
        variance, bound, covariance, mean = result.sides.values()
        return {
            "Var[w p]": variance, "Var[w] E[p²]": bound, "ratio": result.ratio,
            "theorems": "hold" if variance < bound else "do not hold", "Cov(w², p²)": covariance, "E[w p]²": mean,
            "condition": "true" if covariance < mean else "not true", "noise of w·p / of w": result.noise,
        }  # fmt: skip

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

    def _make_weights(self) -> View:
        view = View(560, 400, "Policy and preference, DPO's weight and the balanced weight over the responses; "
                              "bars of both sides of the theorems")  # fmt: skip
        grid = view.figure.add_gridspec(3, 1, height_ratios=(1, 1.2, 0.9))
        shapes, weights, bars = (view.figure.add_subplot(place) for place in grid)
        shapes.set(xlim=(-10, 10), ylim=(0, 1.1), yticks=(0, 1), title="policy p and preference q")
        weights.set(xlim=(-10, 10), ylim=(-1.1, 1.1), yticks=(-1, 0, 1), title="weights, scaled to 1",
                    xlabel="response y")  # fmt: skip
        shapes.tick_params(labelbottom=False)
        self._lines, self._ghosts = {}, {}
        for axis, names in ((shapes, ("p", "q")), (weights, ("w", "product"))):
            for name in names:
                self._ghosts[name] = view.live(axis.plot([], [], **{**_LOOKS[name], "alpha": 0.3, "label": "_"})[0])
                self._lines[name] = view.live(axis.plot([], [], **_LOOKS[name])[0])
            axis.legend(loc="lower right", bbox_to_anchor=(1, 0.98), ncols=2, borderaxespad=0)
        bars.set(xlim=(-1.1, _TOPS[0]), ylim=(3.6, -0.6), title="in units of Var[w] E[p²]")
        bars.set_yticks(range(4), list(_SIDES))
        bars.grid(visible=False, axis="y")
        for at in (0, 1):
            bars.axvline(at, color="#444444", linewidth=0.8, linestyle="-" if at == 0 else ":")
        self._bars_axis = bars
        self._bars = [view.live(bar) for bar in bars.barh(range(4), [0, 1, 0, 0], 0.7, color=list(_SIDES.values()))]
        return view

    def _make_map(self) -> View:
        view = View(540, 400, "Map of the ratio of the theorems' two sides around the case, or the draws around it")
        axis = self._axis = view.figure.subplots()
        axis.grid(visible=False)
        self._image = view.live(axis.imshow(np.zeros((2, 2)), cmap=SIGNED.reversed(), vmin=-1, vmax=1, aspect="auto",
                                            origin="lower", interpolation="bilinear"))  # fmt: skip
        self._border = view.live(axis.plot([], [], color="black", linewidth=1.5)[0])
        self._draws = {key: view.live(axis.plot([], [], linestyle="", markersize=4, **mark)[0])
                       for key, mark in _MARKS.items()}  # fmt: skip
        self._former = view.live(axis.plot([], [], **_RING, alpha=0.3, clip_on=False)[0])
        self._ring = view.live(axis.plot([], [], **_RING, clip_on=False, zorder=5)[0])
        self._count = view.live(axis.text(0.02, 0.98, "", transform=axis.transAxes, va="top"))
        view.figure.colorbar(self._image, ax=axis, label="log₁₀ Var[w p] / (Var[w] E[p²])", extend="both")
        self._family = ""
        self._frame_map("gaussian")
        return view

    def _frame_map(self, family: str) -> None:
        """Set limits, ticks and names of the map's axes."""
        axis, self._family = self._axis, family
        if family in _UP:
            _, heights, ticks, name = _UP[family]
            axis.set(xlim=(0, 12), xlabel="distance of the modes (units of y)", ylabel=name,
                     ylim=np.log10(heights[[0, -1]]))  # fmt: skip
            axis.title.set_text("where Theorems 4–5 hold (teal)")
            axis.set_yticks(np.log10(ticks), [f"{tick:g}" for tick in ticks])
        else:
            axis.set(xlim=(-1, 1), ylim=(-1, DRAWS), xlabel="log₁₀ Var[w p] / (Var[w] E[p²])", ylabel="seed")
            axis.title.set_text("draws for which Theorems 4–5 hold (left of 0)")
            axis.set_yticks(range(0, DRAWS, 10), [str(tick) for tick in range(0, DRAWS, 10)])

    def _show_weights(self, result: Variances, former: Variances | None) -> None:
        for parts, of in ((self._lines, result), (self._ghosts, former)):
            for name, line in parts.items():
                values = None if of is None else getattr(of, name)
                if of is None or values is None:
                    line.set_data([], [])
                    continue
                top = max(of.p.max(), of.q.max()) if name in "pq" else np.abs(values).max()
                line.set_data(of.y, values / top)

    def _show_sides(self, result: Variances) -> None:
        sides = np.array(list(result.sides.values())) / result.sides["Var[w] E[p²]"]
        for bar, side in zip(self._bars, sides, strict=True):
            bar.set_width(side)
        top = next((top for top in _TOPS if sides.max() <= top), _TOPS[-1])
        self.views["weights"].limits(self._bars_axis, "x", -1.1 * top / _TOPS[0], top)

    def _show_around(self, result: Variances, former: Variances | None) -> None:
        family = result.state.family
        if family != self._family:
            self._frame_map(family)
            self.views["map"].restyle()
        if family in _UP:
            self._show_region(result.around.known, family)
        else:
            self._show_draws(result.around.values.ravel())
        self._image.set_visible(family in _UP)
        for ring, of in ((self._ring, result), (self._former, former)):
            ring.set_data(*_place(of) if of is not None and of.state.family == family else ([], []))

    def _show_region(self, known: np.ndarray, family: str) -> None:
        """Show the map, its outermost points on the ends of the axes, and the line on which both sides are equal."""
        low, high = np.log10(_UP[family][1][[0, -1]])
        across, up = np.linspace(0, 12, len(known)), np.linspace(low, high, len(known))
        half = across[1] / 2, (up[1] - up[0]) / 2
        self._image.set_data(known)
        self._image.set_extent((-half[0], 12 + half[0], low - half[1], high + half[1]))
        gap = np.full((1, 2), np.nan)  # between pieces of the line
        pieces = [gap, *(part for line in contour_generator(across, up, known).lines(0.0) for part in (line, gap))]
        self._border.set_data(*np.concatenate(pieces).T)  # pyright: ignore[reportArgumentType, reportCallIssue]
        self._count.set_text("")
        for dots in self._draws.values():
            dots.set_data([], [])

    def _show_draws(self, draws: np.ndarray) -> None:
        self._border.set_data([0, 0], [-1, DRAWS])
        self._count.set_text(f"hold for {(draws < 0).sum()} of {np.isfinite(draws).sum()} draws")
        for key, chosen in (("hold", draws < 0), ("fail", draws >= 0)):
            self._draws[key].set_data(draws[chosen], np.flatnonzero(chosen))


def _arguments(family: str) -> tuple[str, ...]:
    return tuple(inspect.signature(FAMILIES[family]).parameters)


def _log_ratios(family: Callable[..., families.Pair], settings: list[dict[str, Any]]) -> np.ndarray:
    """Return log₁₀ of Var[w p] / (Var[w] E[p²]) for each of the settings."""
    if family is families.gaussian_pair:  # off the point where p = q leaves nothing to weigh
        settings = [{**setting, "sigma_p": setting["sigma_p"] * 1.0001} for setting in settings]
    log_p, log_q = (np.stack(logs) for logs in zip(*(family(**setting) for setting in settings), strict=True))
    return np.log10(variance_ratio(dpo_weight(log_p, log_q), np.exp(log_p)))


def _place(of: Variances) -> tuple[list[float], list[float]]:
    """Return the place of the case on the map, or among the draws."""
    family = of.state.family
    if family in _UP:
        return [of.state.distance], [float(np.log10(getattr(of.state, _UP[family][0])))]
    return [float(np.log10(of.ratio))], [of.state.seed]
