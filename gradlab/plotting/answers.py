"""The answer on a claim at a glance: each comparison's average with its interval, its cells or worlds as dots.

One grammar for every claim: right of 0 speaks for the claim, the grey band is the margin within which differences do
not matter, and what could explain the effect away stands beneath it in the same units. Where the claim is that there is
no difference, the band speaks for it, and neither side does.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from gradlab.plotting.looks import WIDTH
from gradlab.plotting.palette import INK, STATES
from gradlab.streams import Purpose, stream

_SIDED = {state: state for state in STATES}
_UNSIDED = {**_SIDED, "for": "above", "against": "below"}
_LABEL = 34  # characters of a label in a line


@dataclass(frozen=True)
class Comparison:
    """A line of the figure.

    label    names the comparison.
    group    lines of one group stand together under it as a heading.
    effect, low, high  the average with its 95% interval.
    dots     the effect of each cell or world, (units,), and ``states``, one word each.
    counts   what to print at the right, such as "4 : 0 : 2 (1)".
    """

    label: str
    group: str
    effect: float
    low: float
    high: float
    dots: np.ndarray
    states: np.ndarray
    counts: str


@dataclass(frozen=True)
class Panel:
    """Comparisons in the same units: the label of their axis, the margin in its units, and the lines."""

    label: str
    margin: float
    lines: Sequence[Comparison]


def answers(panels: Sequence[Panel], *, no_difference: bool = False) -> Figure:
    """Draw the panels beneath each other.

    no_difference  of a claim that there is none: sides are named above and below, and not for and against.
    """
    words = _UNSIDED if no_difference else _SIDED
    heights = [_height(panel) for panel in panels]
    figure = Figure(figsize=(WIDTH, sum(heights) + 0.75 * len(panels) + 0.35), layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for panel, axis in zip(panels, axes, strict=True):
        _panel(axis, panel, words)
        label = panel.label or "without unit"
        axis.set_xlabel(label if no_difference else f"← against    {label}    for →")
    shown = {str(state) for panel in panels for line in panel.lines for state in line.states}
    handles = [
        _dots(axes[0], np.array([]), np.array([]), state, label=words[state]) for state in STATES if state in shown
    ]
    handles.append(axes[0].errorbar([], [], xerr=[], fmt="D", color="black", ms=5, capsize=3, label="average, 95%"))
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure


def _panel(axis: Axes, panel: Panel, words: Mapping[str, str]) -> None:
    axis.axvspan(-panel.margin, panel.margin, color="#E3E3E3", zorder=0)
    axis.axvline(0, color=INK, linewidth=0.8, zorder=1)
    spread, height, group = stream(0, Purpose.JITTER), 0.0, ""
    ticks, labels = [], []
    for line in panel.lines:
        if line.group != group:
            group, height = line.group, height + 0.25
            axis.annotate(group, (0.004, height), xycoords=("axes fraction", "data"), va="center", fontweight="bold")
            height += 0.95
        jitter = spread.uniform(-0.22, 0.22, len(line.dots)) if len(line.dots) > 1 else np.zeros(len(line.dots))
        for state in STATES:
            here = line.states == state
            _dots(axis, line.dots[here], height + jitter[here], state)
        if np.isfinite(line.low):
            error = [[line.effect - line.low], [line.high - line.effect]]
            axis.errorbar(line.effect, height, xerr=error, fmt="D", color="white", ecolor="white", ms=8, elinewidth=4.5)
            axis.errorbar(line.effect, height, xerr=error, fmt="D", color="black", ms=5, elinewidth=2, capsize=3)
        axis.annotate(line.counts, (1.01, height), xycoords=("axes fraction", "data"), va="center")
        ticks.append(height)
        labels.append("\n".join(textwrap.wrap(line.label, _LABEL)))
        height += _line_height(line)
    counts = "{for} : {none} : {against}\n({undecided})".format(**words)
    axis.annotate(counts, (1.01, 0.25), xycoords=("axes fraction", "data"), va="center", fontsize="small")
    axis.set_yticks(ticks, labels)
    axis.set_ylim(height - 0.4, -0.3)
    axis.grid(axis="y", visible=False)
    axis.xaxis.set_major_locator(MaxNLocator(6))


def _dots(axis: Axes, x: np.ndarray, y: np.ndarray, state: str, label: str = "") -> Line2D:
    color, marker, filled = STATES[state]
    size = 5 if len(x) < 30 else 3
    return axis.plot(
        x, y, linestyle="", marker=marker, markersize=size, alpha=0.75, color=color, label=label,
        markerfacecolor=color if filled else "none",
    )[0]  # fmt: skip


def _line_height(line: Comparison) -> float:
    """Return how much room a line takes, in lines of one row of text."""
    return max(1.0, 0.55 * len(textwrap.wrap(line.label, _LABEL)) + 0.25)


def _height(panel: Panel) -> float:
    """Return the height of a panel in inches."""
    lines = sum(map(_line_height, panel.lines))
    return 0.3 * (lines + 1.2 * len({line.group for line in panel.lines}))
