"""Charts of measured and trained losses, as data: explorers draw them live, pages and notebooks as figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from gradlab.atlas import pairs
from gradlab.atlas.measure import Measured
from gradlab.atlas.trained import frontier
from gradlab.plotting.charts import Arrows, Axis, Bar, Bars, Curve, Curves, Dash, Handle, Map
from gradlab.plotting.palette import INK, LOSER, SETTINGS, WINNER, side_colors

TIMES = 8  # colours end where one side's slope is this many times the other's
_MOVED = {"winner": "win_logp_change", "loser": "lose_logp_change", "all else": "rest_logp_change"}
_COLORS = {"winner": WINNER, "loser": LOSER, "all else": INK}
_LINES: tuple[tuple[str, Dash], ...] = tuple(
    (color, dash) for dash, colors in (("", SETTINGS), ("dashed", SETTINGS), ("dotted", SETTINGS)) for color in colors
)  # type: ignore[assignment]


def ratio_map(seen: Measured, cells: int = 41) -> Map:
    """Return the map of log₂ ρ over (π_w, π_l), for one-token responses and π_ref = 0.05."""
    grid = pairs.by_probability(cells)
    values = np.clip(seen.log_ratio(grid) / math.log(2), -math.log2(TIMES) * 1.01, math.log2(TIMES) * 1.01)
    axes = [Axis(name, 1e-4, 1.0, "log") for name in ("π_w", "π_l")]
    return Map(
        f"{_label(seen)}: log ρ", "How much larger the winner's slope is than the loser's, by their probabilities",
        axes[0], axes[1], grid.win.numpy(), grid.lose.numpy(), values, "log₂ ρ",
        -math.log2(TIMES), math.log2(TIMES), "sides", ring=(pairs.LAB_REFERENCE, pairs.LAB_REFERENCE),
    )  # fmt: skip


def sign_map(seen: Measured, cells: int = 41) -> Map:
    """Return the map of directions over (h_w, h_l), for responses of 100 tokens with one nat each under π_ref.

    Colours say whether descent raises log π_w (1), lowers it (−1) or leaves it (0). Cells where it raises log π_l are
    struck through.
    """
    grid = pairs.by_logratio(cells)
    winner, loser = seen.moves(grid)
    end = pairs.REACH
    return Map(
        f"{_label(seen)}: directions", "Where descent raises or lowers the winner, by both log-ratios",
        Axis("h_w, nats", -end, end, "symlog"), Axis("h_l, nats", -end, end, "symlog"), grid.win.numpy(),
        grid.lose.numpy(), winner, "winner: 1 up, −1 down", -1, 1, "turned", struck=loser > 0,
        struck_means="loser pushed up", ring=(0.0, 0.0),
    )  # fmt: skip


def step_field(seen: Measured, cells: int = 10) -> Arrows:
    """Return the directions of a step of descent on logits over (π_w, π_l), for one-token responses, π_ref = 0.05.

    A dark arrow: the winner's probability moves farther; a light one: the loser's does.
    """
    field = seen.field(cells)
    there = np.isfinite(field.step_win)
    right, up = field.step_win[there], field.step_lose[there]
    size = np.hypot(right, up)
    largest = size.max(initial=0.0)
    still = size <= 1e-12 * largest
    with np.errstate(divide="ignore", invalid="ignore"):
        farther = np.where(still, 0.0, np.log2(np.abs(right) / np.abs(up)))
    reference = Handle("π_ref", pairs.LAB_REFERENCE, pairs.LAB_REFERENCE, INK, shape="diamond")
    return Arrows(
        f"{_label(seen)}: a step", "Where a step of descent on logits leads, by the probabilities of both responses",
        Axis("π_w", 0, 1), Axis("π_l", 0, 1), field.win[there], field.lose[there], np.where(still, 0.0, right),
        np.where(still, 0.0, up), side_colors(farther / math.log2(TIMES)), handles=[reference],
    )  # fmt: skip


def frontier_chart(
    trained: pd.DataFrame, losses: Mapping[str, tuple[str, Dash]] | Sequence[str], value: str = "expected_utility",
    faint: Sequence[str] = (),
) -> Curves:  # fmt: skip
    """Return reward, or the mass on unobserved responses, against KL as β moves: one curve per loss, means over seeds.

    trained  a frame of trainings, see ``table``. losses: their keys, or colours and dashes by key.
    value    "expected_utility" or "unobserved_mass". faint: keys of losses to compare with, drawn behind.
    """
    lines = dict(zip(losses, _LINES, strict=False)) if not isinstance(losses, Mapping) else losses
    curves = []
    for key, (color, dash) in lines.items():
        line = frontier(trained, key)
        curves.append(Curve(key, line["kl_to_reference"].to_numpy(float), line[value].to_numpy(float), color, dash,
                            marker="dot", faint=key in faint))  # fmt: skip
    label = {"expected_utility": "E[u], nats", "unobserved_mass": "unobserved mass"}[value]
    x, y = (_axis(name, curves, side) for name, side in (("KL(π‖π_ref), nats", "x"), (label, "y")))
    title = {"expected_utility": "Reward against KL, over β", "unobserved_mass": "Unobserved mass against KL, over β"}
    return Curves(title[value], f"{label} against KL from the reference, one curve per loss", x, y, curves)


def effect_bars(effects: pd.DataFrame) -> Bars:
    """Return what trainings did to winners, losers and all else, in nats of log π; one group per loss.

    effects  one row per loss, by its index, with ``win_logp_change``, ``lose_logp_change`` and ``rest_logp_change``.
    """
    bars = [Bar(name, effects[column].to_numpy(float), _COLORS[name]) for name, column in _MOVED.items()]
    return Bars("What training moved", "Mean change of log π of winners, losers and all else", "change of log π, nats",
                list(effects.index), bars, height=60 + 40 * len(effects))  # fmt: skip


def _axis(label: str, curves: Sequence[Curve], side: str) -> Axis:
    values = np.concatenate([getattr(curve, side) for curve in curves] or [np.zeros(0)])
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    gap = 0.05 * (high - low or 1.0)
    return Axis(label, 0.0 if low >= 0 and (side == "x" or low < 0.5 * high) else low - gap, high + gap)


def _label(seen: Measured) -> str:
    return getattr(seen.loss, "label", seen.loss.name)
