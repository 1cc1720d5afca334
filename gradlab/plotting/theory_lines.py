"""Weights over the response axis, and how their extrema move as the grid is refined."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from gradlab.plotting.looks import WIDTH, legend, look
from gradlab.plotting.palette import BALANCED_WEIGHT, FAINT, INK, SETTINGS
from gradlab.theory import extrema

WEIGHTS = {"dpo": "DPO: $w$", "balanced": r"balanced: $w\cdot p$", "bdpo": "bDPO"}
_NAMES = {"policy": "$p$", "preference": "$q$"}
_CASE = ["sigma_p", "sigma_q", "distance"]
_SUPPORT = 20.0  # the drawn responses, with the modes around their centre
_REFINED = 4.0  # distance of the modes
_PAIRS = tuple(zip(SETTINGS, "os^DvX", ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1))), strict=True))


def weight_functions(frame: pd.DataFrame) -> Figure:
    """Draw one row per case: policy and preference, then each weight; lines for the finest grid, dots for the coarsest.

    frame: one row per case, grid (``n``), weight and response, with ``y`` and ``value``. Triangles are extrema.
    """
    cases = list(frame[_CASE].drop_duplicates().itertuples(index=False, name=None))
    columns = {
        ("policy", "preference"): "policy $p$, preference $q$",
        **{(name,): text for name, text in WEIGHTS.items()},
    }
    figure = Figure(figsize=(WIDTH, 1.6 * len(cases) + 1.0), layout="constrained")
    axes = figure.subplots(len(cases), len(columns), squeeze=False, sharex=True)
    for case, line in zip(cases, axes, strict=True):
        part = frame[(frame[_CASE] == list(case)).all(axis=1)]
        middle, half = _SUPPORT / 2, case[2] / 2
        for names, axis in zip(columns, line, strict=True):
            axis.axvspan(middle - half, middle + half, color="#E4E4E4", linewidth=0)
            _weights(axis, part[part["weight"].isin(names)], middle - half, middle + half)
        line[0].set(ylim=(-0.06, 1.2), yticks=(0, 0.5, 1))
        for axis in line[1:]:
            axis.set(ylim=(-1.2, 1.2), yticks=(-1, 0, 1))
        line[0].set_ylabel("σ_p = {:g}, σ_q = {:g}\ndistance {:g}".format(*case))
    for text, axis in zip(columns.values(), axes[0], strict=True):
        axis.set_title(text)
    for axis in axes[-1]:
        axis.set(xlabel="response $y$", xlim=(0, _SUPPORT), xticks=(0, 5, 10, 15, 20))
    sizes = sorted(frame["n"].unique())
    figure.legend(handles=_weight_key(sizes[0], sizes[-1]), loc="outside upper center", ncols=3)
    return figure


def refinement(frame: pd.DataFrame) -> Figure:
    """Draw one panel per weight: how far its lowest or highest point lies outside the modes, against the grid's size.

    frame: one row per grid (``n``, ∞ for the limit), pair of widths, distance and weight, with ``reach`` and ``cell``.
    """
    distances = frame["distance"].unique()
    near = distances[np.abs(distances - _REFINED).argmin()]
    part = frame[frame["distance"] == near].sort_values("n")
    sizes = sorted(part.loc[np.isfinite(part["n"]), "n"].unique())
    end = sizes[-1] * 4  # where ∞ is drawn
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    axes = figure.subplots(1, len(WEIGHTS), sharex=True, sharey=True)
    for (weight, text), axis in zip(WEIGHTS.items(), axes, strict=True):
        _refined(axis, part[part["weight"] == weight], end)
        axis.set(title=text, xscale="log", xlabel="responses on the grid")
        axis.set_yscale("symlog", linthresh=0.03, linscale=0.4)
        axis.set_xticks([*sizes, end], [*(f"{n:g}" for n in sizes), "∞"])
        axis.minorticks_off()
    axes[0].set_ylabel(f"reach outside [μ_p, μ_q]\n(responses), distance {near:g}")
    ticks = (0, 0.03, 0.1, 0.3, 1, 3, 10)
    axes[0].set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes[0].set_ylim(0, 13)
    legend(figure, axes[0])
    return figure


def _weights(axis: Axes, part: pd.DataFrame, low: float, high: float) -> None:
    """Draw the curves of one panel, scaled together on each grid, and the extrema of a weight."""
    finest, coarsest = part["n"].max(), part["n"].min()
    scaled = part.assign(value=part["value"] / part.groupby("n")["value"].transform(lambda value: value.abs().max()))
    for name, shown in _shown().items():
        curve, dots = (scaled[(scaled["weight"] == name) & (scaled["n"] == n)] for n in (finest, coarsest))
        if curve.empty:
            continue
        axis.plot(dots["y"], dots["value"], ".", color=shown["color"], markersize=4.5, alpha=0.6)
        axis.plot(curve["y"], curve["value"], **shown, linewidth=1.3)
        if name in WEIGHTS:
            _extrema(axis, curve, low, high, shown["color"], wanted_inside=name != "dpo")
        else:
            top = curve.loc[curve["value"].idxmax()]
            axis.annotate(_NAMES[name], (top["y"], top["value"]), (0, 4), ha="center", textcoords="offset points",
                          color=shown["color"])  # fmt: skip


def _extrema(axis: Axes, curve: pd.DataFrame, low: float, high: float, colour: str, *, wanted_inside: bool) -> None:
    """Draw one triangle per extremum, filled where Theorem 3 puts it."""
    for extremum in extrema(curve["y"], curve["value"]):
        true = (low <= extremum.position <= high) == wanted_inside
        axis.plot(extremum.position, extremum.value, "^" if extremum.kind == "maximum" else "v", markersize=6.5,
                  color=colour, markerfacecolor=colour if true else "white", clip_on=False, zorder=5)  # fmt: skip


def _weight_key(coarsest: float, finest: float) -> list[Line2D | Patch]:
    grey = INK
    return [
        Line2D([], [], color=grey, linewidth=1.3, label=f"{finest:g} responses"),
        Line2D([], [], color=grey, marker=".", linestyle="none", alpha=0.6, label=f"{coarsest:g} responses"),
        Line2D([], [], color=grey, marker="^", linestyle="none", label="extremum where Theorem 3 puts it"),
        Line2D([], [], color=grey, marker="^", linestyle="none", markerfacecolor="white", label="elsewhere"),
        Patch(color="#E4E4E4", linewidth=0, label="[μ_p, μ_q]"),
    ]


def _refined(axis: Axes, part: pd.DataFrame, end: float) -> None:
    """Draw lines over the grids, dashed to the limit, and the grey line of one cell."""
    for (sigma_p, sigma_q), (colour, marker, dash) in zip(_pairs(part), _PAIRS, strict=False):
        pair = part[(part["sigma_p"] == sigma_p) & (part["sigma_q"] == sigma_q)]
        n, reach = pair["n"].replace(np.inf, end).to_numpy(), pair["reach"].to_numpy()  # the limit comes last
        axis.plot(n[:-1], reach[:-1], color=colour, linestyle=dash, marker=marker, markersize=4,
                  label=f"σ_p = {sigma_p:g}, σ_q = {sigma_q:g}")  # fmt: skip
        axis.plot(n[-2:], reach[-2:], color=colour, linestyle=(0, (2, 2)), linewidth=1)
        axis.plot(n[-1], reach[-1], marker=marker, markersize=5, color=colour, markerfacecolor="white")
    cells = part[np.isfinite(part["n"])].drop_duplicates("n")
    axis.plot(cells["n"], cells["cell"], color=FAINT, linewidth=2.5, label="one cell")


def _pairs(part: pd.DataFrame) -> list[tuple[float, float]]:
    """Return three pairs of equal widths and three pairs of unequal widths."""
    widths = sorted(part["sigma_p"].unique())
    low, middle, high = widths[0], widths[(len(widths) - 1) // 2], widths[max(len(widths) - 2, 0)]
    pairs = [(low, low), (middle, middle), (high, high), (low, high), (high, low), (low, widths[-1])]
    return list(dict.fromkeys(pairs))


def _shown() -> dict[str, dict[str, Any]]:
    """Return the looks of densities and weights; a method's weight has its colour."""
    return {
        "policy": {"color": "#000000"}, "preference": {"color": "#777777", "linestyle": "--"},
        "balanced": {"color": BALANCED_WEIGHT}, **{name: {"color": look(name)["color"]} for name in ("dpo", "bdpo")},
    }  # fmt: skip
