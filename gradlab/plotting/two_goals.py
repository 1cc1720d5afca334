"""Gains of two goals: rows with intervals, curves over levels, maps with numbers, and gains against what was known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from gradlab.plotting.looks import WIDTH
from gradlab.plotting.palette import FAINT, INK, SETTINGS, SIGNED

GOAL_LOOKS = {  # colour, marker, line
    "harmless": (SETTINGS[1], "o", "-"),
    "helpful": (SETTINGS[0], "s", "--"),
}
_ACROSS = 4  # panels of levels in a row
_UNIT = "bDPO − DPO (points of the reachable reward)"


def goal_rows(panels: Mapping[str, pd.DataFrame], margin: float) -> Figure:
    """Draw one panel per title, side by side: a row per label with both goals' gains and their intervals.

    panels  frames with the columns ``label``, ``goal``, ``effect``, ``low``, ``high``, in points.
    margin  gains within ± margin do not matter, in points.
    """
    most = max(frame["label"].nunique() for frame in panels.values())
    figure = Figure(figsize=(WIDTH, 0.32 * most + 1.3), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for (title, frame), axis in zip(panels.items(), axes, strict=True):
        labels = list(dict.fromkeys(frame["label"]))
        axis.axvspan(-margin, margin, color=FAINT, alpha=0.3, linewidth=0)
        axis.axvline(0, color=INK, linewidth=0.8)
        for goal, shift in (("harmless", -0.15), ("helpful", 0.15)):
            rows = frame[frame["goal"] == goal].set_index("label").loc[labels]
            _intervals(axis, rows, np.arange(len(labels)) + shift, goal, across=True)
        axis.set_yticks(range(len(labels)), labels)
        axis.set_ylim(len(labels) - 0.5, -0.5)
        axis.grid(visible=False, axis="y")
        axis.set_title(title)
    figure.supxlabel(_UNIT, fontsize=9)
    _legend(figure, axes[0])
    return figure


def goal_levels(frame: pd.DataFrame, titles: Mapping[str, str], margin: float, logarithmic: Sequence[str]) -> Figure:
    """Draw one panel per property: both goals' gains over its levels; a ring marks the level of the other goal.

    frame   columns ``changed``, ``level``, ``usual`` (True at the other goal's level), ``goal``, ``effect``, ``low``,
            ``high``, in points.
    titles  of the panels, by property. logarithmic: the properties whose levels stand on a logarithmic axis.
    """
    down = math.ceil(len(titles) / _ACROSS)
    figure = Figure(figsize=(WIDTH, 1.9 * down + 0.9), layout="constrained")
    axes = figure.subplots(down, _ACROSS, squeeze=False, sharey=True)
    for (name, title), axis in zip(titles.items(), axes.flat, strict=False):
        axis.axhspan(-margin, margin, color=FAINT, alpha=0.3, linewidth=0)
        axis.axhline(0, color=INK, linewidth=0.8)
        for goal in GOAL_LOOKS:
            rows = frame[(frame["changed"] == name) & (frame["goal"] == goal)].sort_values("level")
            color, _, dash = GOAL_LOOKS[goal]
            axis.plot(rows["level"], rows["effect"], color=color, linestyle=dash, linewidth=1.2)
            _intervals(axis, rows, rows["level"].to_numpy(float), goal, across=False)
            usual = rows[rows["usual"]]
            axis.plot(usual["level"], usual["effect"], "o", color=INK, markersize=9, markerfacecolor="none")
        if name in logarithmic:
            axis.set_xscale("log")
            ticks = sorted(set(frame.loc[frame["changed"] == name, "level"]))
            axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axis.minorticks_off()
        axis.set_title(title)
    for axis in axes.flat[len(titles) :]:
        axis.set_visible(False)
    figure.supylabel("bDPO − DPO (points)", fontsize=9)
    _legend(figure, axes[0, 0])
    return figure


def goal_maps(maps: Mapping[str, pd.DataFrame], marked: pd.DataFrame, labels: tuple[str, str], reach: float) -> Figure:
    """Draw one map of numbers per title, side by side; ``marked`` cells have a frame.

    maps    tables of points: index up, columns across. marked: the same as booleans.
    labels  of the axes, across and up. reach: the ends of the colours, ± points.
    """
    figure = Figure(figsize=(WIDTH, 3.5), layout="constrained")
    axes = figure.subplots(1, len(maps), squeeze=False, sharey=True)[0]
    image = None
    for (title, table), axis in zip(maps.items(), axes, strict=True):
        values = table.to_numpy(float)
        image = axis.imshow(values, cmap=SIGNED, vmin=-reach, vmax=reach, origin="lower", aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            dark = abs(value) > 0.6 * reach
            axis.text(column, row, f"{value:+.1f}".replace("-", "−"), ha="center", va="center",
                      color="white" if dark else "black")  # fmt: skip
            if marked.to_numpy()[row, column]:
                axis.add_patch(Rectangle((column - 0.46, row - 0.46), 0.92, 0.92, fill=False, linewidth=2))
        axis.set_xticks(range(len(table.columns)), [f"{value:g}" for value in table.columns])
        axis.set_yticks(range(len(table.index)), [f"{value:g}" for value in table.index])
        axis.grid(visible=False)
        axis.set_title(title)
        axis.set_xlabel(labels[0])
    axes[0].set_ylabel(labels[1])
    if image is not None:
        figure.colorbar(image, ax=list(axes), label="bDPO − DPO (points)", extend="both")
    return figure


def goal_clouds(panels: Mapping[str, pd.DataFrame], labels: tuple[str, str], margin: float) -> Figure:
    """Draw one cloud of worlds per title: gains against a number that is known before training.

    panels  frames with the columns ``goal``, ``known``, ``effect``, in points.
    """
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharex=True, sharey=True)[0]
    for (title, frame), axis in zip(panels.items(), axes, strict=True):
        axis.axhspan(-margin, margin, color=FAINT, alpha=0.3, linewidth=0)
        axis.axhline(0, color=INK, linewidth=0.8)
        axis.axvline(0, color=INK, linewidth=0.8)
        for goal, (color, marker, _) in GOAL_LOOKS.items():
            rows = frame[frame["goal"] == goal]
            axis.plot(rows["known"], rows["effect"], marker, color=color, markersize=4, linestyle="", alpha=0.7,
                      markerfacecolor=color if goal == "harmless" else "none", label=goal)  # fmt: skip
        axis.set_title(title)
        axis.set_xlabel(labels[0])
    axes[0].set_ylabel(labels[1])
    _legend(figure, axes[0])
    return figure


def _intervals(axis: Axes, rows: pd.DataFrame, at: np.ndarray, goal: str, *, across: bool) -> None:
    """Draw gains with their intervals, along the x axis or the y axis."""
    color, marker, _ = GOAL_LOOKS[goal]
    reach = np.stack([rows["effect"] - rows["low"], rows["high"] - rows["effect"]])
    x, y = (rows["effect"], at) if across else (at, rows["effect"])
    axis.errorbar(x, y, xerr=reach if across else None, yerr=None if across else reach, color=color, marker=marker,
                  markersize=4.5, linestyle="", capsize=2, elinewidth=1.2,
                  markerfacecolor=color if goal == "harmless" else "white", label=goal)  # fmt: skip


def _legend(figure: Figure, axis: Axes) -> None:
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(handles))
