"""Runs on a pretrained model along their looks: KL, both sides' log-probabilities and gradients; a line per method."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradlab.plotting.looks import WIDTH, interval, legend, look
from gradlab.plotting.palette import INK

REFERENCE = "reference"
_SIDE_AXIS, _SIDE_TICKS = (0.1, 10.0), (0.1, 0.2, 0.5, 1, 2, 5, 10)  # of R
_LINE = {"color": INK, "linestyle": "--", "linewidth": 1}
# A method at another β has its loss's colour and marker, and dashes of its own.
_BETAS = {"-half": (":", "β/2"), "-double": ("--", "2β")}


def paths_by_kl(
    frame: pd.DataFrame, values: Mapping[str, tuple[str, str]], *, tasks: Mapping[str, str]
) -> Figure:  # fmt: skip
    """Draw a value against KL along the looks, one panel per task; ``values`` has its column and label by task.

    frame  one row per task, method, seed and ``step``; the reference's rows begin each line, at a KL of 0.
    """
    figure, axes = _panels(tasks)
    for (task, title), axis in zip(tasks.items(), axes, strict=True):
        value, label = values[task]
        part = frame[frame["task"] == task]
        for method, runs in _with_start(part, {"kl": 0.0}):
            means = runs.groupby("step")[["kl", value]].mean()
            shown = _look(method)
            axis.plot(means["kl"], means[value], markersize=3.5, **shown)
            for _, looks in runs.groupby("step"):
                low, high = interval(looks[value].to_numpy(float))
                axis.plot([looks["kl"].mean()] * 2, [low, high], color=shown["color"], linewidth=0.8, alpha=0.5)
            end = means.iloc[-1]
            axis.plot(end["kl"], end[value], marker=shown["marker"], color=shown["color"], markersize=7)
        axis.set(title=title, xlabel="KL to the reference (nats)", ylabel=label)
    legend(figure, axes[0])
    return figure


def likelihoods(frame: pd.DataFrame, *, tasks: Mapping[str, str]) -> Figure:
    """Draw ``lose_moved`` against ``win_moved`` along the looks, one panel per task, means over seeds."""
    figure, axes = _panels(tasks)
    for (task, title), axis in zip(tasks.items(), axes, strict=True):
        part = frame[frame["task"] == task]
        for method, runs in _with_start(part, {"win_moved": 0.0, "lose_moved": 0.0}):
            means = runs.groupby("step")[["win_moved", "lose_moved"]].mean()
            axis.plot(means["win_moved"], means["lose_moved"], markersize=3.5, **_look(method))
        low, high = min(axis.get_xlim()[0], axis.get_ylim()[0]), max(axis.get_xlim()[1], axis.get_ylim()[1])
        axis.plot([low, high], [low, high], **_LINE)  # type: ignore[arg-type]
        axis.axvline(0, color=INK, linewidth=0.6)
        axis.set(title=title, xlabel="winners: log π − log π_ref (nats)", ylabel="losers: log π − log π_ref (nats)")
    legend(figure, axes[0])
    return figure


def sides(logs: pd.DataFrame, *, tasks: Mapping[str, str]) -> Figure:
    """Draw R = ‖g_w‖/‖g_l‖ along the steps, one panel per task, and shade where it leaves the band of −C and −1/C.

    logs  one row per task, method, seed and ``step``, with ``grad_norm_win``, ``grad_norm_lose`` and ``grad_cosine``.
    """
    figure, axes = _panels(tasks)
    logs = logs.assign(log_ratio=np.log(logs["grad_norm_win"] / logs["grad_norm_lose"]))
    for (task, title), axis in zip(tasks.items(), axes, strict=True):
        part = logs[logs["task"] == task]
        edge = (-part.groupby("step")["grad_cosine"].mean()).clip(lower=_SIDE_AXIS[0])
        for outer, inner in ((_SIDE_AXIS[0], edge), (_SIDE_AXIS[1], 1 / edge)):
            axis.fill_between(edge.index, outer, inner, color=INK, alpha=0.12, linewidth=0)
        for place, (method, runs) in enumerate(part.groupby("method", sort=False)):
            ratio = runs.pivot(index="step", columns="seed", values="log_ratio")
            shown, at = _look(str(method)), ratio.index + 2 * place  # side by side, so that no bar hides another
            low, high = interval(ratio.to_numpy(float))
            axis.plot(at, np.exp(ratio.mean(axis=1)), markersize=3.5, **shown)
            axis.vlines(at, np.exp(low), np.exp(high), color=shown["color"], linewidth=0.8, alpha=0.5)
        axis.axhline(1, **_LINE)  # type: ignore[arg-type]
        axis.set(title=title, xlabel="step", ylabel="R, the winners' gradient over the losers'", yscale="log")
        axis.set_yticks(_SIDE_TICKS, [f"{tick:g}" for tick in _SIDE_TICKS])
        axis.set_yticks([], minor=True)
        axis.set_ylim(*_SIDE_AXIS)
    legend(figure, axes[0])
    return figure


def _panels(tasks: Mapping[str, str]) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(min(4.0 * len(tasks), WIDTH), 4.1), layout="constrained")
    return figure, list(figure.subplots(1, len(tasks), squeeze=False)[0])


def _with_start(part: pd.DataFrame, start: Mapping[str, float]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield each method with its looks, the reference's before them."""
    begun = part[part["method"] == REFERENCE].assign(step=0, **start)
    for method, runs in part[part["method"] != REFERENCE].groupby("method", sort=False):
        yield str(method), pd.concat([begun[begun["seed"].isin(runs["seed"])], runs])


def _look(method: str) -> dict[str, Any]:
    """Return the look of a method: its loss's, with dashes of its own at another β."""
    for ending, (dashes, beta) in _BETAS.items():
        if method.endswith(ending):
            shown = look(method.removesuffix(ending))
            return {**shown, "linestyle": dashes, "label": f"{shown['label']} at {beta}"}
    return {**look(method), "linestyle": "-"}
