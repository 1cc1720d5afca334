"""Values by sampler: one line per sampler, series side by side; and how fast trainings converge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from gradlab.plotting.looks import WIDTH, errors
from gradlab.plotting.palette import FAINT, INK


@dataclass(frozen=True)
class Series:
    """One kind of marks: its label and look.

    filled  False: the mark is hollow.
    """

    label: str
    color: str
    marker: str
    filled: bool = True


@dataclass(frozen=True)
class SamplerPanel:
    """One panel: a frame with ``sampler``, ``series`` and ``value``, a row per seed.

    title, label  above the panel, and of its axis.
    log     the axis is logarithmic; panels of one figure then share it.
    margin  differences within ± margin, or below it on a logarithmic axis, are in a grey band; None: there is no band.
    notes   by sampler, short words at the right end of its line.
    """

    frame: pd.DataFrame
    title: str
    label: str
    log: bool = False
    margin: float | None = None
    notes: Mapping[str, str] = field(default_factory=dict)


def by_sampler(
    panels: Sequence[SamplerPanel], samplers: Mapping[str, str], series: Mapping[str, Series], columns: int
) -> Figure:
    """Draw panels, one line per sampler from top to bottom: means over seeds with 95% t intervals.

    samplers  what each sampler is called, in the order of the lines.
    series    the marks of a line, in their order from top to bottom.
    columns   panels in a row.
    """
    rows = -(-len(panels) // columns)
    height = (0.085 * len(series) + 0.13) * len(samplers) * rows + 0.62 * rows + 0.55
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True, sharex=all(one.log for one in panels))
    for axis, panel in zip(axes.flat, panels, strict=False):
        _panel(axis, panel, list(samplers), series)
        axis.set_yticks(range(len(samplers)), list(samplers.values()))
        axis.set_ylim(len(samplers) - 0.5, -0.5)
    if all(panel.log for panel in panels):
        values = np.concatenate([panel.frame["value"] for panel in panels])
        low, high = np.nanmin(values) / 3, np.nanmax(values) * 3
        ticks = [10.0**power for power in range(-12, 3, 3) if low < 10.0**power < high]
        axes[0, 0].set_xlim(low, high * (high / low) ** (0.25 if panels[0].notes else 0.0))
        axes[0, 0].set_xticks(ticks)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    marks = [
        Line2D([], [], linestyle="", marker=one.marker, color=one.color, label=one.label,
               markerfacecolor=one.color if one.filled else "white", markersize=5)
        for one in series.values()
    ]  # fmt: skip
    wide = max(len(one.label) for one in series.values()) > 20
    figure.legend(handles=marks, loc="outside upper center", ncols=2 if wide else 4, handletextpad=0.2)
    return figure


def _panel(axis: Axes, panel: SamplerPanel, samplers: Sequence[str], series: Mapping[str, Series]) -> None:
    if panel.log:
        axis.set_xscale("log")
    else:
        axis.axvline(0, color=INK, linewidth=0.8)
        axis.xaxis.set_major_locator(MaxNLocator(4))
    if panel.margin is not None:
        axis.axvspan(1e-10 if panel.log else -panel.margin, panel.margin, color="#E9E9E9", zorder=0)
    spread = 0.36 if len(series) > 1 else 0.0
    offsets = np.linspace(-spread, spread, len(series))
    for line, sampler in enumerate(samplers):
        here = panel.frame[panel.frame["sampler"] == sampler]
        for (name, one), offset in zip(series.items(), offsets, strict=True):
            points = here.loc[here["series"] == name, "value"].to_numpy(float)
            points = points[np.isfinite(points)]
            if not len(points):
                continue
            ends = errors(points)
            if panel.log:
                ends[0] = np.minimum(ends[0], 0.9 * points.mean())
            axis.errorbar(points.mean(), line + offset, xerr=ends, marker=one.marker, color=one.color, markersize=4,
                          markerfacecolor=one.color if one.filled else "white", linewidth=1.1)  # fmt: skip
        if line:
            axis.axhline(line - 0.5, color=FAINT, linewidth=0.4)
        if sampler in panel.notes:
            axis.text(1.0, line, panel.notes[sampler], transform=axis.get_yaxis_transform(), ha="right", va="center",
                      color=INK)  # fmt: skip
    axis.grid(visible=False, axis="y")
    axis.tick_params(axis="y", length=0)
    axis.set_title(panel.title)
    axis.set_xlabel(panel.label)


def convergence(
    panels: Mapping[str, Mapping[str, pd.DataFrame]], looks: Mapping[str, Mapping[str, Any]], arrived: float
) -> Figure:
    """Draw KL against steps, the axis of KL logarithmic: one panel per title, one line per name.

    panels   by title, by name: a frame with ``step`` and ``kl``.
    looks    of each name: label, color, linestyle, and marker.
    arrived  KL at which a training counts as arrived.
    """
    figure = Figure(figsize=(WIDTH, 3.3), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axis, (title, lines) in zip(axes, panels.items(), strict=True):
        for name, rows in lines.items():
            axis.plot(rows["step"], np.maximum(rows["kl"], 1e-16), markevery=0.12, markersize=4, **looks[name])
        axis.axhline(arrived, color=INK, linestyle="--", linewidth=0.8)
        axis.set(yscale="log", xscale="symlog", xlabel="steps of gradient descent", ylim=(1e-14, 3), title=title)
        axis.set_xlim(left=0)
    axes[0].set_ylabel("KL from where it settles (nats)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure
