"""Statements of the theory as maps: where they are true, and by how much."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import AsinhNorm, Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from gradlab.plotting.looks import WIDTH, legend, look
from gradlab.plotting.palette import FAINT, INK, NOT_TRUE, SIGNED, TRUE
from gradlab.streams import Purpose, stream

_PLACES = {  # where Theorem 3 puts the extrema of a weight
    "dpo": ("outside", "DPO: extrema\nof $w$ outside"),
    "balanced": ("inside", "balanced: extrema\nof $w\\cdot p$ inside"),
    "bdpo": ("inside", "bDPO: extrema\ninside"),
}
_PLACE_LINES = (-8.0, -4.0, -2.0, -1.0, -0.5, -0.25, 0.0, 0.5, 1.0, 2.0)  # σ_p
_WORST = r"not true  ←  worst extremum ($\sigma_p$)  →  true"
_PLACE_TICKS = (-8, -4, -2, -1, 0, 1, 2, 4, 8)
_VARIANCE_LINES = (-0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0)  # powers of ten

Columns = tuple[str, str, str]  # the columns on the x axis, on the y axis, and of the colour


def correction(pairs: pd.DataFrame, trainings: pd.DataFrame) -> Figure:
    """Draw the law of Balanced-DPO's correction, the share corrected along trainings, and λ of whole sequences.

    pairs      one row per pair of whole sequences: ``log_mean`` is the logarithmic mean of −log π_w and −log π_l,
               ``share`` the share of DPO's imbalance that Balanced-DPO takes away.
    trainings  one row per method, policy, seed and step, with medians of both over pairs.
    """
    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    law, along, length = figure.subplots(1, 3, width_ratios=[1.15, 1, 0.8])
    _law(law, trainings, pairs)
    _along(along, trainings)
    _lengths(length, pairs)
    legend(figure, along)
    return figure


def phases(frame: pd.DataFrame) -> Figure:
    """Draw one map per weight over distance and ratio of widths: by how much Theorem 3 is true or missed."""
    weights = [weight for weight in _PLACES if weight in set(frame["weight"])]
    figure = Figure(figsize=(WIDTH, 3.9), layout="constrained")
    axes = figure.subplots(1, len(weights), squeeze=False, sharex=True, sharey=True)[0]
    for weight, axis in zip(weights, axes, strict=True):
        part = frame[frame["weight"] == weight]
        place, title = _PLACES[weight]
        mesh = _mesh(axis, part, ("distance", "sigma_q", place), AsinhNorm(0.5, -12, 12), SIGNED)
        _lines(axis, part, ("distance", "sigma_q", place), _PLACE_LINES)
        _widths(axis, (0.25, 0.5, 1, 2, 4))
        axis.set_title(title)
        axis.set_xlabel(r"distance of the modes / $\sigma_p$")
        if axis is axes[0]:
            axis.set_ylabel(r"$\sigma_q\,/\,\sigma_p$")
            bar = figure.colorbar(mesh, ax=axes, location="bottom", shrink=0.6, aspect=40, label=_WORST)
            bar.set_ticks(_PLACE_TICKS, labels=[_signed(tick) for tick in _PLACE_TICKS])
            bar.minorticks_off()
    return figure


def variance_region(frame: pd.DataFrame) -> Figure:
    """Draw two maps over distance and σ_p, of Theorems 4–5 and of noise against signal; right: the Dirichlet draws."""
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=[1.9, 1])[0]
    axes = left.subplots(1, 2, sharex=True, sharey=True)
    region = frame[frame["family"] == "region"]
    names = {"log_ratio": r"Var$[w\,p]$ / (Var$[w]$ E$[p^2]$)", "log_noise": r"noise of $w\,p$ / noise of $w$"}
    for (name, title), axis in zip(names.items(), axes, strict=True):
        shown = region.assign(**{name: region[name] / np.log(10)})
        mesh = _mesh(axis, shown, ("distance", "sigma_p", name), Normalize(-1, 1), SIGNED.reversed())
        _lines(axis, shown, ("distance", "sigma_p", name), _VARIANCE_LINES)
        _widths(axis, (0.5, 1, 2, 4, 8))
        axis.set(title=title, xlabel="distance of the modes")
        if axis is axes[0]:
            axis.set_ylabel(r"$\sigma_p$ (responses)")
            left.colorbar(mesh, ax=axes, location="bottom", shrink=0.6, aspect=40, extend="both",
                          ticks=(-1, -0.5, 0, 0.5, 1), label=r"$\log_{10}$ of the ratio")  # fmt: skip
    _draws(right.subplots(), frame[frame["family"] == "dirichlet"])
    return figure


def _law(axis: Axes, trainings: pd.DataFrame, sequences: pd.DataFrame) -> None:
    """Draw the share corrected against LM: the law as a line; on it the trainings' start and ends, and sequences."""
    mean = np.geomspace(0.5, 300, 400)
    axis.plot(mean, 1 - np.abs(1 - 1 / mean), color=INK, linewidth=1.2)
    for shown, way in _ways(trainings):
        axis.plot(way["log_mean"].iloc[0], way["share"].iloc[0], marker="o", color=INK, markerfacecolor="white")
        axis.plot(way["log_mean"].iloc[-1], way["share"].iloc[-1], color=shown["color"], marker=shown["marker"],
                  markersize=5)  # fmt: skip
    middle = sequences["log_mean"].median(), sequences["share"].median()
    axis.plot(*middle, marker="D", color=INK, clip_on=False)
    axis.annotate("whole\nsequences", middle, (0, 8), textcoords="offset points", ha="center")
    axis.annotate("trainings", (4.5, 0.3), (4, 4), textcoords="offset points")
    axis.axvline(1, color=FAINT, linewidth=0.8, linestyle=":")
    axis.set(xscale="log", ylim=(0, 1.04), xlim=(0.5, 300), title="the law: 1 − |1 − 1/LM|",
             ylabel="share of the imbalance corrected",
             xlabel=r"LM of $-\log\pi_w$, $-\log\pi_l$ (nats)")  # fmt: skip
    axis.set_xticks((0.5, 1, 3, 10, 30, 100, 300), ("½", "1", "3", "10", "30", "100", "300"))
    axis.minorticks_off()


def _along(axis: Axes, trainings: pd.DataFrame) -> None:
    """Draw the share corrected over the steps of each training, mean over seeds."""
    for shown, way in _ways(trainings):
        axis.plot(way.index, way["share"], **shown, markersize=3.5)
    axis.set(xscale="symlog", ylim=(0, 0.5), title="along trainings in the lab", xlabel="step", xlim=(0, None))
    axis.set_xticks((0, 1, 10, 100, 500), ("0", "1", "10", "100", "500"))
    axis.minorticks_off()


def _ways(trainings: pd.DataFrame) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Yield the look of each training and its means over seeds, by step; shared parameters are dashed, with squares."""
    for (method, policy), rows in trainings.groupby(["method", "policy"], sort=False):
        free = policy == "free"
        shown = {"color": look(str(method))["color"], "marker": "o" if free else "s",
                 "linestyle": "-" if free else "--", "label": f"{look(str(method))['label']}, {policy}"}  # fmt: skip
        yield shown, rows.groupby("step")[["log_mean", "share"]].mean()


def _lengths(axis: Axes, pairs: pd.DataFrame) -> None:
    """Draw λ of whole sequences against the loser's share of tokens, one dot per pair."""
    axis.plot(pairs["length_share"], pairs["log_lose"] / (pairs["log_win"] + pairs["log_lose"]), marker=".",
              linestyle="none", color=look("bdpo")["color"], alpha=0.25, markersize=3, markeredgewidth=0,
              rasterized=True)  # fmt: skip
    axis.plot([0, 1], [0, 1], color=INK, linestyle="--", linewidth=1)
    axis.set(xlim=(0, 1), ylim=(0, 1), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1), title="whole sequences",
             xlabel="loser's share of tokens", ylabel=r"$\lambda_w$", box_aspect=1)  # fmt: skip


def _draws(axis: Axes, draws: pd.DataFrame) -> None:
    """Draw one dot per draw, one row per pair of concentrations and size, with the share where the theorem is true."""
    sizes = sorted(draws["n"].unique())
    spread = stream(0, Purpose.JITTER)
    names = {}
    for place, (pair, rows) in enumerate(draws.groupby(["alpha_p", "alpha_q"], sort=True)):
        names[place * (len(sizes) + 0.6) + (len(sizes) - 1) / 2] = "{:g}, {:g}".format(*pair)
        for line, (size, marker) in enumerate(zip(sizes, "o^sD", strict=False)):
            points = rows.loc[rows["n"] == size, "log_ratio"].to_numpy() / np.log(10)
            height = place * (len(sizes) + 0.6) + line
            jitter = height + spread.uniform(-0.3, 0.3, len(points))
            for true, colour in ((True, TRUE), (False, NOT_TRUE)):
                chosen = (points < 0) == true
                axis.plot(points[chosen], jitter[chosen], marker=marker, color=colour, alpha=0.6, markersize=2.6,
                          markeredgewidth=0, linestyle="none", rasterized=True)  # fmt: skip
            axis.text(1.02, height, f"{(points < 0).mean():.0%}", transform=axis.get_yaxis_transform(), va="center")
    for size, marker in zip(sizes, "o^sD", strict=False):
        axis.plot([], [], marker=marker, color=INK, markersize=3, linestyle="none", label=f"{size:g} responses")
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 0.99), ncols=2, handletextpad=0, columnspacing=1)
    axis.axvline(0, color="black", linewidth=1)
    axis.set_yticks(list(names), list(names.values()))
    axis.set(
        ylim=(max(names) + 1.2, -0.8), ylabel=r"Dirichlet $\alpha_p$, $\alpha_q$", xlabel=r"$\log_{10}$ of the ratio"
    )
    axis.grid(visible=False, axis="y")


def _mesh(axis: Axes, part: pd.DataFrame, columns: Columns, norm: Normalize, cmap: Colormap) -> QuadMesh:
    """Draw the frame's values as colours, smooth between them."""
    axis.grid(visible=False)
    return axis.pcolormesh(*_grid(part, columns), norm=norm, cmap=cmap, shading="gouraud", rasterized=True)


def _lines(axis: Axes, part: pd.DataFrame, columns: Columns, levels: tuple[float, ...]) -> None:
    """Draw lines of equal value with their values where there are any; at zero they are thicker."""
    across, up, values = _grid(part, columns)
    present = [level for level in levels if np.nanmin(values) < level < np.nanmax(values)]
    if not present:
        return
    widths = [0.6 if level else 1.5 for level in present]
    drawn = axis.contour(across, up, values, levels=present, colors="black", linewidths=widths, linestyles="-")
    axis.clabel(drawn, fontsize=8, fmt=_signed)


def _grid(part: pd.DataFrame, columns: Columns) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    across, up, value = columns
    wide = part.pivot(index=up, columns=across, values=value)
    return wide.columns.to_numpy(), wide.index.to_numpy(), wide.to_numpy()


def _widths(axis: Axes, ticks: tuple[float, ...]) -> None:
    """Make the y axis logarithmic, with ticks at readable widths."""
    axis.set_yscale("log")
    axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.yaxis.set_minor_formatter(NullFormatter())


def _signed(number: float) -> str:
    return f"{number:g}".replace("-", "−")
