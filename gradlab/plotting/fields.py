"""Gradients of a pair as arrows over (π_w, π_l)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.quiver import Quiver

from gradlab.plotting.looks import WIDTH, look
from gradlab.plotting.palette import FAINT, INK, SIDES

_ROWS = {"pull": r"$-\partial L/\partial\pi$", "step": "a step on logits"}
_TICKS = (0, 0.5, 1)
_TIMES = (2, 4, 8)  # colours end where one side moves this many times as far as the other


def gradient_field(frame: pd.DataFrame) -> Figure:
    """Draw one column per loss: above −∂L/∂π, below the change in a real step.

    Arrows have one length; the colour says which side moves farther.

    frame: one row per loss and pair, with log_win, log_lose, and the winner's and the loser's part of both arrows.
    """
    losses = list(frame["loss"].unique())
    figure = Figure(figsize=(min(2.0 * len(losses), WIDTH), 5.3), layout="constrained")
    axes = figure.subplots(len(_ROWS), len(losses), squeeze=False, sharex=True, sharey=True)
    arrows = None
    for (arrow, label), line in zip(_ROWS.items(), axes, strict=True):
        for loss, axis in zip(losses, line, strict=True):
            arrows = _arrows(axis, frame[frame["loss"] == loss], arrow)
        line[0].set_ylabel(f"{label}\nπ_l")
    for loss, axis in zip(losses, axes[0], strict=True):
        axis.set_title(look(loss)["label"])
    for axis in axes[-1]:
        axis.set_xlabel("π_w")
    if arrows is not None:
        _side_bar(figure, arrows, axes)
    return figure


def _arrows(axis: Axes, part: pd.DataFrame, arrow: str) -> Quiver:
    """Draw the arrows of one panel, on the triangle π_w + π_l < 1 with its diagonal."""
    across, up = np.exp(part["log_win"]), np.exp(part["log_lose"])
    move = part[[f"{arrow}_win", f"{arrow}_lose"]].to_numpy()
    unit = move / np.hypot(*move.T)[:, None]
    axis.plot([0, 1, 0, 0], [0, 0, 1, 0], color=FAINT, linewidth=0.8)
    axis.plot([0, 0.5], [0, 0.5], color=INK, linewidth=0.8, linestyle="--")
    axis.set(xlim=(-0.04, 1.02), ylim=(-0.04, 1.02), aspect="equal", xticks=_TICKS, yticks=_TICKS)
    axis.set(xticklabels=("0", "½", "1"), yticklabels=("0", "½", "1"))
    axis.grid(visible=False)
    gap = np.diff(np.unique(across.round(9))).min(initial=1.0)
    reach = np.log2(_TIMES[-1])
    return axis.quiver(
        across, up, unit[:, 0], unit[:, 1], np.log2(np.abs(move[:, 0] / move[:, 1])), cmap=SIDES, pivot="mid",
        norm=Normalize(-reach, reach), angles="xy", units="xy", scale_units="xy", scale=1.1 / gap, width=0.16 * gap,
        headwidth=3.6, headlength=4, headaxislength=3.6,
    )  # fmt: skip


def _side_bar(figure: Figure, arrows: Quiver, axes: np.ndarray) -> None:
    """Draw the scale of colours, as winner : loser."""
    names = {0.0: "1 : 1"}
    for times in _TIMES:
        names |= {float(np.log2(times)): f"{times} : 1", -float(np.log2(times)): f"1 : {times}"}
    bar = figure.colorbar(
        arrows, ax=axes, location="bottom", shrink=0.6, aspect=40, extend="both", label="move of winner : loser"
    )
    bar.set_ticks(list(names), labels=list(names.values()))
