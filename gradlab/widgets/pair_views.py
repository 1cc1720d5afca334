"""The pictures of the pair explorer: two maps of losses with arrows, and bars of gradients and of the step."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import PowerNorm
from matplotlib.patches import Polygon

from gradlab.plotting.palette import CHOSEN
from gradlab.widgets.pair_effects import ARROWS, CELLS, Effect, Field, Surface, place
from gradlab.widgets.view import SIDES, View, round_up

_TICKS = {"π": ("0", "½", "1"), "log π": ("10⁻¹²", "10⁻⁶", "1")}
_PANELS = {
    "by_prob": "−∂L/∂π",
    "by_logp": "−∂L/∂log π",
    "by_logit": "−∂L/∂logit",
    "change": "Δ log π of one step (nats)",
}
_BARS = {
    "_a": {"facecolor": CHOSEN[0], "edgecolor": CHOSEN[0]},
    "_b": {"facecolor": "#F1E3BC", "edgecolor": CHOSEN[1], "linestyle": (0, (3, 1.5))},
}


class Maps:
    """One map per loss, over the unit square: only the numbers of the axes are still."""

    def __init__(self) -> None:
        self.view = View(620, 370, "Two maps of a loss over the probabilities of winner and loser, with arrows of "
                                   "descent, the policy, its reference and one step")  # fmt: skip
        panels = self.view.figure.subplots(1, 2, gridspec_kw={"wspace": 0.15})
        self._axes = dict(zip(SIDES, panels, strict=True))
        for axis in self._axes.values():
            axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal", xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
            axis.set(xlabel="π_w", yticklabels=())
            axis.grid(visible=False)
        self._axes["_a"].set_ylabel("π_l")
        self._axes["_a"].yaxis.set_label_coords(-0.19, 0.5)  # beyond the widest numbers
        self._edges = {side: axis.add_patch(Polygon([(0, 0)], fill=False, edgecolor="#888888"))
                       for side, axis in self._axes.items()}  # fmt: skip
        self._parts = {side: _parts_of_map(axis, SIDES[side]["color"]) for side, axis in self._axes.items()}
        for side, parts in self._parts.items():
            for part in parts.values():
                self.view.live(part)
            for name in ("surface", "equal"):
                parts[name].set_clip_path(self._edges[side])
        self._named = ""
        self.view.leave_room(above=0.06)

    def show(
        self, axes: str, log_p: np.ndarray, ref: np.ndarray, before: np.ndarray | None,
        shown: dict[str, tuple[Effect, Surface, Field]],
    ) -> None:  # fmt: skip
        """Put the policy on both maps; ``before`` is its former place, if any."""
        if axes != self._named:
            self._name(axes)
        for side, (effect, surface, field) in shown.items():
            parts = self._parts[side]
            parts["surface"].set_data(surface.values)
            parts["surface"].set_clim(*surface.span)
            parts["arrows"].set_offsets(field.places)
            parts["arrows"].set_UVC(*field.directions.T)
            points = {"point": log_p[:2], "after": effect.after, "reference": ref, "before": before}
            for name, point in points.items():
                parts[name].set_visible(point is not None)
                if point is not None:
                    parts[name].set_data(*place(point[:2], axes)[:, None])
            parts["step"].set_data(*place(np.stack([log_p[:2], effect.after], 1), axes))
            least, most = surface.span  # a short title: each letter takes a tenth of a millisecond
            title = f"{side[1].upper()}: {effect.loss.name}, L = {effect.value:.3g} in {_short(least)} – {_short(most)}"
            parts["title"].set_text(title)

    def _name(self, axes: str) -> None:
        """Draw numbers along the axes, and the edge π_w + π_l = 1."""
        t = np.linspace(-30, 30, 301)
        edge = place(-np.logaddexp(0, np.stack([-t, t], 1)), axes)
        for side, axis in self._axes.items():
            axis.set_xticklabels(_TICKS[axes])
            self._edges[side].set_xy([(0, 0), *edge, (0, 0)])
        self._axes["_a"].set_yticklabels(_TICKS[axes])
        self._named = axes
        self.view.restyle()


class Bars:
    """One panel per kind of gradient, and one for the step. The scale is a live text: the still part never changes."""

    def __init__(self) -> None:
        self.view = View(480, 370, "Bars for winner, loser and each other response: gradients in probability, in "
                                   "log-probability and in logits, and the change of log π in one step")  # fmt: skip
        self._bars, self._before, self._tops = {}, {}, {}
        for (panel, title), axis in zip(_PANELS.items(), self.view.figure.subplots(2, 2).flat, strict=True):
            axis.set(xlim=(-0.6, 2.6), ylim=(-1.1, 1.1), title=title, yticks=(-1, 0, 1), yticklabels=("−5e−12", "", ""))
            axis.set_xticks(range(3), ("winner", "loser", "others"))
            axis.tick_params(length=0)
            axis.tick_params(axis="y", labelcolor="none")  # these keep room for the live text
            axis.axhline(0, color="#444444", linewidth=0.8)
            at = {"ha": "right", "va": "center", "transform": axis.get_yaxis_transform()}
            axis.text(-0.03, 0, "0", **at)
            self._tops[panel] = self.view.live(axis.text(-0.03, 1, "", **at))
            for side, shift in zip(SIDES, (-0.2, 0.2), strict=True):
                here = np.arange(3) + shift
                marks = {"color": SIDES[side]["color"], "linestyle": "", "zorder": 4}
                bars = PolyCollection([], linewidth=1.2, zorder=3, **_BARS[side])
                self._bars[panel, side] = self.view.live(axis.add_collection(bars, autolim=False))
                dashes = axis.plot(here, here * np.nan, marker="_", markersize=17, alpha=0.45, **marks)[0]
                self._before[panel, side] = self.view.live(dashes)
                if panel == "change":
                    marks |= {"marker": "D", "markersize": 4.5, "markeredgecolor": "black"}
                    self._bars["first_order", side] = self.view.live(axis.plot(here, here * np.nan, **marks)[0])

    def show(self, effects: dict[str, Effect], before: dict[str, Effect] | None) -> None:
        """Show both losses' bars; dashes mark where they were before, if anywhere."""
        for panel, top in self._tops.items():
            scale = round_up(max(float(np.nanmax(np.abs(getattr(effect, panel)))) for effect in effects.values()))
            top.set_text(_short(scale))
            for (side, effect), left in zip(effects.items(), (-0.38, 0.02), strict=True):
                heights = np.nan_to_num(getattr(effect, panel) / scale)
                self._bars[panel, side].set_verts([_box(x + left, height) for x, height in enumerate(heights)])
                dashes = self._before[panel, side]
                dashes.set_visible(before is not None)
                if before is not None:
                    dashes.set_ydata(getattr(before[side], panel) / scale)
                if panel == "change":
                    self._bars["first_order", side].set_ydata(effect.first_order / scale)


def _parts_of_map(axis: Axes, color: str) -> dict[str, Any]:
    unused = np.zeros((2, ARROWS**2))
    mark = {"linestyle": "", "clip_on": False, "markeredgecolor": "white", "color": color}
    return {
        "surface": axis.imshow(np.zeros((CELLS, CELLS)), extent=(0, 1, 0, 1), origin="lower", norm=PowerNorm(0.5),
                               cmap=mpl.colormaps["cividis"].resampled(14), interpolation="bilinear", zorder=0),
        "equal": axis.plot([0, 1], [0, 1], color="white", linewidth=1, linestyle="--")[0],
        "arrows": axis.quiver(*unused, *unused, units="dots", scale_units="dots", scale=1 / 15, width=1.5, pivot="mid",
                              color="white", edgecolor="black", linewidth=0.35, zorder=3),
        "reference": axis.plot([], [], **{**mark, "color": "black"}, marker="P", markersize=8, zorder=4)[0],
        "before": axis.plot([], [], **mark, marker="o", markersize=9, alpha=0.3, zorder=4)[0],
        "step": axis.plot([], [], color=color, linewidth=2, clip_on=False, zorder=5)[0],
        "point": axis.plot([], [], **mark, marker="o", markersize=9, zorder=5)[0],
        "after": axis.plot([], [], **mark, marker="D", markersize=5.5, zorder=6)[0],
        "title": axis.text(0, 1.05, "", transform=axis.transAxes, color=color),
    }  # fmt: skip


def _box(left: float, height: float) -> list[tuple[float, float]]:
    return [(left, 0), (left, height), (left + 0.36, height), (left + 0.36, 0)]


def _short(value: float) -> str:
    """Write a number with two digits, or one digit and a power of ten."""
    text = f"{value:.2g}" if 1e-3 <= value < 100 else f"{value:.0f}" if 100 <= value < 1e4 else f"{value:.0e}"
    return text.replace("e+", "e").replace("e0", "e").replace("e-0", "e-").replace("-", "−")
