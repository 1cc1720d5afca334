"""The pictures of the atlas's page: a row of small panels per loss, and a large row that says how to read them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.quiver import Quiver

from gradlab.atlas import pictures
from gradlab.atlas.measure import Measured
from gradlab.plotting.chart_figure import drawn
from gradlab.plotting.chart_marks import draw_chart
from gradlab.plotting.chart_scales import set_ticks
from gradlab.plotting.charts import Axis, Chart, Curves
from gradlab.plotting.looks import WIDTH, look, style
from gradlab.plotting.palette import FAINT
from gradlab.plotting.symbols import typeset

_HIGH = 2.0  # of a row of panels, in inches
_SIDE = 1.36  # of a panel
_LEFT = 0.52  # of the first panel; panels follow at equal distances
_TICKS = ([1e-4, 0.01, 1.0], [-10.0, 0.0, 10.0], [0.0, 0.5, 1.0])  # of either axis of the first three panels
_SIDES = ["win_logp_change", "lose_logp_change", "rest_logp_change"]
Box = tuple[float, float, float, float]  # left, bottom, right and top, in pixels
_NAMES = 7.5  # size of the names of points
_TITLES = ("log₂ ρ over (π_w, π_l)", "who is pushed where", "a step on logits", "reward and KL over β")


def row(seen: Measured, trained: pd.DataFrame | None) -> Figure:
    """Return one row of panels: map of ρ, directions, a step and, where there are trainings, reward against KL."""
    charts: list[Chart] = [pictures.ratio_map(seen), _named(pictures.sign_map(seen, 31)), pictures.step_field(seen, 9)]
    if trained is not None:
        charts.append(_frontier(seen.loss.name, trained))
    with mpl.rc_context({**style(), "font.size": 8, "axes.labelsize": 8, "xtick.labelsize": 7.5, "ytick.labelsize": 7.5,
                         "lines.markersize": 3, "figure.dpi": 150}):  # fmt: skip
        figure = Figure(figsize=(WIDTH, _HIGH))
        for at, (chart, title) in enumerate(zip(charts, _TITLES, strict=False)):
            left = _LEFT + at * (WIDTH + 0.1) / 4
            axes = figure.add_axes((left / WIDTH, 0.44 / _HIGH, _SIDE / WIDTH, _SIDE / _HIGH))
            draw_chart(chart, axes)
            if not isinstance(chart, Curves):
                set_ticks(axes.xaxis, _TICKS[at])
                set_ticks(axes.yaxis, _TICKS[at])
            axes.set_title(typeset(title), loc="left", fontsize=8, pad=4)
            axes.xaxis.labelpad = axes.yaxis.labelpad = 1
            for arrows in axes.findobj(Quiver):
                arrows.scale, arrows.width = arrows.scale / 1.5, 2.4  # type: ignore[attr-defined]
            for line in axes.get_lines():
                line.set_markersize(min(line.get_markersize(), 6))
    return figure


def placed(means: pd.DataFrame) -> Figure:
    """Return the map of all losses around DPO: what training did to winners, losers and all else.

    means  one row per loss, by its key, with the mean changes of log π of the three, in nats, DPO among them.

    Across: change of winners less DPO's; up: that of losers. Filled marks: all else gained more than under DPO.
    """
    shown = means.dropna(subset=_SIDES)[_SIDES]
    apart = shown - shown.loc["dpo"]
    with mpl.rc_context({**style(), "font.size": 8, "figure.dpi": 150}):
        figure = Figure(figsize=(WIDTH, 6.4), layout="constrained")
        axes = figure.subplots()
        axes.set(xscale="symlog", yscale="symlog", xlabel="winners: Δ log π_w less DPO's, nats",
                 ylabel="losers: Δ log π_l less DPO's, nats")  # fmt: skip
        axes.axhline(0, color=FAINT, linewidth=0.8, zorder=1)
        axes.axvline(0, color=FAINT, linewidth=0.8, zorder=1)
        for key, win, lose, rest in apart.itertuples():
            drawn_as = look(str(key))
            axes.plot(win, lose, linestyle="none", marker=drawn_as["marker"], color=drawn_as["color"], markersize=6,
                      markerfacecolor=drawn_as["color"] if rest >= 0 else "white", zorder=2)  # fmt: skip
        axes.margins(0.08)
        figure.draw_without_rendering()
        _name_points(axes, {str(key): (win, lose) for key, win, lose, _ in apart.itertuples()})
    return figure


def _name_points(axes: Axes, points: Mapping[str, tuple[float, float]]) -> None:
    """Write a name near each point, where it covers the least of marks, other names and what lies outside the axes."""
    places = {name: axes.transData.transform(point) for name, point in points.items()}
    frame: Box = (axes.bbox.x0, axes.bbox.y0, axes.bbox.x1, axes.bbox.y1)
    taken: list[Box] = [(x - 5, y - 5, x + 5, y + 5) for x, y in places.values()]
    line = {"arrowstyle": "-", "color": FAINT, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3}
    letter = axes.figure.dpi / 72 * _NAMES
    for name, (x, y) in sorted(places.items(), key=lambda item: tuple(item[1])):
        size = (0.57 * letter * len(name), 1.15 * letter)

        def cost(box: Box, size: tuple[float, float] = size) -> float:
            outside = size[0] * size[1] - _covered(box, frame)
            return round(sum(_covered(box, other) for other in taken) + 2 * outside, 3)

        best = min(_around(x, y, *size), key=cost)  # the first of equals, which is the nearest
        taken.append(best)
        at = axes.transData.inverted().transform((best[0], (best[1] + best[3]) / 2))
        axes.annotate(name, points[name], tuple(at), fontsize=_NAMES, va="center", zorder=3, arrowprops=line)


def _around(x: float, y: float, wide: float, high: float) -> list[Box]:
    """Return boxes of one size around a point, near ones first."""
    found = []
    for distance in (8, 16, 28, 44, 64, 90):
        for angle in range(0, 360, 20):
            across, up = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            middle = x + across * (distance + wide / 2), y + up * (distance + high / 2)
            found.append((middle[0] - wide / 2, middle[1] - high / 2, middle[0] + wide / 2, middle[1] + high / 2))
    return found


def _covered(one: Box, other: Box) -> float:
    across = min(one[2], other[2]) - max(one[0], other[0])
    up = min(one[3], other[3]) - max(one[1], other[1])
    return max(across, 0.0) * max(up, 0.0)


def how_to_read(ratio: Measured, signs: Measured, step: Measured) -> Figure:
    """Return the three maps, each of a loss, large and with their scales of colours."""
    return drawn([pictures.ratio_map(ratio), pictures.sign_map(signs, 31), pictures.step_field(step)], width=WIDTH)


def _named(chart: Chart) -> Chart:
    return replace(chart, x=replace(chart.x, label="h_w"), y=replace(chart.y, label="h_l"))  # type: ignore[union-attr,arg-type]


def _frontier(key: str, trained: pd.DataFrame) -> Curves:
    """Return the frontier of a loss in black, with DPO's behind it, in grey and dashed."""
    lines = {**({} if key == "dpo" else {"dpo": (FAINT, "dashed")}), key: ("#000000", "")}
    chart = pictures.frontier_chart(trained, lines, faint=["dpo"] if key != "dpo" else [])  # type: ignore[arg-type]
    return replace(chart, x=_wide(chart.x, "KL, nats"), y=_wide(chart.y, "E[u]"))


def _wide(axis: Axis, label: str) -> Axis:
    return replace(axis, label=label)
