"""Charts drawn into matplotlib's axes: one function per kind, all inside axes that have their place already."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import singledispatch
from typing import Literal, cast

import matplotlib.image as mpimg
import numpy as np
from contourpy import contour_generator
from matplotlib import colormaps, patheffects
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LogNorm, Normalize
from matplotlib.text import Text
from matplotlib.transforms import Transform

from gradlab.plotting import charts
from gradlab.plotting.chart_scales import set_axes, set_ticks, share
from gradlab.plotting.palette import FAINT, INK, MORE_OF_B, SIDES, SIGNED, TURNED
from gradlab.plotting.symbols import typeset

COLORS: dict[charts.Colors, Colormap] = {
    "cividis": colormaps["cividis"], "signed": SIGNED, "sides": SIDES, "moreOfB": MORE_OF_B, "turned": TURNED,
}  # fmt: skip
_DASHES = {"": "-", "dashed": (0, (4.5, 2)), "dotted": (0, (1.2, 1.6)), "dashdot": (0, (6, 1.6, 1.2, 1.6))}
_MARKERS = {"dot": "o", "ring": "o", "cross": "x", "triangle-up": "^", "triangle-down": "v", "diamond": "D"}
_BESIDE = [patheffects.withStroke(linewidth=2.5, foreground="white")]  # keeps a text readable over lines
_SPACING = 1 / 12  # of arrows, as a share of an axis, as in field.ts


@singledispatch
def draw_chart(chart: charts.Chart, axes: Axes) -> None:
    """Draw a chart into axes; a map's scale of colours is drawn by ``draw_bar``."""
    raise NotImplementedError(type(chart).__name__)


@draw_chart.register
def _curves(chart: charts.Curves, axes: Axes) -> None:
    _frame(axes, chart.x, chart.y)
    for band in chart.bands:
        axes.axvspan(band.low, band.high, color=FAINT, alpha=0.2, linewidth=0, zorder=0)
        if band.label:
            middle = float(np.clip(share((band.low + band.high) / 2, chart.x), 0, 1))
            _note(axes, (middle, 0.98), band.label, INK, frame=axes.transAxes, ha="center", va="top")
    for rule in chart.rules:
        _rule(axes, chart, rule)
    for curve in sorted(chart.curves, key=lambda curve: not curve.faint):
        _curve(axes, curve)
    for label in chart.labels:
        right = share(label.x, chart.x) > 0.7
        _note(axes, (label.x, label.y), label.text, label.color or INK, ha="right" if right else "left", va="bottom",
              offset=(-3 if right else 3, 3))  # fmt: skip
    _handles(axes, chart.handles)


@draw_chart.register
def _map(chart: charts.Map, axes: Axes) -> None:
    x, y = _over(chart.columns, chart.x), _over(chart.rows, chart.y)
    _frame(axes, x, y)
    axes.grid(visible=False)
    rows = slice(None, None, 1 if y.low < y.high else -1)
    values = np.asarray(chart.values, float)[rows]
    axes.imshow(
        np.maximum(values, chart.low) if chart.logarithmic else values, extent=(0, 1, 0, 1), transform=axes.transAxes,
        origin="lower", aspect="auto", interpolation="nearest", cmap=COLORS[chart.colors], norm=_norm(chart),
    )  # fmt: skip
    for level in chart.levels:
        _contour(axes, chart, level)
    if chart.struck is not None:
        _strike(axes, np.asarray(chart.struck)[rows])
    if chart.ring is not None:
        for size, width, color in ((12, 3.5, "black"), (12, 1.8, "white")):
            axes.plot(*chart.ring, "o", markersize=size, markerfacecolor="none", markeredgewidth=width,
                      markeredgecolor=color, clip_on=False, zorder=5)  # fmt: skip


@draw_chart.register
def _arrows(chart: charts.Arrows, axes: Axes) -> None:
    _frame(axes, chart.x, chart.y)
    axes.grid(visible=False)
    low, high = chart.x.low, chart.x.high
    edge = np.geomspace(low, high, 200) if chart.x.kind == "log" else np.linspace(low, high, 200)
    axes.fill_between(edge, np.maximum(high - edge, chart.y.low), chart.y.high, color=FAINT, alpha=0.2, linewidth=0)
    axes.plot(edge, edge, color=INK, linewidth=0.9, linestyle=_DASHES["dashed"])
    width, height = axes.bbox.width, axes.bbox.height
    move = np.stack([np.asarray(chart.right, float) * width, np.asarray(chart.up, float) * height])
    length = np.hypot(*move)
    seen = length > 0
    move = move[:, seen] / length[seen]
    axes.quiver(
        np.asarray(chart.at_x)[seen], np.asarray(chart.at_y)[seen], *move, pivot="mid", units="dots", width=2.0,
        scale_units="dots", scale=1 / (0.64 * min(width, height) * _SPACING), angles="uv", headwidth=4, headlength=4.5,
        headaxislength=4, color=[color for color, shown in zip(chart.colors, seen, strict=True) if shown], zorder=2,
    )  # fmt: skip
    if len(chart.trail):
        across, up = np.array(chart.trail, float).T
        axes.plot(np.maximum(across, low), np.maximum(up, chart.y.low), color=INK, linewidth=2.2)
    _handles(axes, chart.handles)


@draw_chart.register
def _bars(chart: charts.Bars, axes: Axes) -> None:
    groups = len(chart.groups)
    end = _round_end(np.concatenate([np.zeros(1), *(np.ravel(bar.values) for bar in chart.bars)]))
    label = charts.Axis(chart.label, -end, end)
    _frame(axes, label, charts.Axis("", groups, 0))
    thick = 0.8 / max(len(chart.bars), 1)
    for at, bar in enumerate(chart.bars):
        places = np.arange(groups) + 0.1 + (at + 0.5) * thick
        axes.barh(places, bar.values, 0.9 * thick, label=written(bar.name), edgecolor=bar.color, linewidth=1,
                  facecolor="white" if bar.dashed else bar.color, hatch="////" if bar.dashed else None)  # fmt: skip
    axes.axvline(0, color=INK, linewidth=0.9)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_yticks(np.arange(groups) + 0.5, [written(name) for name in chart.groups])


@draw_chart.register
def _picture(chart: charts.Picture, axes: Axes) -> None:
    axes.set_axis_off()
    axes.imshow(mpimg.imread(io.BytesIO(chart.png), format="png"), aspect="auto", interpolation="antialiased")


def written(text: str) -> str:
    """Return a chart's text with its symbols typeset; a dollar sign is one, since the page knows no other notation."""
    return typeset(text.replace("$", r"\$"))


def draw_bar(chart: charts.Map, axes: Axes) -> None:
    """Draw a map's scale of colours into axes of its own, with ticks and its quantity to the right."""
    label = charts.Axis(chart.quantity, chart.low, chart.high, "log" if chart.logarithmic else "linear")
    shades = np.linspace(0, 1, 256)[:, None]
    axes.imshow(shades, extent=(0, 1, 0, 1), transform=axes.transAxes, origin="lower", aspect="auto",
                cmap=COLORS[chart.colors], norm=Normalize(0, 1))  # fmt: skip
    set_axes(axes, charts.Axis("", 0, 1), label, (2, tick_counts(axes)[1]))
    set_ticks(axes.xaxis, [])
    axes.grid(visible=False)
    axes.yaxis.tick_right()
    axes.yaxis.set_label_position("right")
    axes.set_ylabel(written(chart.quantity))
    axes.spines[:].set_visible(False)


def tick_counts(axes: Axes) -> tuple[int, int]:
    """Return about how many ticks have room along x and y."""
    across, up = axes.bbox.width / axes.figure.dpi, axes.bbox.height / axes.figure.dpi
    return max(2, int(across / 0.7)), max(2, int(up / 0.4))


def _frame(axes: Axes, x: charts.Axis, y: charts.Axis) -> None:
    set_axes(axes, x, y, tick_counts(axes))
    axes.set_xlabel(written(x.label))
    axes.set_ylabel(written(y.label))


def _curve(axes: Axes, curve: charts.Curve) -> None:
    alpha = 0.4 if curve.faint else None
    x, y = np.asarray(curve.x, float), np.asarray(curve.y, float)
    hollow = not curve.filled or curve.marker == "ring"
    alone = _alone(x, y) if curve.marker is None else []
    axes.plot(
        x, y, color=curve.color, linestyle=_DASHES[curve.dash] if curve.line else "none", alpha=alpha,
        marker=_MARKERS[curve.marker] if curve.marker else "o" if alone else None, markevery=alone or None,
        markersize=5.5 if curve.marker else 2.5, markerfacecolor="white" if hollow else curve.color,
        markeredgewidth=1.3, label="_faint" if curve.faint else written(curve.name), zorder=2 if curve.faint else 3,
    )  # fmt: skip
    if curve.low is not None and curve.high is not None:
        axes.fill_between(x, np.asarray(curve.low, float), np.asarray(curve.high, float), color=curve.color,
                          alpha=0.08 if curve.faint else 0.2, linewidth=0, zorder=1.5)  # fmt: skip


def _alone(x: np.ndarray, y: np.ndarray) -> list[int]:
    """Return the places of points between two gaps: a line does not show them."""
    there = np.concatenate([[False], np.isfinite(x) & np.isfinite(y), [False]])
    return np.flatnonzero(there[1:-1] & ~there[:-2] & ~there[2:]).tolist()


def _rule(axes: Axes, chart: charts.Curves, rule: charts.Rule) -> None:
    look = {"color": INK, "linewidth": 0.9, "linestyle": _DASHES[rule.dash], "zorder": 1}
    end = (0.99, 0.99)  # of the label, in shares of the axes
    if rule.x is not None and rule.y is not None:
        x, y = _slope(chart, rule.x, rule.y)
        axes.plot(x, y, label="_rule", **look)
        end = (float(share(x[-1], chart.x)), float(share(y[-1], chart.y))) if len(x) else end
    elif rule.x is not None:
        axes.axvline(rule.x, label="_rule", **look)
        end = (float(share(rule.x, chart.x)), 0.99)
    elif rule.y is not None:
        axes.axhline(rule.y, label="_rule", **look)
        end = (0.99, float(share(rule.y, chart.y)))
    if rule.label and 0 <= end[0] <= 1 and 0 <= end[1] <= 1:
        right, high = end[0] > 0.7, end[1] > 0.85
        _note(axes, end, rule.label, INK, frame=axes.transAxes, ha="right" if right else "left",
              va="top" if high else "bottom", offset=(-3 if right else 3, -2 if high else 2))  # fmt: skip


def _slope(chart: charts.Curves, x: float, y: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the part inside the axes of the line of slope 1 through (x, y), from left to right."""
    low, high = sorted((chart.x.low, chart.x.high))
    across = np.geomspace(low, high, 400) if chart.x.kind == "log" else np.linspace(low, high, 400)
    across = across if chart.x.low < chart.x.high else across[::-1]
    up = across + (y - x)
    least, most = sorted((chart.y.low, chart.y.high))
    inside = (up >= least - 1e-9) & (up <= most + 1e-9)
    return across[inside], up[inside]


def _handles(axes: Axes, handles: Iterable[charts.Handle]) -> None:
    for handle in handles:
        axes.plot(
            handle.x, handle.y, marker=_MARKERS[handle.shape], markersize=9, color=handle.color,
            markeredgecolor="white", markeredgewidth=1.2, label="_handle", clip_on=False, zorder=6,
        )  # fmt: skip


def _note(axes: Axes, at: tuple[float, float], text: str, color: str, *, ha: str, va: str,
          offset: tuple[float, float] = (0, 0), frame: Literal["data"] | Transform = "data") -> Text:  # fmt: skip
    return axes.annotate(
        written(text), at, offset, xycoords=frame, textcoords="offset points", color=color, ha=ha, va=va,
        fontsize="small", path_effects=_BESIDE, annotation_clip=True, zorder=7,
    )  # fmt: skip


def _norm(chart: charts.Map) -> Normalize:
    return (LogNorm if chart.logarithmic else Normalize)(chart.low, chart.high, clip=True)


def _over(centres: np.ndarray, axis: charts.Axis) -> charts.Axis:
    """Return the axis with its ends at the edges of the outer cells; as it is for a single cell, which has no edges."""
    if len(centres) < 2:
        return axis
    places = charts.even(np.asarray(centres, float), axis.kind)
    half = (places[-1] - places[0]) / (2 * (len(places) - 1))
    ends = np.array([places[0] - half, places[-1] + half])
    low, high = charts.uneven(ends, axis.kind).tolist()
    return replace(axis, low=low, high=high) if axis.low <= axis.high else replace(axis, low=high, high=low)


def _contour(axes: Axes, chart: charts.Map, level: charts.Level) -> None:
    if min(np.shape(chart.values)) < 2:
        return
    contours = contour_generator(chart.columns, chart.rows, np.ma.masked_invalid(chart.values))
    lines = cast("list[np.ndarray]", contours.lines(level.value))  # each (points, 2)
    if not lines:
        return
    gap = np.full((1, 2), np.nan)
    x, y = np.concatenate([part for line in lines for part in (line, gap)]).T
    halo = [patheffects.withStroke(linewidth=3, foreground="white", alpha=0.5)]
    axes.plot(x, y, color=level.color, linewidth=1.4, path_effects=halo, zorder=3)
    if level.label:
        longest = max(lines, key=len)
        across, up = longest[len(longest) // 2]
        _note(axes, (across, up), level.label, level.color, ha="center", va="center")


def _strike(axes: Axes, struck: np.ndarray) -> None:
    rows, columns = np.nonzero(struck)
    part = np.array([0.2, 0.8, np.nan])
    x, y = (columns[:, None] + part) / struck.shape[1], (rows[:, None] + part) / struck.shape[0]
    for width, color, alpha in ((2.4, "black", 0.3), (0.9, "white", 1.0)):
        axes.plot(x.ravel(), y.ravel(), color=color, alpha=alpha, linewidth=width, transform=axes.transAxes, zorder=4)


def _round_end(values: np.ndarray) -> float:
    """Return the least of 1, 2 and 5 times a power of ten that is not below any value's size; 1 where all are zero."""
    most = np.abs(values[np.isfinite(values)]).max(initial=0.0)
    if most == 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(most))
    return float(next(times for times in (1, 2, 5, 10) if times * power >= most * (1 - 1e-9)) * power)


def named(chart: charts.Chart) -> Sequence[str]:
    """Return the names of a chart's legend; none where there is nothing to tell apart."""
    if isinstance(chart, charts.Curves):
        names = [curve.name for curve in chart.curves if not curve.faint]
    elif isinstance(chart, charts.Bars):
        names = [bar.name for bar in chart.bars]
    else:
        names = []
    return names if len(names) >= 2 else []
