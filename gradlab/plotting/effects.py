"""Effects of a comparison in many worlds: over a dose, with averages, intervals and controls beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.ticker import LogLocator, NullFormatter

from gradlab.plotting.looks import WIDTH
from gradlab.plotting.palette import FAINT, INK, STATES

_ACROSS = 3  # panels in a row
_DOSE = "dose: range of the utility over β (nats)"
_AVERAGES = "sDoX^v"  # markers of averages that stand side by side


@dataclass(frozen=True, eq=False)
class DosePanel:
    """One comparison: effects of worlds, and averages; positive effects speak for the method.

    worlds    a row per world: dose > 0, effect, and state: for, none, against or undecided. Empty: no worlds.
    by_dose   a row per bin of doses: dose, effect, low, high, as ``gradlab.stats.moderators.effect_by_dose`` gives it.
    averages  average with the ends of its interval, by label: the panel's own first, then those beside it.
    margin    effects within ± margin do not matter.
    unit      an effect times ``scale`` is so many of these.
    """

    worlds: pd.DataFrame
    by_dose: pd.DataFrame
    averages: Mapping[str, tuple[float, float, float]]
    margin: float
    unit: str
    scale: float = 1.0


def effect_by_dose(panels: Mapping[str, DosePanel]) -> Figure:
    """Draw one panel per comparison, by title: worlds as dots over their dose, the average by dose, and the margin.

    A panel with further averages takes a row, in which they stand to its right; the others stand side by side. All
    share the axis of doses, and those of one unit the axis of effects.
    """
    rows = _rows(panels)
    figure = Figure(figsize=(WIDTH, 0.9 + 2.2 * len(rows)), layout="constrained")
    grid = GridSpec(len(rows), 12, figure=figure)
    by_unit: dict[str, Axes] = {}
    first = None
    for down, titles in enumerate(rows):
        for across, title in enumerate(titles):
            one = panels[title]
            wide = 12 // len(titles) if len(one.averages) == 1 else 6
            place = grid[down, across * wide : (across + 1) * wide]
            axis = figure.add_subplot(place, sharex=first, sharey=by_unit.get(one.unit))
            first = first or axis
            by_unit.setdefault(one.unit, axis)
            _worlds(axis, one)
            axis.set_title(title)
            axis.set_ylabel(one.unit.replace(" of the ", "\nof the ") if across == 0 else "")
            axis.tick_params(labelleft=across == 0)
            if len(one.averages) > 1:
                _averages(figure.add_subplot(grid[down, wide:], sharey=axis), one)
    if first is not None:
        first.set_xscale("log")
        first.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        first.xaxis.set_major_formatter("{x:g}")
        first.xaxis.set_minor_formatter(NullFormatter())
        handles, _ = first.get_legend_handles_labels()
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), columnspacing=1.2)
    figure.supxlabel(_DOSE, fontsize=9)
    return figure


def _rows(panels: Mapping[str, DosePanel]) -> list[list[str]]:
    """Return the titles row by row: panels with further averages alone, the others up to three in a row."""
    rows: list[list[str]] = []
    for title, one in panels.items():
        alone = len(one.averages) > 1 or not rows or len(panels[rows[-1][0]].averages) > 1
        if alone or len(rows[-1]) == _ACROSS:
            rows.append([])
        rows[-1].append(title)
    return rows


def _margin(axis: Axes, one: DosePanel) -> None:
    reach = one.margin * one.scale
    axis.axhspan(-reach, reach, color=FAINT, alpha=0.35, linewidth=0, label="within the margin")
    axis.axhline(0, color=INK, linewidth=0.8)


def _worlds(axis: Axes, one: DosePanel) -> None:
    _margin(axis, one)
    for state, (colour, marker, filled) in STATES.items():
        at = one.worlds[one.worlds["state"] == state]
        axis.plot(at["dose"], at["effect"] * one.scale, marker, color=colour, markersize=3.5, linestyle="", alpha=0.75,
                  markerfacecolor=colour if filled else "none", markeredgewidth=0.8, label=state)  # fmt: skip
    by_dose = one.by_dose
    axis.errorbar(by_dose["dose"], by_dose["effect"] * one.scale, _reach(by_dose, one.scale), color="black",
                  marker="s", markersize=4, capsize=2.5, linewidth=1.4, elinewidth=1.4, zorder=3,
                  label="average by dose, 95%")  # fmt: skip


def _averages(axis: Axes, one: DosePanel) -> None:
    """Draw the averages with their intervals side by side, each with its label below and its number above."""
    _margin(axis, one)
    numbers = pd.DataFrame(one.averages.values(), columns=["effect", "low", "high"]) * one.scale
    for place, marker in zip(range(len(numbers)), _AVERAGES, strict=False):
        row = numbers.iloc[place : place + 1]
        axis.errorbar([place], row["effect"], _reach(row, 1.0), color="black", marker=marker, markersize=5, capsize=3,
                      linestyle="", markerfacecolor="black" if place == 0 else "white")  # fmt: skip
        axis.annotate(_number(row["effect"].iloc[0]), (place, 0.97), xycoords=("data", "axes fraction"), ha="center",
                      va="top")  # fmt: skip
    axis.set_xticks(range(len(numbers)), [label.replace(" − ", "\n− ") for label in one.averages])
    axis.set_xlim(-0.6, len(numbers) - 0.4)
    axis.tick_params(labelleft=False, length=0)
    axis.grid(visible=False, axis="x")
    axis.set_title("averages over worlds")


def _reach(rows: pd.DataFrame, scale: float) -> np.ndarray:
    """Return the distances from each effect to the ends of its interval, (2, rows); 0 where there is no interval."""
    ends = np.stack([rows["effect"] - rows["low"], rows["high"] - rows["effect"]])
    return np.maximum(np.nan_to_num(ends * scale), 0)


def _number(value: float) -> str:
    """Return a signed number with one decimal."""
    return f"{round(value, 1) + 0.0:+.1f}".replace("-", "−")
