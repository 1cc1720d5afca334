"""Grids of cells as pictures: policies over prompts and responses, and verdicts over settings."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from gradlab.plotting.looks import look


def heatmaps(frame: pd.DataFrame) -> Figure:
    """Draw one panel per world quantity and method; policies share one scale, and crosses mark unobserved responses."""
    panels = list(dict.fromkeys(frame["panel"]))
    parts = frame.groupby("panel")
    grids = {name: part.pivot(index="prompt", columns="response", values="value") for name, part in parts}
    low, high = grids["utility"].to_numpy().min(), grids["utility"].to_numpy().max()
    names = {
        "utility": f"utility u, {low:.1f} to {high:.1f} nats",
        "observed": "observed responses",
        "reference": "reference π_ref",
        "ideal": "ideal π_ref exp(u/β)",
    }
    across = 5
    down = -(-len(panels) // across)
    figure = Figure(figsize=(1.95 * across, 2.0 * down + 0.3), layout="constrained")
    axes = figure.subplots(down, across, sharex=True, sharey=True)
    probabilities = [grids[name] for name in panels if name not in ("utility", "observed")]
    top = max(float(grid.to_numpy().max()) for grid in probabilities)
    hidden = np.argwhere(grids["observed"].to_numpy() == 0)
    shared = None
    for name, axis in itertools.zip_longest(panels, axes.flat):
        if name is None:
            axis.set_visible(False)
            continue
        policy = name not in ("utility", "observed")
        image = axis.imshow(grids[name], cmap="cividis", vmin=0 if policy else None, vmax=top if policy else None)
        axis.grid(visible=False)
        axis.set_title(names.get(name) or look(name)["label"], fontsize=8)
        if policy:
            shared = image
            axis.plot(hidden[:, 1], hidden[:, 0], "x", color="white", markersize=2, alpha=0.5, markeredgewidth=0.5)
    if shared is not None:
        figure.colorbar(shared, ax=axes, shrink=0.5, label="probability")
    for axis in axes[:, 0]:
        axis.set_ylabel("prompt")
    for axis in axes[-1]:
        axis.set_xlabel("response")
    return figure


def verdict_map(contrasts: Mapping[str, pd.DataFrame], label: str) -> Figure:
    """Draw judged cells of several contrasts: one row per contrast, one column per utility and mask, squares R × σ."""
    cells = pd.concat(contrasts.values())
    places = list(cells[["utility_kind", "mask"]].drop_duplicates().itertuples(index=False, name=None))
    reach = max(float(np.nanquantile(cells["effect"].abs(), 0.98)), 1e-6)
    norm = TwoSlopeNorm(0.0, -reach, reach)
    scales = {kind: part["scale"].fillna(0).nunique() for kind, part in cells.groupby("utility_kind")}
    ratios = [max(scales[kind], 2) for kind, _ in places]
    figure = Figure(figsize=(0.3 * sum(ratios) + 2.2, 1.45 * len(contrasts) + 1.0), layout="constrained")
    axes = figure.subplots(len(contrasts), len(places), squeeze=False, width_ratios=ratios)
    image = None
    for (title, table), line in zip(contrasts.items(), axes, strict=True):
        for (kind, mask), axis in zip(places, line, strict=True):
            part = table[(table["utility_kind"] == kind) & (table["mask"] == mask)].fillna({"scale": 0, "sigma": 0})
            effects = part.pivot(index="sigma", columns="scale", values="effect")
            image = axis.imshow(effects, cmap="RdBu", norm=norm, aspect="auto")
            axis.grid(visible=False)
            marks = part.pivot(index="sigma", columns="scale", values="verdict").to_numpy()
            for (row, column), verdict in np.ndenumerate(marks):
                sign = {"holds": "+", "fails": "−", "no difference": "="}.get(verdict, "")
                dark = abs(effects.to_numpy()[row, column]) > 0.6 * reach
                axis.text(column, row, sign, ha="center", va="center", color="white" if dark else "black", fontsize=9)
            axis.set_xticks(range(effects.shape[1]), [f"{v:g}" if v else "–" for v in effects.columns], fontsize=6)
            axis.set_yticks(range(effects.shape[0]), [f"{v:g}" if v else "–" for v in effects.index], fontsize=6)
        line[0].set_ylabel(f"{title}\nσ", fontsize=8)
    for (kind, mask), axis in zip(places, axes[0], strict=True):
        name = {"gaussian-random": "random\ncentres", "log-gaussian": "log-\ngaussian"}.get(kind, kind)
        axis.set_title(f"{name}\nmask {mask:g}", fontsize=7)
    for axis in axes[-1]:
        axis.set_xlabel("R", fontsize=7)
    if image is not None:
        figure.colorbar(image, ax=axes, shrink=0.6, label=label)
    return figure
