"""Statements of the theory as maps: where they are true, and by how much."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import AsinhNorm, Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from gradlab.plotting.looks import WIDTH, look
from gradlab.plotting.palette import INK, NOT_TRUE, SIGNED, TRUE
from gradlab.streams import Purpose, stream

_SHARE = colormaps["cividis"].with_extremes(under=NOT_TRUE)
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


def correction(frame: pd.DataFrame) -> Figure:
    """Draw the share of DPO's imbalance that each loss takes away, one map per loss; right: bDPO on whole sequences.

    frame: one row per loss and pair; ``nearer`` is the share, ``balanced`` is positive where the sides are symmetric.
    """
    losses = list(frame["loss"].unique())
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=[2.5, 1])[0]
    axes = left.subplots(1, len(losses), squeeze=False, sharex=True, sharey=True)[0]
    for loss, axis in zip(losses, axes, strict=True):
        mesh = _corrected(axis, frame[(frame["loss"] == loss) & (frame["kind"] == "grid")])
        axis.set(title=look(loss)["label"], xlabel=r"$\log_{10}\,\pi_w$")
        if axis is axes[0]:
            axis.set_ylabel(r"$\log_{10}\,\pi_l$")
            left.colorbar(mesh, ax=axes, location="bottom", shrink=0.6, aspect=40,
                          label="share of DPO's imbalance taken away")  # fmt: skip
    above, below = right.subplots(2, 1)
    _sequences(above, below, frame[(frame["loss"] == "bdpo") & (frame["kind"] == "sequence")])
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
        axis.set_title(f"{title}\ntrue at {(part[place] >= 0).sum()} of {len(part)} points")
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


def _corrected(axis: Axes, part: pd.DataFrame) -> QuadMesh:
    """Draw one map of the correction, blank where there is nothing to correct, with the border of symmetry."""
    shown = part.assign(nearer=part["nearer"].where(part["imbalance"] > 0))
    mesh = _mesh(axis, shown, ("log10_win", "log10_lose", "nearer"), Normalize(0, 1), _SHARE, shading="nearest")
    # A line of |log ratio| = log(factor), drawn from the signed ratio, which has no kink on the diagonal.
    factor = float((part["balanced"] + part["log_prob_ratio"].abs()).mean())
    _lines(axis, part, ("log10_win", "log10_lose", "log_prob_ratio"), (-factor, factor), numbers=False)
    axis.set(aspect="equal", xticks=(-6, -4, -2), yticks=(-6, -4, -2))
    return mesh


def _sequences(above: Axes, below: Axes, pairs: pd.DataFrame) -> None:
    """Draw the share corrected against the mean −log π, and λ against the loser's share of tokens; one dot per pair."""
    dots = {"marker": ".", "linestyle": "none", "color": look("bdpo")["color"], "alpha": 0.25, "markersize": 3,
            "markeredgewidth": 0, "rasterized": True}  # fmt: skip
    above.plot(-(pairs["log_win"] + pairs["log_lose"]) / 2, pairs["nearer"], **dots)
    above.set(xscale="log", ylim=(-0.03, 1), xlabel=r"mean $-\log\pi$ (nats)", ylabel="share taken away")
    above.set_xticks((30, 100, 300), ("30", "100", "300"))
    above.minorticks_off()
    above.annotate(f"median {pairs['nearer'].median():.1%}", (0.5, 0.2), xycoords="axes fraction", ha="center")
    above.set_title("bDPO, whole sequences")
    below.plot(pairs["length_share"], pairs["log_lose"] / (pairs["log_win"] + pairs["log_lose"]), **dots)
    below.plot([0, 1], [0, 1], color=INK, linestyle="--", linewidth=1)
    below.set(xlim=(0, 1), ylim=(0, 1), xticks=(0, 0.5, 1), xlabel="loser's share of tokens", ylabel=r"$\lambda_w$")


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


def _mesh(
    axis: Axes,
    part: pd.DataFrame,
    columns: Columns,
    norm: Normalize,
    cmap: Colormap,
    shading: Literal["gouraud", "nearest"] = "gouraud",
) -> QuadMesh:
    """Draw the frame's values as colours, smooth between them, or as cells with shading ``nearest``."""
    axis.grid(visible=False)
    return axis.pcolormesh(*_grid(part, columns), norm=norm, cmap=cmap, shading=shading, rasterized=True)


def _lines(axis: Axes, part: pd.DataFrame, columns: Columns, levels: tuple[float, ...], numbers: bool = True) -> None:
    """Draw lines of equal value where there are any; at zero, and without numbers, they are thicker."""
    across, up, values = _grid(part, columns)
    present = [level for level in levels if np.nanmin(values) < level < np.nanmax(values)]
    if not present:
        return
    widths = [0.6 if numbers and level else 1.5 for level in present]
    drawn = axis.contour(across, up, values, levels=present, colors="black", linewidths=widths, linestyles="-")
    if numbers:
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
