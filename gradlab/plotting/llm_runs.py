"""Runs of language models: one panel per task, filled and hollow marks for sizes, a mark for every seed."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from gradlab.plotting.looks import WIDTH, interval, legend, look, two_digits
from gradlab.plotting.palette import INK, SETTINGS

_DASHES = ("-", "--", ":")  # of a method's runs
_LINE = {"color": INK, "linestyle": "--", "linewidth": 1}


def by_method(
    frame: pd.DataFrame, values: Mapping[str, str], *, tasks: Mapping[str, str], at: Mapping[str, float],
    far: Collection[str] = (),
) -> Figure:  # fmt: skip
    """Draw values at the end of training: one row per task, one column per value, one line per method.

    Each line has a mark per size of model. Small dots are seeds; a mark with a bar is their mean and its 95% t
    interval. A dashed line at ``at`` is the reference's value. The axes of values in ``far`` are logarithmic beyond 1
    and begin at 0, or at the least value.
    """
    methods, sizes = list(dict.fromkeys(frame["method"])), list(dict.fromkeys(frame["size"]))
    tall = 0.3 * len(methods) + 0.7
    figure = Figure(figsize=(min(3.4 * len(values) + 1.4, WIDTH), tall * len(tasks) + 0.5), layout="constrained")
    axes = figure.subplots(len(tasks), len(values), squeeze=False, sharey=True, sharex="col")
    for ((task, title), (value, label)), axis in zip(
        itertools.product(tasks.items(), values.items()), axes.flat, strict=True
    ):
        part = frame[frame["task"] == task]
        for (height, method), (turn, size) in itertools.product(enumerate(methods), enumerate(sizes)):
            points = part.loc[(part["method"] == method) & (part["size"] == size), value].to_numpy(float)
            if len(points):
                _mean(axis, points, height + 0.36 * ((turn + 0.5) / len(sizes) - 0.5), method, hollow=turn % 2 == 1)
        axis.axvline(at[value], **_LINE)
        if value in far:
            axis.set_xscale("symlog", linthresh=1)
            axis.xaxis.set_major_formatter(ScalarFormatter())
            axis.set_xlim(left=min(0.0, float(frame[value].min())))
        axis.set_title(f"{title}: {label}")
    axes[0, 0].set_yticks(range(len(methods)), [look(method)["label"] for method in methods])
    axes[0, 0].invert_yaxis()
    for axis, label in zip(axes[-1], values.values(), strict=True):
        axis.set_xlabel(label)
    for turn, size in enumerate(sizes):
        axes[0, 0].plot([], [], "o", color=INK, markerfacecolor="white" if turn % 2 else INK,
                        label=f"{size} parameters")  # fmt: skip
    legend(figure, axes[0, 0])
    return figure


def _mean(axis: Axes, points: np.ndarray, height: float, method: str, *, hollow: bool) -> None:
    shown = look(method)
    colour = shown["color"]
    axis.plot(points, np.full(len(points), height), ".", color=colour, alpha=0.35, markersize=3)
    axis.plot(interval(points), [height, height], color=colour,
              linewidth=1.6, solid_capstyle="butt")  # fmt: skip
    axis.plot(points.mean(), height, marker=shown["marker"], color=colour, markersize=5,
              markerfacecolor="white" if hollow else colour, markeredgecolor=colour, markeredgewidth=0.9)  # fmt: skip


def side_clouds(frame: pd.DataFrame, values: Mapping[str, str], *, tasks: Mapping[str, str]) -> Figure:
    """Draw log ratios of two sides against ``log_lose_win``, one dot per logged step, fainter for early steps.

    One row per task, one column per ratio. On the dashed diagonal the two are equal. Solid lines are least squares.
    """
    methods = list(dict.fromkeys(frame["method"]))
    figure = Figure(figsize=(min(3.6 * len(values) + 0.6, WIDTH), 2.7 * len(tasks) + 0.7), layout="constrained")
    axes = figure.subplots(len(tasks), len(values), squeeze=False)
    for ((task, title), (value, label)), axis in zip(
        itertools.product(tasks.items(), values.items()), axes.flat, strict=True
    ):
        part = frame.loc[frame["task"] == task, ["method", "step", "log_lose_win", value]].dropna()
        reach = 1.05 * float(part["log_lose_win"].abs().max())
        ends = np.array([-reach, reach])
        axis.plot(ends, ends, **_LINE)
        for turn, method in enumerate(methods):
            steps, shown = part[part["method"] == method], look(method)
            axis.scatter(steps["log_lose_win"], steps[value], s=11, color=shown["color"], marker=shown["marker"],
                         alpha=0.2 + 0.6 * steps["step"] / steps["step"].max(), linewidths=0)  # fmt: skip
            slope, level = np.polyfit(steps["log_lose_win"], steps[value], 1)
            axis.plot(ends, slope * ends + level, color=shown["color"], linewidth=1.4, marker=shown["marker"],
                      label=shown["label"])  # fmt: skip
            axis.annotate(f"{shown['label']}: slope {two_digits(slope)}", (0.04, 0.92 - 0.09 * turn),
                          color=shown["color"], xycoords="axes fraction")  # fmt: skip
        axis.set_xlim(*ends)
        high = max(1.05 * float(part[value].abs().max()), reach / 4)
        axis.set_ylim(-high, high)
        axis.set_title(f"{title}:\n{label}")
        axis.set_xlabel(r"$\log(\pi_l/\pi_w)$, mean of the batch")
    for axis in axes[:, 0]:
        axis.set_ylabel("log ratio winner : loser")
    legend(figure, axes[0, 0])
    return figure


def validation_losses(frame: pd.DataFrame, *, tasks: Mapping[str, str]) -> Figure:
    """Draw the validation loss along training, one line per run: one column per method, one row per task and size.

    Rows of a task share their axis. A ring marks where the column ``spike`` is true.
    """
    methods, sizes = list(dict.fromkeys(frame["method"])), list(dict.fromkeys(frame["size"]))
    places = list(itertools.product(tasks.items(), sizes))
    figure = Figure(figsize=(min(1.5 * len(methods) + 0.8, WIDTH), 1.45 * len(places) + 0.7), layout="constrained")
    axes = figure.subplots(len(places), len(methods), squeeze=False)
    first: dict[str, Axes] = {}
    for ((task, title), size), line in zip(places, axes, strict=True):
        for method, axis in zip(methods, line, strict=True):
            axis.sharex(first.setdefault(task, axis))
            axis.sharey(first[task])
            axis.tick_params(labelleft=axis is line[0], labelbottom=size == sizes[-1])
            chosen = (frame["task"] == task) & (frame["size"] == size) & (frame["method"] == method)
            _losses(axis, frame[chosen], method)
        line[0].set_ylabel(f"{title}\n{size} parameters")
    for method, axis, last in zip(methods, axes[0], axes[-1], strict=True):
        axis.set_title(look(method)["label"])
        last.set_xlabel("step")
    figure.supylabel("validation loss (nats)", fontsize="medium")
    return figure


def _losses(axis: Axes, runs: pd.DataFrame, method: str) -> None:
    """Draw the losses of one method's runs, with a ring at each spike."""
    colour = look(method)["color"]
    for (_, run), dash in zip(runs.groupby("seed"), itertools.cycle(_DASHES), strict=False):
        axis.plot(run["step"], run["validation_loss"], color=colour, linestyle=dash, linewidth=1.3)
        high = run[run["spike"]]
        axis.plot(high["step"], high["validation_loss"], "o", markerfacecolor="none", markersize=8,
                  markeredgewidth=1.3, color=INK)  # fmt: skip


def weights_by_length(
    frame: pd.DataFrame, *, tasks: Mapping[str, str], policies: Mapping[str, str], explained: pd.DataFrame
) -> Figure:
    """Draw λ_w of each held-out pair against the winner's share of tokens: one row per policy, one column per task.

    On the dashed line λ_w is the loser's share. ``explained`` has r2, one row per task, method and run.
    """
    sizes = list(dict.fromkeys(frame["size"]))
    figure = Figure(figsize=(min(3.1 * len(tasks) + 0.7, WIDTH), 2.7 * len(policies) + 0.7), layout="constrained")
    axes = figure.subplots(len(policies), len(tasks), squeeze=False, sharex=True, sharey=True)
    for ((method, policy), (task, title)), axis in zip(
        itertools.product(policies.items(), tasks.items()), axes.flat, strict=True
    ):
        part = frame[(frame["task"] == task) & (frame["method"] == method)]
        axis.plot([0, 1], [1, 0], **_LINE)
        for size, colour, marker in zip(sizes, SETTINGS, "o^s", strict=False):
            pairs = part[part["size"] == size]
            axis.plot(pairs["length_share"], pairs["weight"], linestyle="none", marker=marker, color=colour, alpha=0.3,
                      markersize=3.5, markeredgewidth=0, rasterized=True, label=f"{size} parameters")  # fmt: skip
        r2 = explained.loc[(explained["task"] == task) & (explained["method"] == method), "r2"].mean()
        axis.annotate(f"$R^2$ = {r2:.2f}", (0.06, 0.06), xycoords="axes fraction")
        axis.set(xlim=(0, 1), ylim=(0, 1), title=f"{title}, {policy}", aspect="equal")
    for axis in axes[-1]:
        axis.set_xlabel("winner's share of tokens")
    for axis in axes[:, 0]:
        axis.set_ylabel(r"$\lambda_w$")
    legend(figure, axes[0, 0])
    return figure
