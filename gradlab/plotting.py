"""Figures from tidy frames: colour-blind safe, told apart in grey too, intervals shown, no global state.

Every function takes a frame and returns a ``Figure``; ``style()`` is a dict for ``matplotlib.rc_context``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from gradlab.artifacts import write_whole
from gradlab.intervals import bootstrap_interval

# Okabe and Ito's colours; line styles and markers differ too, so that print in grey loses nothing.
LOOK: dict[str, dict[str, Any]] = {
    "dpo": {"label": "DPO", "color": "#000000", "linestyle": "-", "marker": "o"},
    "bdpo": {"label": "bDPO", "color": "#D55E00", "linestyle": "-", "marker": "s"},
    "bdpo at 2β": {"label": "bDPO at 2β", "color": "#E69F00", "linestyle": "--", "marker": "D"},
    "nbdpo": {"label": "nbDPO", "color": "#009E73", "linestyle": "-.", "marker": "^"},
    "nbdpo symmetric": {"label": "nbDPO symmetric", "color": "#56B4E9", "linestyle": "-.", "marker": "v"},
    "fixed λ=0.4": {"label": "constant λ = 0.4", "color": "#BBBBBB", "linestyle": ":", "marker": "<"},
    "fixed λ=0.5": {"label": "constant λ = 0.5", "color": "#888888", "linestyle": ":", "marker": "P"},
    "fixed λ=0.6": {"label": "constant λ = 0.6", "color": "#555555", "linestyle": ":", "marker": ">"},
    "permuted λ": {"label": "permuted λ", "color": "#CC79A7", "linestyle": "--", "marker": "X"},
    "permuted |λ−½|": {"label": "permuted |λ − ½|", "color": "#882255", "linestyle": (0, (5, 1)), "marker": "d"},
    "ppo": {"label": "PPO", "color": "#0072B2", "linestyle": "-", "marker": "p"},
    "ppo oracle": {"label": "PPO, true utility", "color": "#0072B2", "linestyle": ":", "marker": "h"},
    "ideal": {"label": "theorem: π_ref exp(u/β)", "color": "#000000", "linestyle": ":", "marker": ""},
}


def style() -> dict[Any, Any]:
    """A fresh dict of settings for ``matplotlib.rc_context``; nothing global changes."""
    return {
        "font.size": 9, "axes.titlesize": 9, "axes.labelsize": 9, "legend.fontsize": 8, "figure.dpi": 110,
        "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "lines.linewidth": 1.6,
        "axes.grid": True, "grid.color": "#E6E6E6", "grid.linewidth": 0.6, "axes.axisbelow": True,
        "pdf.fonttype": 42, "image.cmap": "cividis", "savefig.bbox": None,
    }  # fmt: skip


def draw(make: Callable[[], Mapping[str, Figure]], folder: Path, mark: str | None = None) -> list[Path]:
    """Draw the figures that ``make`` gives and save each as PNG and PDF; equal frames give equal files.

    mark  a line to print across each figure, such as that it is only a quick run.
    """
    saved = []
    with mpl.rc_context(style()):
        for name, figure in make().items():
            if mark:
                figure.text(
                    0.5,
                    0.5,
                    mark,
                    ha="center",
                    va="center",
                    rotation=20,
                    fontsize=2 * figure.get_figwidth(),
                    color="#D55E00",
                    alpha=0.35,
                )
            for kind, metadata in (
                ("png", {"Software": None}),
                ("pdf", {"CreationDate": None, "Producer": None, "Creator": None}),
            ):
                file = folder / f"{name}.{kind}"

                def save(target: str, figure: Figure = figure, kind: str = kind, metadata: dict = metadata) -> None:
                    figure.savefig(target, format=kind, metadata=metadata, dpi=130)

                write_whole(file, save)
                saved.append(file)
    return saved


def look(method: str) -> dict[str, Any]:
    """How a method is drawn: label, colour, line style and marker; one without a look of its own gets a plain one."""
    if method in LOOK:
        return LOOK[method]
    if method.startswith("ppo "):  # PPO on other rewards
        return {**LOOK["ppo"], "label": method.replace("ppo", "PPO"), "marker": "o", "linestyle": "--"}
    return {"label": method, "color": "#7F3C8D", "linestyle": (0, (3, 1, 1, 1)), "marker": "H"}


def curves(
    frame: pd.DataFrame,
    values: Mapping[str, str],
    *,
    columns: str,
    methods: Sequence[str],
    split: str | None = None,
) -> Figure:
    """Values along training: a row a value (and a level of ``split``), a column a level of ``columns``.

    Lines are means over seeds, bands 95% bootstrap intervals.
    """
    levels = list(frame[columns].unique())
    rows = [(value, label, None) for value, label in values.items()]
    if split:
        rows = [
            (value, f"{label}\n({name} {split})", name) for value, label, _ in rows for name in frame[split].unique()
        ]
    figure = Figure(figsize=(2.6 * len(levels) + 0.8, 2.0 * len(rows) + 0.9), layout="constrained")
    axes = figure.subplots(len(rows), len(levels), squeeze=False, sharex=True, sharey="row")
    for (value, label, name), line in zip(rows, axes, strict=True):
        line[0].set_ylabel(label)
        for level, axis in zip(levels, line, strict=True):
            part = frame[(frame[columns] == level) & ((frame[split] == name) if split else True)]
            for method in methods:
                _band(axis, part[part["method"] == method], value, method)
            axis.set_xscale("symlog", linthresh=1)
            axis.set_xlim(left=0)
    for level, axis in zip(levels, axes[0], strict=True):
        axis.set_title(f"{columns} {level:g}" if isinstance(level, float) else f"{level}")
    for axis in axes[-1]:
        axis.set_xlabel("step")
    _legend(figure, axes[0, 0])
    return figure


def ends(
    frame: pd.DataFrame, value: Mapping[str, str], *, columns: str, rows: str, lines: Mapping[str, str] | None = None
) -> Figure:
    """One value at the end of training: a line a method, seeds as small dots, mean and 95% interval as a large one."""
    (name, label), *_ = value.items()
    methods = list(dict.fromkeys(frame["method"]))
    across, down = list(frame[columns].unique()), list(frame[rows].unique())
    figure = Figure(
        figsize=(2.5 * len(across) + 1.6, (0.22 * len(methods) + 0.6) * len(down) + 0.7), layout="constrained"
    )
    axes = figure.subplots(len(down), len(across), squeeze=False, sharey=True, sharex=True)
    spread = np.random.default_rng(0)
    for (row, level), axis in zip(itertools.product(down, across), axes.flat, strict=True):
        part = frame[(frame[rows] == row) & (frame[columns] == level)]
        for height, method in enumerate(methods):
            points = part.loc[part["method"] == method, name].to_numpy()
            if not len(points):
                continue
            colour, marker = look(method)["color"], look(method)["marker"]
            jitter = height + spread.uniform(-0.22, 0.22, len(points))
            axis.plot(points, jitter, ".", color=colour, alpha=0.35, markersize=3, linestyle="none")
            low, high = bootstrap_interval(points)
            mean = points.mean()
            axis.plot([low, high], [height, height], color=colour, linewidth=2.2, solid_capstyle="butt")
            axis.plot(
                mean, height, marker=marker, color=colour, markersize=4.5, markeredgecolor="white", markeredgewidth=0.6
            )
        for dash, (column, text) in zip((":", "--"), (lines or {}).items(), strict=False):
            axis.axvline(
                part.loc[part["method"] == methods[0], column].mean(),
                color="#444444",
                linestyle=dash,
                linewidth=1,
                label=text,
            )
        axis.set_title(f"{columns} {level:g}, {row} {rows}")
    axes[0, 0].set_yticks(range(len(methods)), [look(method)["label"] for method in methods])
    axes[0, 0].invert_yaxis()
    for axis in axes[-1]:
        axis.set_xlabel(label)
    if lines:
        _legend(figure, axes[0, 0])
    return figure


def trade(
    frame: pd.DataFrame, across: str, up: str, *, columns: str, rows: str, labels: tuple[str, str]
) -> Figure:  # fmt: skip
    """Two values of one run against each other, a cloud of seeds a method with its mean."""
    wide, high = list(frame[columns].unique()), list(frame[rows].unique())
    figure = Figure(figsize=(2.6 * len(wide) + 0.8, 2.2 * len(high) + 0.8), layout="constrained")
    axes = figure.subplots(len(high), len(wide), squeeze=False, sharex=True, sharey=True)
    for (row, level), axis in zip(itertools.product(high, wide), axes.flat, strict=True):
        part = frame[(frame[rows] == row) & (frame[columns] == level)]
        for method, points in part.groupby("method", sort=False):
            shown = look(str(method))
            axis.plot(points[across], points[up], ".", color=shown["color"], alpha=0.3, markersize=3)
            errors = [_errors(points[name].to_numpy()) for name in (across, up)]
            axis.errorbar(
                points[across].mean(), points[up].mean(), xerr=errors[0], yerr=errors[1], color=shown["color"],
                marker=shown["marker"], label=shown["label"], linestyle="none", markeredgecolor="white", linewidth=1,
            )  # fmt: skip
        axis.set_title(f"{columns} {level:g}, {row} {rows}")
    for axis in axes[-1]:
        axis.set_xlabel(labels[0])
    for axis in axes[:, 0]:
        axis.set_ylabel(labels[1])
    _legend(figure, axes[0, 0])
    return figure


def frontier(frame: pd.DataFrame, value: str, label: str) -> Figure:
    """A value against KL as β moves: a line a method through its means over seeds; the ring is β = 1."""
    masks = list(frame["mask"].unique())
    figure = Figure(figsize=(3.1 * len(masks) + 0.8, 3.6), layout="constrained")
    axes = figure.subplots(1, len(masks), squeeze=False, sharey=True, sharex=True)[0]
    for mask, axis in zip(masks, axes, strict=True):
        for method, runs in frame[frame["mask"] == mask].groupby("method", sort=False):
            shown = look(str(method))
            mean = runs.groupby("beta")[["kl", value]].mean().sort_index()
            spread = np.array([_errors(group[value].to_numpy()) for _, group in runs.groupby("beta")])[:, :, 0]
            axis.fill_between(mean["kl"], mean[value] - spread[:, 0], mean[value] + spread[:, 1], color=shown["color"],
                              alpha=0.15, linewidth=0)  # fmt: skip
            axis.plot(mean["kl"], mean[value], **shown, markersize=4)
            if 1.0 in mean.index and shown["marker"]:
                axis.plot(mean.loc[1.0, "kl"], mean.loc[1.0, value], "o", color=shown["color"], markersize=10,
                          markerfacecolor="none", markeredgewidth=1.4)  # fmt: skip
        axis.set_title(f"mask {mask:g}")
        axis.set_xlabel("KL to the reference (nats)")
    axes[0].set_ylabel(label)
    _legend(figure, axes[0])
    return figure


def scatter(frame: pd.DataFrame, across: str, up: str, *, labels: tuple[str, str]) -> Figure:
    """One value against another, a mark a row, ``up`` on a logarithmic axis."""
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axis = figure.subplots()
    for method, points in frame.groupby("method", sort=False):
        shown = look(str(method))
        axis.plot(points[across], points[up].clip(lower=1e-12), linestyle="none", color=shown["color"], alpha=0.85,
                  marker=shown["marker"], label=shown["label"])  # fmt: skip
    axis.set_yscale("log")
    axis.set_xlabel(labels[0])
    axis.set_ylabel(labels[1])
    _legend(figure, axis)
    return figure


def clouds(frame: pd.DataFrame, across: str, values: Mapping[str, str], *, label: str) -> Figure:
    """Each value against ``across``: a row a method, a column a value, with the diagonal and the least-squares line."""
    methods = list(dict.fromkeys(frame["method"]))
    figure = Figure(figsize=(2.5 * len(values) + 0.7, 2.3 * len(methods) + 0.5), layout="constrained")
    axes = figure.subplots(len(methods), len(values), squeeze=False, sharex=True, sharey=True)
    reach = float(np.nanquantile(frame[across].abs(), 0.995))
    for (method, value), axis in zip(itertools.product(methods, values), axes.flat, strict=True):
        part = frame.loc[frame["method"] == method, [across, value]].dropna()
        axis.plot(part[across], part[value], ".", color=look(method)["color"], alpha=0.15, markersize=3)
        ends = np.array([-reach, reach])
        axis.plot(ends, ends, color="#444444", linestyle="--", linewidth=1)
        slope, level = np.polyfit(part[across], part[value], 1)
        axis.plot(ends, slope * ends + level, color="#0072B2", linewidth=1.8)
        axis.annotate(f"slope {slope:.2f}", (0.04, 0.92), xycoords="axes fraction", color="#0072B2")
        axis.set_xlim(-reach, reach)
        axis.set_ylim(-reach, reach)
    for title, axis in zip(values.values(), axes[0], strict=True):
        axis.set_title(title, wrap=True, fontsize=8)
    for axis in axes[-1]:
        axis.set_xlabel(label)
    for method, axis in zip(methods, axes[:, 0], strict=True):
        axis.set_ylabel(f"{look(method)['label']}\nlog ratio winner : loser")
    return figure


def heatmaps(frame: pd.DataFrame) -> Figure:
    """One panel a world quantity and method; policies share one scale, and crosses mark unobserved responses."""
    panels = list(dict.fromkeys(frame["panel"]))
    grids = {
        name: part.pivot(index="prompt", columns="response", values="value") for name, part in frame.groupby("panel")
    }
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
    """Judged cells of several contrasts as maps: a row a contrast, a column a utility and mask, squares R × σ."""
    cells = pd.concat(contrasts.values())
    places = list(cells[["utility_kind", "mask"]].drop_duplicates().itertuples(index=False, name=None))
    reach = max(float(np.nanquantile(cells["effect"].abs(), 0.98)), 1e-6)
    norm = TwoSlopeNorm(0.0, -reach, reach)
    shapes = {
        kind: part[["scale", "sigma"]].drop_duplicates().fillna(0) for kind, part in cells.groupby("utility_kind")
    }
    ratios = [max(shapes[kind]["scale"].nunique(), 2) for kind, _ in places]
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


def _band(axis: Axes, runs: pd.DataFrame, value: str, method: str) -> None:
    """The mean over seeds at each step, with its 95% bootstrap interval as a band."""
    if runs.empty:
        return
    shown = look(method)
    steps, middle, low, high = [], [], [], []
    for step, group in runs.groupby("step"):
        points = group[value].to_numpy()
        ends = bootstrap_interval(points)
        steps.append(step)
        middle.append(points.mean())
        low.append(ends[0])
        high.append(ends[1])
    axis.fill_between(steps, low, high, color=shown["color"], alpha=0.18, linewidth=0)
    axis.plot(steps, middle, **shown, markersize=3)


def _errors(points: np.ndarray) -> np.ndarray:
    """Distances from the mean down and up to its 95% interval, (2, 1); zero with a single point."""
    low, high = np.nan_to_num(bootstrap_interval(points), nan=points.mean())
    return np.maximum([[points.mean() - low], [high - points.mean()]], 0)


def _legend(figure: Figure, axis: Axes) -> None:
    """One legend for the whole figure, above it, from one axis's entries."""
    handles, labels = axis.get_legend_handles_labels()
    rows = -(-len(labels) // max(1, int(figure.get_figwidth() / 1.5)))
    figure.legend(handles, labels, loc="outside upper center", ncols=-(-len(labels) // max(rows, 1)))
