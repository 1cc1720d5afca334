"""Grids of cells as pictures: policies over prompts and responses, and verdicts over settings."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from gradlab.plotting.looks import WIDTH, look
from gradlab.plotting.palette import LEAST, SIGNED, policies

_ACROSS = 4  # panels of policies in a row
_WORLDS = {"gaussian-random": "random\ncentres", "log-gaussian": "log-\nGaussian", "gaussian": "Gaussian"}
_SIGNS = {"holds": "+", "fails": "−", "no difference": "="}


def heatmaps(frame: pd.DataFrame) -> Figure:
    """Draw one panel per world quantity and method; crosses mark unobserved responses.

    All policies, the reference and the ideal policy share one logarithmic scale.
    """
    panels = list(dict.fromkeys(frame["panel"]))
    parts = frame.groupby("panel")
    grids = {name: part.pivot(index="prompt", columns="response", values="value").to_numpy() for name, part in parts}
    names = {
        "utility": f"utility, {grids['utility'].min():.1f} to {grids['utility'].max():.1f} nats",
        "observed": "observed responses",
        "reference": r"reference $\pi_\mathrm{ref}$",
        "ideal": r"ideal $\pi_\mathrm{ref}\,e^{u/\beta}$",
    }
    down = -(-len(panels) // _ACROSS)
    figure = Figure(figsize=(WIDTH, 1.92 * down + 0.9), layout="constrained")
    axes = figure.subplots(down, _ACROSS, sharex=True, sharey=True, squeeze=False)
    hidden = np.argwhere(grids["observed"] == 0)
    norm = policies()
    shared = None
    for name, axis in itertools.zip_longest(panels, axes.flat):
        if name is None:
            axis.set_visible(False)
            continue
        policy = name not in ("utility", "observed")
        image = axis.imshow(grids[name], norm=norm if policy else None)
        axis.grid(visible=False)
        axis.set_title(names.get(name) or look(name)["label"])
        axis.set(xticks=(0, 5, 10, 15), yticks=(0, 5, 10, 15))
        if policy:
            shared = image
            for light, colour in ((False, "white"), (True, "black")):
                chosen = hidden[(norm(grids[name][tuple(hidden.T)]) > 0.6) == light]
                axis.plot(chosen[:, 1], chosen[:, 0], "x", color=colour, markersize=2.5, markeredgewidth=0.6)
    if shared is not None:
        bar = figure.colorbar(
            shared, ax=axes, location="bottom", shrink=0.6, aspect=40, extend="min", label=r"probability $\pi$"
        )
        bar.set_ticks([LEAST, 0.01, 0.05, 0.1, 1], labels=["≤ 0.001", "0.01", "0.05", "0.1", "1"])
        bar.minorticks_off()
    for axis in axes[:, 0]:
        axis.set_ylabel("prompt")
    for axis in axes[-1]:
        axis.set_xlabel("response")
    return figure


def verdict_map(contrasts: Mapping[str, pd.DataFrame], label: str) -> Figure:
    """Draw judged cells: one column per contrast, one row per kind of utility, one square per world.

    Squares lie over R and σ, once per mask rate; where a utility has no R or no σ, mask rates take their place.
    """
    cells = pd.concat(contrasts.values())
    reach = max(float(np.nanquantile(cells["effect"].abs(), 0.98)), 1e-6)
    norm = TwoSlopeNorm(0.0, -reach, reach)
    kinds = list(cells["utility_kind"].unique())
    first = next(iter(contrasts.values()))
    lines = [len(_squares(first[first["utility_kind"] == kind], "effect")) for kind in kinds]
    height = 0.235 * sum(lines) + 0.36 * len(kinds) + 0.9
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(len(kinds), len(contrasts), squeeze=False, height_ratios=lines)
    image = None
    for (title, table), column in zip(contrasts.items(), axes.T, strict=True):
        column[0].set_title(title)
        for kind, axis in zip(kinds, column, strict=True):
            part = table[table["utility_kind"] == kind]
            effects = _squares(part, "effect")
            image = axis.imshow(effects, cmap=SIGNED, norm=norm, aspect="auto")
            for place, verdict in np.ndenumerate(_squares(part, "verdict").to_numpy()):
                dark = abs(effects.to_numpy()[place]) > 0.5 * reach
                axis.text(place[1], place[0], _SIGNS.get(str(verdict), ""), ha="center", va="center_baseline",
                          color="white" if dark else "black")  # fmt: skip
            _named(axis, effects, _WORLDS.get(kind, kind) if axis is axes[kinds.index(kind), 0] else None)
    if image is not None:
        figure.colorbar(image, ax=axes, location="bottom", shrink=0.6, aspect=40, label=label)
    return figure


def _squares(part: pd.DataFrame, value: str) -> pd.DataFrame:
    """Return the worlds of one utility as a table: R across and mask with σ down, or masks in the place of either."""
    scaled, wide = part["scale"].notna().any(), part["sigma"].notna().any()
    down = (["mask"] if scaled else []) + (["sigma"] if wide else [])
    return part.pivot(index=down, columns="scale" if scaled else "mask", values=value)


def _named(axis: Axes, squares: pd.DataFrame, title: str | None) -> None:
    """Name the rows and columns of one panel; without a title, only the columns."""
    across = {"scale": "$R$", "mask": "mask"}[str(squares.columns.name)]
    axis.set_xticks(range(squares.shape[1]), [f"{value:g}" for value in squares.columns])
    axis.set_xlabel(across, labelpad=1)
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0, pad=2)
    steps = squares.index.get_level_values(0)
    blocks = len(squares.index.names) > 1
    for row in np.flatnonzero(steps[1:] != steps[:-1]) if blocks else ():
        axis.axhline(row + 0.5, color="white", linewidth=3)
    if title is None:
        axis.set_yticks([])
        return
    down = [squares.index.names[-1], *squares.index.get_level_values(-1)]
    axis.set_yticks(range(len(squares)), [f"{value:g}" for value in down[1:]])
    for mask in steps.unique() if blocks else ():
        axis.annotate(f"mask {mask:g}", (-0.2, float(np.flatnonzero(steps == mask).mean())), rotation=90, ha="center",
                      va="center", xycoords=("axes fraction", "data"))  # fmt: skip
    symbol = {"sigma": "σ", "mask": "mask"}[str(down[0])]
    axis.set_ylabel(f"{title}\n{symbol}", labelpad=14 if blocks else 4)
