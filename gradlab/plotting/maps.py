"""Grids of cells as pictures: policies over prompts and responses."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gradlab.plotting.looks import WIDTH, look
from gradlab.plotting.palette import LEAST, policies

_ACROSS = 4  # panels of policies in a row


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
