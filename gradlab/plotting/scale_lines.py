"""How bDPO comes near to DPO at β/2, and to length weighting, over the number and the length of responses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gradlab.plotting.looks import WIDTH, interval, look
from gradlab.plotting.palette import FAINT, INK, SETTINGS

_MARKERS = "os^D"
_WAY = "distance, as a share of\nDPO at β/2's way from $π_{ref}$"


def halved(frame: pd.DataFrame, margin: float) -> Figure:
    """Draw how far bDPO ends from DPO at β/2 over L and over n, and how far its weights spread about ½ over L.

    frame: rows of the experiment *scale*, of one vocabulary.
    """
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    length, number, spread = figure.subplots(1, 3)
    equal = frame[(frame["kind"] == "sequences") & (frame["variation"] == 0)]
    responses = frame[frame["kind"] == "responses"]
    for axis, rows, over, label in ((length, equal, "length", "tokens of a response, L"),
                                    (number, responses, "responses", "responses of one token, n")):  # fmt: skip
        for method in ("bdpo", "dpo"):
            _line(axis, rows[rows["method"] == method], over, "to_half", **look(method))
        axis.axhline(margin, color=INK, linestyle="--", linewidth=1)
        axis.set(xscale="log", yscale="log", xlabel=label, ylim=(0.015, 1))
    length.set_ylabel(_WAY)
    number.tick_params(labelleft=False)
    under = equal[equal["method"] == "reference"]
    _line(spread, under, "length", "weight_sd", color=SETTINGS[0], marker="o", label="λ under $π_{ref}$")
    law = under.groupby("length")["weight_sd_law"].mean()
    spread.plot(law.index, law, color=INK, linestyle="--", label="the law")
    spread.set(xscale="log", yscale="log", xlabel="tokens of a response, L", ylabel="spread of λ about ½")
    spread.legend(loc="lower left")
    figure.legend(*length.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def by_lengths(frame: pd.DataFrame, margin: float) -> Figure:
    """Draw R² of λ on the loser's share of tokens, and how far bDPO ends from two losses, over the mean length.

    frame: rows of the experiment *scale*, of one vocabulary.
    """
    rows = frame[(frame["kind"] == "sequences") & (frame["variation"] > 0) & (frame["length_utility"] == 0)]
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    explained, away = figure.subplots(1, 2)
    for variation, colour, marker in zip(sorted(rows["variation"].unique()), SETTINGS, _MARKERS, strict=False):
        part = rows[rows["variation"] == variation]
        under, end = part[part["method"] == "reference"], part[part["method"] == "bdpo"]
        looks = {"color": colour, "marker": marker}
        _line(explained, under, "length", "explained", label=f"variation {variation:g}", **looks)
        law = under.groupby("length")["explained_law"].mean()
        explained.plot(law.index, law, color=colour, linestyle="--", linewidth=1)
        _line(away, end, "length", "to_length", label=f"variation {variation:g}", **looks)
        _line(away, end, "length", "to_half", linestyle="--", markerfacecolor="white", **looks)
    solid = Line2D([], [], color=INK, marker="o", markersize=4, label="from length-weighted DPO")
    dashed = Line2D([], [], color=INK, linestyle="--", marker="o", markersize=4, markerfacecolor="white",
                    label="from DPO at β/2")  # fmt: skip
    away.legend(handles=[solid, dashed], loc="lower left")
    away.axhline(margin, color=FAINT, linestyle=":", linewidth=1.5)
    explained.set(xscale="log", ylim=(0, 1.02), xlabel="mean tokens of a response",
                  ylabel="$R^2$ of λ on the share of tokens")  # fmt: skip
    away.set(xscale="log", yscale="log", xlabel="mean tokens of a response",
             ylabel="bDPO's distance, as a share\nof the other's way from $π_{ref}$")  # fmt: skip
    figure.legend(*explained.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def _line(axis: Axes, rows: pd.DataFrame, over: str, value: str, **looks: Any) -> None:
    """Draw means over seeds, with the band of their 95% t intervals."""
    found = [(at, run[value].to_numpy(float)) for at, run in rows.groupby(over)]
    at, means = np.array([x for x, _ in found]), np.array([points.mean() for _, points in found])
    low, high = np.array([interval(points) for _, points in found]).T
    axis.plot(at, means, **{"markersize": 4, **looks})
    axis.fill_between(at, np.maximum(low, 1e-9), high, color=looks["color"], alpha=0.2, linewidth=0)
