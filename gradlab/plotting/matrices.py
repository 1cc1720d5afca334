"""Matrices of cosines with the policies that they belong to, and their means by family."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradlab.plotting.looks import WIDTH, errors, legend
from gradlab.plotting.palette import INK, SETTINGS

# The looks of kinds of parameters: fill and marker tell them apart in grey, too.
PARAMETERS: dict[str, dict[str, Any]] = {
    "free": {"label": "free logits", "marker": "o", "color": "#000000", "markerfacecolor": "#000000"},
    "shared": {"label": "shared parameters", "marker": "s", "color": SETTINGS[4], "markerfacecolor": "#FFFFFF"},
    "mlp": {"label": "small network", "marker": "^", "color": SETTINGS[0], "markerfacecolor": SETTINGS[5]},
}


_COSINE = r"cosine of the angle between $\nabla\pi(i)$ and $\nabla\pi(j)$"


def matrices(frame: pd.DataFrame, columns: Mapping[str, str]) -> Figure:
    """Draw cosines of ∇π_i and ∇π_j: one matrix per policy and kind of parameters, with the policy above it as bars.

    frame    one row per entry: ``policy``, ``parameters``, ``row``, ``column``, ``cosine`` and ``prob`` of the column.
    columns  which policies, with their titles.
    """
    down = [kind for kind in PARAMETERS if kind in set(frame["parameters"])]
    figure = Figure(figsize=(min(2.0 * len(columns), WIDTH), 2.75 * len(down) + 1.2), layout="constrained")
    axes = figure.subplots(len(down), len(columns), squeeze=False, sharex=True, sharey=True)
    image = None
    for (parameters, policy), axis in zip(itertools.product(down, columns), axes.flat, strict=True):
        part = frame[(frame["parameters"] == parameters) & (frame["policy"] == policy)]
        cosines = part.pivot(index="row", columns="column", values="cosine").to_numpy()
        # From dark through grey to light: a print without colour keeps the order, and so the sign.
        image = axis.imshow(cosines, cmap="cividis", vmin=-1, vmax=1)
        axis.grid(visible=False)
        mean = cosines[~np.eye(len(cosines), dtype=bool)].mean()
        place = "response $j$\n" if parameters == down[-1] else ""
        axis.set_xlabel(f"{place}mean off-diagonal {'−' if mean < 0 else '+'}{abs(mean):.2f}")
        title = f"{columns[policy]}\n" if parameters == down[0] else ""
        _bars(axis, part[part["row"] == 0]["prob"].to_numpy(), title)
    for parameters, axis in zip(down, axes[:, 0], strict=True):
        axis.set_ylabel(f"{PARAMETERS[parameters]['label']}\nresponse $i$")
    if image is not None:
        bar = figure.colorbar(image, ax=axes, location="bottom", shrink=0.6, aspect=40, label=_COSINE)
        bar.set_ticks([-1, -0.5, 0, 0.5, 1], labels=["−1", "−½", "0", "½", "1"])
    return figure


def family_means(
    frame: pd.DataFrame, panels: Mapping[str, str], lines: Sequence[str], mark: tuple[float, str]
) -> Figure:
    """Draw means by family: one panel per value, one line per level of a family, one mark per kind of parameters.

    Marks have 95% intervals.

    frame   one row per seed: the columns ``family``, ``line``, ``parameters``, and those of ``panels``.
    panels  columns of the frame with their titles.
    lines   the lines to draw, from the top.
    mark    a value to mark by a dotted line, and its name.
    """
    heights = _heights(frame, lines)
    figure = Figure(figsize=(min(2.1 * len(panels) + 1.6, WIDTH), 0.36 * len(lines) + 1.5), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True, sharex=True)[0]
    kinds = [kind for kind in PARAMETERS if kind in set(frame["parameters"])]
    offsets = np.linspace(-0.27, 0.27, len(kinds))
    for (value, title), axis in zip(panels.items(), axes, strict=True):
        axis.axvline(0, color=INK, linewidth=1.2)
        axis.axvline(mark[0], color=INK, linewidth=1.2, linestyle=":", label=mark[1])
        for kind, offset in zip(kinds, offsets, strict=True):
            rows = frame[frame["parameters"] == kind]
            points = [rows.loc[rows["line"] == line, value].to_numpy() for line in lines]
            axis.errorbar(
                [values.mean() for values in points], [heights[line] + offset for line in lines],
                xerr=np.hstack([errors(values) for values in points]), linestyle="none", linewidth=1.2, markersize=4.5,
                markeredgewidth=1, **PARAMETERS[kind],
            )  # fmt: skip
        axis.set_title(title)
        axis.set_xlabel(r"mean over $i \neq j$")
    axes[0].set_yticks(list(heights.values()), list(heights))
    axes[0].set_ylim(max(heights.values()) + 0.6, -0.6)
    legend(figure, axes[0])
    return figure


def _heights(frame: pd.DataFrame, lines: Sequence[str]) -> dict[str, float]:
    """Return the height of each line: one below the other, with a gap between families."""
    family = frame.drop_duplicates("line").set_index("line")["family"]
    gaps = [0.0, *(1.0 if family[line] == family[after] else 1.5 for line, after in itertools.pairwise(lines))]
    return dict(zip(lines, np.cumsum(gaps).tolist(), strict=True))


def _bars(axis: Axes, prob: np.ndarray, title: str) -> None:
    """Draw the policy as bars above its matrix, each panel on its own scale, with the title above both."""
    strip = axis.inset_axes((0, 1.03, 1, 0.17))
    strip.bar(np.arange(len(prob)), prob, color="#666666", width=0.8)
    strip.set_xlim(axis.get_xlim())
    strip.set_ylim(0, prob.max())
    strip.axis("off")
    strip.set_in_layout(False)  # its title stands above it anyway
    axis.set_title(f"{title}largest π {prob.max():.2f}", y=1.21, pad=2)
