"""Runs as marks and lines: values along training, at its end, and against each other.

Intervals are 95% t intervals over seeds.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradlab.plotting.looks import WIDTH, errors, interval, legend, look, two_digits
from gradlab.plotting.palette import INK, SETTINGS
from gradlab.streams import Purpose, stream

_ACROSS = 3  # panels in a row


def curves(
    frame: pd.DataFrame, values: Mapping[str, str], *, columns: str, methods: Sequence[str], split: str | None = None
) -> Figure:
    """Draw values along training: one row per value (and level of ``split``), one column per level of ``columns``.

    Lines are means over seeds, bands 95% t intervals. More than three levels go on in further rows.
    """
    levels = list(frame[columns].unique())
    names = list(frame[split].unique()) if split else [None]
    across = min(len(levels), _ACROSS)
    blocks = [levels[first : first + across] for first in range(0, len(levels), across)]
    rows = [
        (value, f"{label}\n({name} {split})" if name else label, name, block)
        for block in blocks for value, label in values.items() for name in names
    ]  # fmt: skip
    figure = Figure(figsize=(min(2.6 * across + 0.8, WIDTH), 1.75 * len(rows) + 0.9), layout="constrained")
    axes = figure.subplots(len(rows), across, squeeze=False, sharex=True)
    first: dict[Any, Axes] = {}
    for (value, label, name, block), line in zip(rows, axes, strict=True):
        line[0].set_ylabel(label)
        for axis in line[len(block) :]:
            axis.set_visible(False)
        for level, axis in zip(block, line, strict=False):
            axis.sharey(first.setdefault((value, name), axis))
            axis.tick_params(labelleft=axis is line[0])
            part = frame[(frame[columns] == level) & ((frame[split] == name) if split else True)]
            for method in methods:
                _band(axis, part[part["method"] == method], value, method)
            axis.set_xscale("symlog", linthresh=1)
            axis.set_xlim(left=0)
            if (value, name) == (next(iter(values)), names[0]):
                axis.set_title(f"{columns} {level:g}" if isinstance(level, float) else f"{level}")
    for axis in axes[-1]:
        axis.set_xlabel("step")
    legend(figure, axes[0, 0])
    return figure


def ends(
    frame: pd.DataFrame, value: Mapping[str, str], *, columns: str, rows: str, lines: Mapping[str, str] | None = None
) -> Figure:
    """Draw one value at the end of training, one line per method: small dots are seeds, large marks are means."""
    (name, label), *_ = value.items()
    methods = list(dict.fromkeys(frame["method"]))
    across, down = list(frame[columns].unique()), list(frame[rows].unique())
    size = (min(2.2 * len(across) + 1.6, WIDTH), (0.22 * len(methods) + 0.6) * len(down) + 0.7)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(down), len(across), squeeze=False, sharey=True, sharex=True)
    spread = stream(0, Purpose.JITTER)
    for (row, level), axis in zip(itertools.product(down, across), axes.flat, strict=True):
        part = frame[(frame[rows] == row) & (frame[columns] == level)]
        for height, method in enumerate(methods):
            points = part.loc[part["method"] == method, name].to_numpy()
            if not len(points):
                continue
            colour, marker = look(method)["color"], look(method)["marker"]
            jitter = height + spread.uniform(-0.22, 0.22, len(points))
            axis.plot(points, jitter, ".", color=colour, alpha=0.35, markersize=3, linestyle="none")
            low, high = interval(points)
            mean = points.mean()
            axis.plot([low, high], [height, height], color=colour, linewidth=2.2, solid_capstyle="butt")
            axis.plot(mean, height, marker=marker, color=colour, markersize=4.5, markeredgecolor="white",
                      markeredgewidth=0.6)  # fmt: skip
        for dash, (column, text) in zip((":", "--"), (lines or {}).items(), strict=False):
            place = part.loc[part["method"] == methods[0], column].mean()
            axis.axvline(place, color=INK, linestyle=dash, linewidth=1, label=text)
        axis.set_title(f"{columns} {level:g}, {row} {rows}")
    axes[0, 0].set_yticks(range(len(methods)), [look(method)["label"] for method in methods])
    axes[0, 0].invert_yaxis()
    for axis in axes[-1]:
        axis.set_xlabel(label)
    if lines:
        legend(figure, axes[0, 0])
    return figure


def trade(frame: pd.DataFrame, across: str, up: str, *, columns: str, rows: str, labels: tuple[str, str]) -> Figure:
    """Draw two values of each run against each other: one cloud of seeds per method, with its mean."""
    wide, high = list(frame[columns].unique()), list(frame[rows].unique())
    figure = Figure(figsize=(min(2.6 * len(wide) + 0.8, WIDTH), 2.2 * len(high) + 0.8), layout="constrained")
    axes = figure.subplots(len(high), len(wide), squeeze=False, sharex=True, sharey=True)
    for (row, level), axis in zip(itertools.product(high, wide), axes.flat, strict=True):
        part = frame[(frame[rows] == row) & (frame[columns] == level)]
        for method, points in part.groupby("method", sort=False):
            shown = look(str(method))
            axis.plot(points[across], points[up], ".", color=shown["color"], alpha=0.3, markersize=3)
            bars = [errors(points[name].to_numpy()) for name in (across, up)]
            axis.errorbar(
                points[across].mean(), points[up].mean(), xerr=bars[0], yerr=bars[1], color=shown["color"],
                marker=shown["marker"], label=shown["label"], linestyle="none", markeredgecolor="white", linewidth=1,
            )  # fmt: skip
        axis.set_title(f"{columns} {level:g}, {row} {rows}")
    for axis in axes[-1]:
        axis.set_xlabel(labels[0])
    for axis in axes[:, 0]:
        axis.set_ylabel(labels[1])
    legend(figure, axes[0, 0])
    return figure


def frontier(frame: pd.DataFrame, value: str, label: str) -> Figure:
    """Draw a value against KL for many β: one line per method through its means over seeds; the ring is β = 1."""
    masks = list(frame["mask"].unique())
    figure = Figure(figsize=(min(2.9 * len(masks) + 0.8, WIDTH), 3.6), layout="constrained")
    axes = figure.subplots(1, len(masks), squeeze=False, sharey=True, sharex=True)[0]
    for mask, axis in zip(masks, axes, strict=True):
        for method, runs in frame[frame["mask"] == mask].groupby("method", sort=False):
            shown = look(str(method))
            mean = runs.groupby("beta")[["kl", value]].mean().sort_index()
            spread = np.array([errors(group[value].to_numpy()) for _, group in runs.groupby("beta")])[:, :, 0]
            axis.fill_between(mean["kl"], mean[value] - spread[:, 0], mean[value] + spread[:, 1], color=shown["color"],
                              alpha=0.15, linewidth=0)  # fmt: skip
            axis.plot(mean["kl"], mean[value], **shown, markersize=4)
            if 1.0 in mean.index and shown["marker"]:
                axis.plot(mean.loc[1.0, "kl"], mean.loc[1.0, value], "o", color=shown["color"], markersize=10,
                          markerfacecolor="none", markeredgewidth=1.4)  # fmt: skip
        axis.set_title(f"mask {mask:g}")
        axis.set_xlabel("KL to the reference (nats)")
    axes[0].set_ylabel(label)
    legend(figure, axes[0])
    return figure


def scatter(frame: pd.DataFrame, across: str, up: str, *, labels: tuple[str, str]) -> Figure:
    """Draw one value against another, one mark per row, ``up`` on a logarithmic axis."""
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axis = figure.subplots()
    for method, points in frame.groupby("method", sort=False):
        shown = look(str(method))
        axis.plot(points[across], points[up].clip(lower=1e-12), linestyle="none", color=shown["color"], alpha=0.85,
                  marker=shown["marker"], label=shown["label"])  # fmt: skip
    axis.set_yscale("log")
    axis.set_xlabel(labels[0])
    axis.set_ylabel(labels[1])
    legend(figure, axis)
    return figure


def clouds(frame: pd.DataFrame, across: str, values: Mapping[str, str], *, label: str) -> Figure:
    """Draw values against ``across``: one row per method, one column per value; with diagonal and regression line."""
    methods = list(dict.fromkeys(frame["method"]))
    figure = Figure(figsize=(min(2.5 * len(values) + 0.7, WIDTH), 1.95 * len(methods) + 0.8), layout="constrained")
    axes = figure.subplots(len(methods), len(values), squeeze=False, sharex=True, sharey=True)
    reach = float(np.nanquantile(frame[across].abs(), 0.995))
    for (method, value), axis in zip(itertools.product(methods, values), axes.flat, strict=True):
        part = frame.loc[frame["method"] == method, [across, value]].dropna()
        axis.plot(part[across], part[value], ".", color=look(method)["color"], alpha=0.15, markersize=3)
        ends = np.array([-reach, reach])
        axis.plot(ends, ends, color=INK, linestyle="--", linewidth=1)
        slope, level = np.polyfit(part[across], part[value], 1)
        axis.plot(ends, slope * ends + level, color=SETTINGS[0], linewidth=1.8)
        axis.annotate(f"slope {two_digits(slope)}", (0.04, 0.88), xycoords="axes fraction", color=SETTINGS[0])
        axis.set_xlim(-reach, reach)
        axis.set_ylim(-reach, reach)
    for title, axis in zip(values.values(), axes[0], strict=True):
        axis.set_title(textwrap.fill(title, 22))
    for axis in axes[-1]:
        axis.set_xlabel(label)
    for method, axis in zip(methods, axes[:, 0], strict=True):
        axis.set_ylabel(f"{look(method)['label']}\nlog ratio winner : loser")
    return figure


def _band(axis: Axes, runs: pd.DataFrame, value: str, method: str) -> None:
    """Draw the mean over seeds at each step, with its 95% t interval as a band."""
    if runs.empty:
        return
    shown = look(method)
    points = runs.assign(run=runs.groupby("step").cumcount()).pivot(index="step", columns="run", values=value)
    low, high = interval(points.to_numpy(float))
    axis.fill_between(points.index, low, high, color=shown["color"], alpha=0.18, linewidth=0)
    axis.plot(points.index, points.mean(axis=1), **shown, markersize=3)
