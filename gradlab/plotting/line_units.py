"""Figures of trainings on a line: how policies move with the coordinate, rewards at equal KL, and ever finer cells.

Intervals are 95% t intervals over seeds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradlab.plotting.looks import WIDTH, interval, legend, look
from gradlab.plotting.palette import INK, SETTINGS

_LEAST = 1e-17  # of a distance, on a logarithmic axis


def by_coordinate(frame: pd.DataFrame, methods: Sequence[str], home: str) -> Figure:
    """Draw distances from the policy trained in ``home``, and the weights of the first method, by coordinate.

    frame  columns case, method, coordinate, seed, distance, outside and turned. A column per case.
    """
    cases = list(dict.fromkeys(frame["case"]))
    names = [name for name in dict.fromkeys(frame["coordinate"]) if name != home]
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    axes = figure.subplots(2, len(cases), sharex=True, sharey="row", squeeze=False)
    for case, (upper, lower) in zip(cases, axes.T, strict=True):
        part = frame[frame["case"] == case]
        for place, method in enumerate(methods):
            shift = 0.14 * (place - (len(methods) - 1) / 2)
            of = part[(part["method"] == method) & (part["coordinate"] != home)]
            _dots(upper, of, "distance", names, shift, look(method)["label"], look(method)["color"],
                  look(method)["marker"], least=_LEAST)  # fmt: skip
        first = part[part["method"] == methods[0]]
        every = [home, *names]
        for value, label, color, marker, shift in (
            ("outside", "weights outside [0, 1]", SETTINGS[0], "^", -0.12),
            ("turned", "both log densities above 0", SETTINGS[1], "x", 0.12),
        ):
            _dots(lower, first, value, every, shift, label, color, marker, across=[-1, *range(len(names))])
        upper.set_yscale("log")
        upper.set_ylim(_LEAST / 3, 3)
        upper.set_yticks([1e-15, 1e-10, 1e-5, 1])
        upper.set_title(case.replace(", ", ",\n"))
        lower.set_xticks([-1, *range(len(names))], every, rotation=90)
    axes[0, 0].set_ylabel("distance from the\npolicy trained in y")
    axes[1, 0].set_ylabel("share of pairs\nunder bDPO")
    handles = [one for axis in axes[:, 0] for one in zip(*axis.get_legend_handles_labels(), strict=True)]
    figure.legend(*zip(*handles, strict=True), loc="outside upper center", ncols=3)
    return figure


def at_kl_levels(frame: pd.DataFrame, methods: Sequence[str], prefix: str) -> Figure:
    """Draw the share of the reachable utility at KL levels: a panel per case, a line per method.

    frame   columns case, method, kl, seed and utility_share.
    prefix  of the names of further methods, which are drawn thin, in colours from the first to the last.
    """
    cases = list(dict.fromkeys(frame["case"]))
    others = [name for name in dict.fromkeys(frame["method"]) if name.startswith(prefix)]
    figure = Figure(figsize=(WIDTH, 5.6), layout="constrained")
    axes = figure.subplots(2, -(-len(cases) // 2), sharex=True, sharey=True, squeeze=False)
    for case, axis in zip(cases, axes.flat, strict=False):
        part = frame[frame["case"] == case]
        for place, name in enumerate(others):
            color = _SHADES[place % len(_SHADES)]
            dash = ("-", "--", ":", "-.")[place % 4]
            _line(axis, part[part["method"] == name], name.replace("bdpo", "bDPO"), color, dash, "", band=False)
        for name in methods:
            shown = look(name)
            _line(axis, part[part["method"] == name], shown["label"], shown["color"], shown["linestyle"],
                  shown["marker"], band=True)  # fmt: skip
        axis.set_title(case)
    for axis in axes[-1]:
        axis.set_xlabel("KL from the reference (nats)")
    for axis in axes[:, 0]:
        axis.set_ylabel("share of the\nreachable utility")
    legend(figure, axes[0, 0])
    return figure


def towards_half(frame: pd.DataFrame) -> Figure:
    """Draw distances from DPO at β/2 against the number of cells: a panel for all cases, both axes logarithmic.

    frame  columns case, cells, seed and from_half.
    """
    figure = Figure(figsize=(5.4, 3.6), layout="constrained")
    axis = figure.subplots()
    cases = list(dict.fromkeys(frame["case"]))
    for place, case in enumerate(cases):
        part = frame[frame["case"] == case].pivot(index="cells", columns="seed", values="from_half").astype(float)
        low, high = interval(part.to_numpy(float))
        mean, across = part.mean(axis=1), np.log(part.index.to_numpy(float))
        axis.errorbar(
            across,
            mean,
            [mean - low, high - mean],
            color=_SHADES[2 * place % len(_SHADES)],
            capsize=2,
            linestyle=("-", "--", ":", "-.")[place % 4],
            marker="osD^"[place % 4],
            markersize=4,
            label=case,
        )
    cells = np.sort(frame["cells"].unique())
    last = frame[frame["cells"] == cells[-1]]["from_half"].mean()
    axis.plot(np.log(cells), last * np.log(cells[-1]) / np.log(cells), color=INK, linestyle=":", label="∝ 1/log n")
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xticks(np.log(cells), [f"{number:g}" if number < 1e4 else f"1e{np.log10(number):.0f}" for number in cells])
    axis.set_xticks([], minor=True)
    axis.set_xlabel("cells n (spaced by log log n)")
    axis.set_ylabel("distance from DPO at β/2")
    figure.legend(loc="outside upper center", ncols=2)
    return figure


_SHADES = ("#440154", "#46327E", "#365C8D", "#277F8E", "#1FA187", "#4AC16D", "#9FDA3A", "#D55E00", "#CC79A7")


def _dots(
    axis: Axes, rows: pd.DataFrame, value: str, names: Sequence[str], shift: float, label: str, color: str, marker: str,
    *, least: float = 0.0, across: Sequence[int] | None = None,
) -> None:  # fmt: skip
    """Draw the mean over seeds at each coordinate, with its interval."""
    table = rows.pivot(index="coordinate", columns="seed", values=value).reindex(list(names)).astype(float)
    low, high = interval(table.to_numpy(float))
    mean = table.mean(axis=1).to_numpy()
    shown = [np.maximum(one, least) for one in (mean, low, high)]
    places = np.asarray(range(len(names)) if across is None else across) + shift
    ends = [np.maximum(shown[0] - shown[1], 0), np.maximum(shown[2] - shown[0], 0)]
    axis.errorbar(
        places, shown[0], ends, color=color, marker=marker, markersize=4, linestyle="none", linewidth=1, label=label
    )


def _line(axis: Axes, rows: pd.DataFrame, label: str, color: str, dash: str, marker: str, *, band: bool) -> None:
    """Draw the means over seeds at the levels that at least half of the seeds reach."""
    table = rows.pivot(index="kl", columns="seed", values="utility_share")
    table = table[table.notna().sum(axis=1) >= max(2, len(table.columns) / 2)]
    if table.empty:
        return
    if band:
        low, high = interval(table.to_numpy(float))
        axis.fill_between(table.index, low, high, color=color, alpha=0.18, linewidth=0)
    axis.plot(table.index, table.mean(axis=1), color=color, linestyle=dash, marker=marker, markersize=4, label=label,
              linewidth=1.8 if band else 1.0)  # fmt: skip
