"""The figure of the engine's benchmark: ways beside each other, growth, memory."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FormatStrFormatter, NullLocator

from gradlab.plotting.looks import legend, style
from gradlab.plotting.looks import look as look_of
from scripts.benchmarks.engine_page import DTYPES, ONE_RUN_MS, SWEEP_NS

# Okabe and Ito's colours, from dark to light also in grey; every way has a marker and a line of its own.
WAYS: dict[str, dict[str, Any]] = {
    "loop": {"label": "autograd loop", "color": "#000000", "marker": "o", "linestyle": ""},
    "eager": {"label": "eager fit", "color": "#555555", "marker": "s", "linestyle": "-"},
    "jax": {"label": "JAX", "color": "#CC79A7", "marker": "D", "linestyle": "--"},
    "jax tuned": {"label": "JAX, tuned", "color": "#E69F00", "marker": "^", "linestyle": "-."},
    "fit": {"label": "fit with the engine", "color": "#56B4E9", "marker": "v", "linestyle": ":"},
    "engine": {"label": "bare engine", "color": "#0072B2", "marker": "p", "linestyle": "-"},
}
# Within one panel a precision is full marks or hollow ones.
FULL: dict[str, dict[str, Any]] = {
    "float64": {"color": "#0072B2", "linestyle": "-"},
    "float32": {"color": "#D55E00", "linestyle": "--", "markerfacecolor": "white"},
}
TARGET: dict[str, Any] = {"color": "#777777", "linestyle": "--", "linewidth": 1}
BOUND: dict[str, Any] = {"color": "#777777", "linestyle": ":", "linewidth": 1.2}


def draw(table: pd.DataFrame, quick: bool = False) -> Figure:
    """Draw the whole figure, from the rows of engine.csv."""
    with mpl.rc_context(style()):
        figure = Figure(figsize=(10.5, 6.6), layout="constrained")
        axes = figure.subplots(2, 3)
        _one_run(axes[0, 0], table)
        for axis, dtype in zip(axes[0, 1:], DTYPES, strict=True):
            _sweeps(axis, table, dtype)
        low = min(axis.get_ylim()[0] for axis in axes[0, 1:])
        high = max(axis.get_ylim()[1] for axis in axes[0, 1:])
        for axis in axes[0, 1:]:
            axis.set_ylim(low, high)
        _growth(axes[1, 0], table, {"responses": "o", "prompts": "^"}, "responses, or prompts")
        _growth(axes[1, 1], table, {"runs": "s"}, "runs")
        _memory(axes[1, 2], table)
        legend(figure, axes[0, 1])
        if quick:
            figure.text(0.5, 0.5, "quick: says nothing", ha="center", fontsize=24, rotation=20, alpha=0.4)
        return figure


def save(table: pd.DataFrame, path: str, quick: bool = False) -> None:
    """Write the figure as a PNG without date and versions."""
    with mpl.rc_context(style()):
        draw(table, quick).savefig(path, format="png", dpi=130, metadata={"Software": None})


def _one_run(axis: Axes, table: pd.DataFrame) -> None:
    part = table[table["part"] == "one run"]
    ways = [way for way in WAYS if (part["way"] == way).any()]
    losses = list(part["loss"].unique())
    for row in part.to_dict("records"):
        shown = look_of(row["loss"])
        height = ways.index(row["way"]) + 0.22 * (losses.index(row["loss"]) - (len(losses) - 1) / 2)
        face = shown["color"] if row["dtype"] == "float64" else "white"
        axis.plot(row["wall_seconds"] * 1e3, height, shown["marker"], color=shown["color"], mfc=face, markersize=5)
    axis.axvline(ONE_RUN_MS, **TARGET)
    axis.set(xscale="log", yticks=range(len(ways)), ylim=(len(ways) - 0.4, -0.6),
             title=f"One run, {part['steps'].iloc[0]:.0f} steps", xlabel="wall time, ms")  # fmt: skip
    axis.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axis.set_yticklabels([WAYS[way]["label"] for way in ways])
    marks = [Line2D([], [], color=look_of(loss)["color"], marker=look_of(loss)["marker"], linestyle="", markersize=5,
                    label=look_of(loss)["label"]) for loss in losses]  # fmt: skip
    marks += [Line2D([], [], color="#777777", marker="o", linestyle="", markersize=5, label="float64"),
              Line2D([], [], color="#777777", marker="o", mfc="white", linestyle="", markersize=5,
                     label="float32")]  # fmt: skip
    axis.legend(handles=marks, loc="lower right", handletextpad=0.1, borderpad=0.1)


def _sweeps(axis: Axes, table: pd.DataFrame, dtype: str) -> None:
    chosen = table["part"].isin(["one run", "sweep"]) & (table["loss"] == "bdpo") & (table["dtype"] == dtype)
    for way, look in WAYS.items():
        part = table[chosen & (table["way"] == way)].sort_values("runs")
        if not part.empty:
            axis.plot(part["runs"], part["wall_ns"], markersize=5, **look)
    axis.axhline(SWEEP_NS[dtype], **TARGET)
    axis.axhline(_sigmoid(table, dtype), **BOUND)
    axis.set(xscale="log", yscale="log", title=f"Balanced-DPO, {dtype}", xlabel="runs", ylabel="ns a slot and step")
    _plain(axis, table.loc[chosen, "runs"])
    axis.yaxis.set_major_formatter(FormatStrFormatter("%g"))


def _growth(axis: Axes, table: pd.DataFrame, marks: dict[str, str], label: str) -> None:
    for what, marker in marks.items():
        for dtype, look in FULL.items():
            part = table[(table["part"] == what) & (table["dtype"] == dtype)].sort_values(what)
            axis.plot(part[what], part["wall_ns"], marker=marker, markersize=5, label=f"{what}, {dtype}", **look)
    for dtype, look in FULL.items():
        axis.axhline(_sigmoid(table, dtype), **{**BOUND, "color": look["color"]})
    axis.set(xscale="log", title=f"Bare engine: {label}", xlabel=label, ylabel="ns a slot and step")
    axis.set_ylim(0, 1.4 * axis.get_ylim()[1])  # room for the legend
    axis.legend()
    _plain(axis, pd.concat([table.loc[table["part"] == what, what] for what in marks]))


def _memory(axis: Axes, table: pd.DataFrame) -> None:
    part = table[table["part"] == "memory"]
    for way in ("eager", "fit"):
        of_way = part[part["way"] == way].sort_values("runs")
        axis.plot(of_way["runs"], of_way["peak_mb"], markersize=5, **WAYS[way])
    axis.set(xscale="log", title="Peak memory, float64", xlabel="runs", ylabel="MB beyond the imports")
    axis.set_ylim(bottom=0)
    axis.legend()
    _plain(axis, part["runs"])


def _sigmoid(table: pd.DataFrame, dtype: str) -> float:
    """Return the bound per slot and step of 20 responses: one sigmoid per unordered pair."""
    sigmoid = table.loc[(table["way"] == "sigmoid") & (table["dtype"] == dtype), "wall_ns"].iloc[0]
    return sigmoid * (1 - 1 / 20) / 2


def _plain(axis: Axes, sizes: pd.Series) -> None:
    """Set ticks at the sizes that were measured."""
    axis.set_xticks(sorted(sizes.astype(int).unique()))
    axis.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axis.xaxis.set_minor_locator(NullLocator())
