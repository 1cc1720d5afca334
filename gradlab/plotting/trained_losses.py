"""Every loss of the atlas in one picture: a map around DPO, and small multiples of its trade and of what moves it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter
from matplotlib.transforms import Bbox

from gradlab.plotting.looks import WIDTH
from gradlab.plotting.palette import FAINT, INK, SIGNED

_COLUMNS = 6
_REST = {"more": ("^", "above DPO's"), "same": ("o", "as DPO's"), "less": ("v", "below DPO's")}
_ANGLES = tuple(np.linspace(0, 2 * np.pi, 16, endpoint=False))
_REACHES = (10, 18, 28, 40, 55, 72, 92, 115)  # points from a place to the middle of its name


@dataclass(frozen=True)
class Place:
    """A loss on the map: its name, how it differs from DPO in nats (winner, loser), and a key of ``_REST``."""

    name: str
    win: float
    lose: float
    rest: str


def map_of_losses(places: Sequence[Place], near: float = 0.05) -> Figure:
    """Draw losses by what they do to loser (across) and winner (up), minus what DPO does, which is in the middle.

    near  nats up to which the axes are linear; farther out they are logarithmic.
    """
    figure = Figure(figsize=(WIDTH, 7.6))
    FigureCanvasAgg(figure)
    axis = figure.add_axes((0.1, 0.085, 0.875, 0.84))
    axis.set_xscale("asinh", linear_width=near)
    axis.set_yscale("asinh", linear_width=near)
    for side, values in ((axis.xaxis, [one.lose for one in places]), (axis.yaxis, [one.win for one in places])):
        side.set_major_locator(FixedLocator([sign * size for sign in (-1, 1) for size in (0.1, 1.0)] + [0.0]))
        side.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+.2g}".replace("-", "−") if value else "0"))
        _reach(axis, side is axis.xaxis, values)
    axis.axhline(0, color=FAINT, linewidth=0.8)
    axis.axvline(0, color=FAINT, linewidth=0.8)
    axis.plot(0, 0, "s", color="black", markersize=8, zorder=4)
    for kind, (marker, _) in _REST.items():
        here = [one for one in places if one.rest == kind]
        axis.plot([one.lose for one in here], [one.win for one in here], marker, color=INK, zorder=3, linestyle="",
                  markerfacecolor="white" if kind == "same" else INK, markersize=5)  # fmt: skip
    _name_all(figure, axis, [*places, Place("DPO", 0.0, 0.0, "same")])
    axis.set_xlabel("change of the loser's log π, minus DPO's (nats): ← pushed down more    pushed down less →")
    axis.set_ylabel("change of the winner's log π, minus DPO's (nats): ← lowered more    lowered less →")
    entries = [
        Line2D([], [], linestyle="", marker=marker, color=INK, markersize=5, label=f"all other responses: {words}",
               markerfacecolor="white" if kind == "same" else INK)
        for kind, (marker, words) in _REST.items()
    ]  # fmt: skip
    figure.legend(handles=entries, loc="upper center", ncols=3, columnspacing=1.2, handletextpad=0.3)
    return figure


def _reach(axis: Axes, across: bool, values: Sequence[float]) -> None:
    low, high = min([*values, -0.1]), max([*values, 0.1])
    (axis.set_xlim if across else axis.set_ylim)(low * 1.9, high * 1.9)


def _name_all(figure: Figure, axis: Axes, places: Sequence[Place]) -> None:
    """Write each name where it hides no other name and few places, with a thin line to its place."""
    points = [axis.transData.transform((one.lose, one.win)) for one in places]
    inside, taken = axis.get_window_extent(), list[Bbox]()
    scale = figure.dpi / 72
    crowd = [sum(np.hypot(*(point - other)) < 60 * scale for other in points) for point in points]
    for index in np.argsort(crowd)[::-1]:
        text = figure.text(0, 0, places[index].name)
        size = text.get_window_extent()
        half = np.array([size.width, size.height]) / 2
        best, cost = points[index], np.inf
        for reach, angle in itertools.product(_REACHES, _ANGLES):
            middle = points[index] + (reach * scale + half * [1, 0.3]) * [np.cos(angle), np.sin(angle)]
            box = Bbox([middle - half, middle + half])
            outside = not (inside.contains(*box.min) and inside.contains(*box.max))
            hidden = sum(box.padded(2 * scale).overlaps(other) for other in taken)
            covered = sum(box.padded(3 * scale).contains(*point) for point in points)
            crossed = sum(_crosses(points[index], middle, other) for other in taken)
            value = 1000 * outside + 100 * hidden + 12 * covered + 6 * crossed + reach / 10
            if value < cost:
                best, cost = middle, value
        text.remove()
        taken.append(Bbox([best - half, best + half]))
        arrow: dict[str, Any] = {"arrowstyle": "-", "color": FAINT, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 2}
        start, end = axis.transData.inverted().transform([points[index], best])
        axis.annotate(
            places[index].name, (start[0], start[1]), xytext=(end[0], end[1]), textcoords="data",
            ha="center", va="center", arrowprops=arrow, zorder=5,
            fontweight="bold" if places[index].name == "DPO" else "normal",
        )  # fmt: skip


def _crosses(start: np.ndarray, end: np.ndarray, box: Bbox) -> bool:
    """Return whether a line from ``start`` to ``end`` enters a box."""
    steps = np.linspace(0.1, 0.9, 9)[:, None]
    along = start + steps * (end - start)
    return bool(((along > box.min) & (along < box.max)).all(axis=1).any())


def trades(
    frame: pd.DataFrame, names: Mapping[str, str], value: str, label: str, published: pd.DataFrame,
    floor: float | None = None,
) -> Figure:  # fmt: skip
    """Draw a value against KL as β changes, one panel per loss, DPO grey in each.

    frame      a row per loss and β, in the order of β: ``loss``, ``kl`` and the value.
    names      what to call the losses, in the order of the panels; the first is DPO.
    published  a row per loss as published, which gets a ring.
    floor      the least value that is shown; a triangle at the lower edge stands for a lower one.
    """
    first, *others = names
    rows = -(-len(others) // _COLUMNS)
    height = 1.22 * rows + 0.95
    figure = Figure(figsize=(WIDTH, height))
    room = {"left": 0.085, "right": 0.99, "bottom": 0.48 / height, "top": 1 - 0.5 / height}
    axes = figure.subplots(rows, _COLUMNS, sharex=True, sharey=True, gridspec_kw={**room, "wspace": 0.1, "hspace": 0.3})
    axes = axes.ravel()
    dpo = frame[frame["loss"] == first]
    for axis, name in zip(axes, others, strict=False):
        axis.plot(dpo["kl"], dpo[value], color="#B5B5B5", linewidth=3.2, solid_capstyle="round")
        here, ring = (rows[rows["loss"] == name] for rows in (frame, published))
        axis.plot(here["kl"], here[value], color="#0072B2", linewidth=1.4, marker=".", markersize=4)
        axis.plot(ring["kl"], ring[value], color="black", marker="o", markersize=6, markerfacecolor="none",
                  linestyle="")  # fmt: skip
        _below(axis, here, value, floor, "#0072B2")
        _below(axis, ring, value, floor, "black")
        axis.set_title(names[name], pad=2)
    if floor is not None:
        axes[0].set_ylim(bottom=floor)
    for axis in axes[len(others) :]:
        axis.set_visible(False)
    for axis in axes[max(0, len(others) - _COLUMNS) : len(others)]:
        axis.tick_params(labelbottom=True)
    figure.supxlabel("KL from the reference (nats)", fontsize=9, y=0.1 / height)
    figure.supylabel(label, fontsize=9, x=0.008)
    entries = [
        Line2D([], [], color="#B5B5B5", linewidth=3.2, label=names[first]),
        Line2D([], [], color="#0072B2", linewidth=1.4, marker=".", label="this loss, over β"),
        Line2D([], [], color="black", marker="o", markersize=6, markerfacecolor="none", linestyle="",
               label="as published"),
    ]  # fmt: skip
    figure.legend(handles=entries, loc="upper center", ncols=3)
    return figure


def _below(axis: Axes, rows: pd.DataFrame, value: str, floor: float | None, color: str) -> None:
    lower = rows[rows[value] < floor] if floor is not None else rows[:0]
    axis.plot(lower["kl"], np.full(len(lower), floor), "v", color=color, markersize=5, clip_on=False)


def factor_table(frame: pd.DataFrame, label: str, most: float) -> Figure:
    """Draw numbers as a table with colours: a row per loss, a column per level of a factor; a gap stays white.

    frame  differences from DPO, with names of losses as index and (factor, level) as columns.
    label  what a number is; ``most`` gets the darkest colour.
    """
    values = frame.to_numpy(float)
    figure = Figure(figsize=(WIDTH, 0.185 * len(frame) + 1.0), layout="constrained")
    axis = figure.subplots()
    axis.imshow(np.ma.masked_invalid(values), cmap=SIGNED, vmin=-most, vmax=most, aspect="auto")
    for row, column in np.argwhere(np.isfinite(values)):
        value = float(values[row, column])
        dark = abs(value) > 0.62 * most
        said = f"{value:+.0f}".replace("-", "−") if round(value) else "0"
        axis.text(column, row, said, ha="center", va="center", color="white" if dark else "black")
    axis.set_yticks(range(len(frame)), list(frame.index))
    axis.set_xticks(range(len(frame.columns)), [level for _, level in frame.columns])
    axis.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    factors = [factor for factor, _ in frame.columns]
    for factor in dict.fromkeys(factors):
        there = [place for place, name in enumerate(factors) if name == factor]
        axis.annotate(factor, (np.mean(there), 0), xycoords=("data", "axes fraction"), xytext=(0, -5),
                      textcoords="offset points", ha="center", va="top", annotation_clip=False)  # fmt: skip
        axis.axvline(there[-1] + 0.5, color="white", linewidth=3)
    axis.grid(visible=False)
    for spine in axis.spines.values():
        spine.set_visible(False)
    figure.suptitle(label, fontsize=9)
    return figure
