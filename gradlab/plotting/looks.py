"""The look of all figures, and saving them: one look per method, no global settings, equal files for equal frames.

A figure is at most ``WIDTH`` inches wide. GitHub shows it at about 800 pixels, where text of 9 points has 12 pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradlab.plotting.symbols import typeset_all
from gradlab.stats.equivalence import mean_of
from gradlab.store.files import write_whole

if TYPE_CHECKING:
    from gradlab.losses import KnownLoss

WIDTH = 8.0  # of a figure, in inches
_DPI = 150

# Methods that are not pair losses; ``add_looks`` adds those of an experiment's controls. Okabe and Ito's colours;
# line styles and markers differ too, so that a print in grey can be read.
LOOK: dict[str, dict[str, Any]] = {
    "ppo": {"label": "PPO", "color": "#0072B2", "linestyle": "-", "marker": "p"},
    "ppo oracle": {"label": "PPO, true utility", "color": "#0072B2", "linestyle": ":", "marker": "h"},
    "ideal": {"label": r"theorem: $\pi_\mathrm{ref}\,e^{u/\beta}$", "color": "#000000", "linestyle": ":", "marker": ""},
}

# None leaves an entry out: dates and versions would make equal drawings different files.
_METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
}
KINDS = tuple(_METADATA)  # of files


def look(method: str) -> dict[str, Any]:
    """Return the look of a method: label, colour, line style and marker.

    method  a registered loss, which has these facts as fields; a name in ``LOOK``; "ppo" and the reward that it
            learns from; any other method gets a plain look.
    """
    if method in LOOK:
        return LOOK[method]
    if method.startswith("ppo "):  # PPO on other rewards
        return {**LOOK["ppo"], "label": method.replace("ppo", "PPO"), "marker": "o", "linestyle": "--"}
    from gradlab.losses import PAIR_LOSSES, facts  # not at the top: torch takes seconds

    if method in PAIR_LOSSES:
        return look_of(PAIR_LOSSES[method]())
    return {"label": method, **facts.PLAIN._asdict()}


def look_of(loss: KnownLoss) -> dict[str, Any]:
    """Return the look of a loss, from its fields."""
    return {"label": loss.label, **loss.look._asdict()}


def add_looks(looks: Mapping[str, Mapping[str, Any]]) -> None:
    """Add methods that are not in the registry of losses, such as controls: label, color, linestyle and marker."""
    LOOK.update({name: dict(shown) for name, shown in looks.items()})


def style() -> dict[Any, Any]:
    """Return a fresh dict of settings for ``matplotlib.rc_context``; nothing global changes."""
    return {
        "font.size": 9, "axes.titlesize": 9, "axes.labelsize": 9, "legend.fontsize": 9, "figure.dpi": 110,
        "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "lines.linewidth": 1.6,
        "axes.grid": True, "grid.color": "#E6E6E6", "grid.linewidth": 0.6, "axes.axisbelow": True,
        "pdf.fonttype": 42, "image.cmap": "cividis", "savefig.bbox": None,
    }  # fmt: skip


def draw(
    make: Callable[[], Mapping[str, Figure]], folder: Path, mark: str | None = None, *, kinds: Sequence[str] = KINDS
) -> list[Path]:
    """Draw the figures that ``make`` returns, with their symbols typeset, and save each as PNG and PDF.

    Equal frames give equal files.

    mark   a line to print across each figure, such as a note that this is only a quick run.
    kinds  of files, where not both.
    """
    saved = []
    with mpl.rc_context(style()):
        for name, figure in make().items():
            typeset_all(figure)
            if mark:
                figure.text(0.5, 0.5, mark, ha="center", va="center", rotation=20, fontsize=2 * figure.get_figwidth(),
                            color="#D55E00", alpha=0.35)  # fmt: skip
            for kind in kinds:
                file = folder / f"{name}.{kind}"
                write_whole({file: partial(figure.savefig, format=kind, metadata=_METADATA[kind], dpi=_DPI)})
                saved.append(file)
    return saved


def legend(figure: Figure, axis: Axes) -> None:
    """Add one legend for the whole figure, above it, from one axis's entries."""
    handles, labels = axis.get_legend_handles_labels()
    rows = -(-len(labels) // max(1, int(figure.get_figwidth() / 1.55)))
    figure.legend(handles, labels, loc="outside upper center", ncols=-(-len(labels) // max(rows, 1)))


def two_digits(number: float) -> str:
    """Return the number with two decimals, a minus sign where it is below zero so, and zero without a sign."""
    return f"{round(float(number), 2) + 0.0:.2f}".replace("-", "−")


def interval(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of the 95% t interval of the mean of points (..., n); the mean itself for a single point.

    NaN marks a gap in a row, such as a seed that was not run there.
    """
    mean = mean_of(points)
    low, high = (np.where(np.isnan(end), mean.effect, end) for end in mean.interval())
    return low, high


def errors(points: np.ndarray) -> np.ndarray:
    """Return the distances from the mean down and up to its 95% interval's ends, (2, 1); zero for a single point."""
    low, high = interval(points)
    return np.array([[points.mean() - low], [high - points.mean()]])
