"""How a model's parameters see the two responses of a pair: ‖∇log π_w‖, ‖∇log π_l‖ and their cosine, pair by pair.

With the slopes of a loss they say before any training whether a step on that pair alone would raise its winner: the
band of ``gradlab.theory.band``. It takes two backward passes per pair, and memory for one more gradient of the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from gradlab.console import printable
from gradlab.llm.data.batches import Layout, apart, collate, pair_rows
from gradlab.llm.data.tokens import Encoded
from gradlab.losses import PairLogps, PairLoss, slopes
from gradlab.stats.agreement import wilson_interval
from gradlab.theory.band import side_moves

COLUMNS = ("score_norm_win", "score_norm_lose", "score_cosine")


def score_gradients(
    model: Any, forward: Callable[..., Tensor], pairs: Sequence[Encoded], *, pad: int, layout: Layout | None = None,
    title: str = "",
) -> pd.DataFrame:  # fmt: skip
    """Return ‖∇log π_w‖, ‖∇log π_l‖ and the cosine of these two gradients, one row per pair (``COLUMNS``).

    model    its parameters that are floating-point numbers count, whether they are trained or not.
    forward  the model or a wrapper of it, with ``with_logps``; ``layout``: the model's own.

    The model's gradients are empty afterwards. The cosine is NaN where a gradient is 0.
    """
    parameters = [value for value in model.parameters() if value.is_floating_point()]
    trained = [value.requires_grad for value in parameters]
    rows = []
    try:
        for value in parameters:
            value.requires_grad_()
        for pair in tqdm(pairs, desc=printable(title), unit="pair", disable=not title, leave=False):
            win, lose = (
                _gradient(forward, parameters, collate([row], pad, model.device, layout=layout))
                for row in apart(pair_rows([pair]))
            )
            rows.append([_dot(win, win) ** 0.5, _dot(lose, lose) ** 0.5, _dot(win, lose)])
    finally:
        for value, was in zip(parameters, trained, strict=True):
            value.requires_grad_(was)
    norms = np.array(rows, float).reshape(-1, 3)
    with np.errstate(divide="ignore", invalid="ignore"):
        norms[:, 2] = np.clip(norms[:, 2] / (norms[:, 0] * norms[:, 1]), -1, 1)
    return pd.DataFrame(norms, columns=list(COLUMNS))


def displaced(frame: pd.DataFrame, loss: PairLoss) -> np.ndarray:
    """Return for each pair 1 where a small step of gradient descent on it alone would lower its winner, or else 0.

    frame  has ``win``, ``lose``, ``win_len``, ``lose_len`` and ``COLUMNS``. NaN where it has no gradients, where the
           loss gives one side no slope, or slopes of other signs than the band is about. h = 0.
    """
    win, lose, *lengths = (torch.tensor(frame[name].to_numpy(float)) for name in ("win", "lose", "win_len", "lose_len"))
    slope_win, slope_lose = (slope.numpy() for slope in slopes(loss, PairLogps(win, lose, win, lose, *lengths)))
    norm_win, norm_lose, cosine = (frame[name].to_numpy(float) for name in COLUMNS)
    there = np.isfinite([norm_win, norm_lose, cosine]).all(0) & (slope_win < 0) & (slope_lose > 0)
    result = np.full(len(frame), math.nan)
    moves = side_moves(-(slope_win * norm_win)[there], (slope_lose * norm_lose)[there], -cosine[there])
    result[there] = moves[0] < 0
    return result


def about_the_band(frame: pd.DataFrame, names: Sequence[str]) -> str:
    """Return a sentence on how many pairs these losses would displace; "" where the frame has no gradients.

    frame  has ``COLUMNS``, and for each name a column ``displaced_NAME`` of ``displaced``.
    """
    if COLUMNS[0] not in frame or not frame[COLUMNS[0]].notna().any():
        return ""
    seen = frame[frame[COLUMNS[0]].notna()]
    ratio, cosine = seen[COLUMNS[0]] / seen[COLUMNS[1]], seen[COLUMNS[2]]
    shares = []
    for name in names:
        values = seen[f"displaced_{name}"].dropna()
        if len(values):
            low, high = wilson_interval(float(values.mean()), len(values))
            shares.append(f"{name} {values.mean():.0%} [{low:.0%}, {high:.0%}]")
    return (
        f"The band (Chen et al. 2026, arXiv 2604.18239) of {len(seen)} pairs: ‖∇log π_w‖/‖∇log π_l‖ is "
        f"{ratio.median():.2f} in the median pair, the cosine of these gradients {cosine.median():.2f}. A small step "
        f"of gradient descent on one pair alone would lower its winner in this share of the pairs: "
        f"{', '.join(shares) or 'none can be judged'}. In a batch, and under Adam, that is an association."
    )


def _gradient(
    forward: Callable[..., Tensor], parameters: Sequence[Tensor], batch: dict[str, Tensor]
) -> list[Tensor | None]:
    with torch.enable_grad():
        logp = forward(**batch)
        return list(torch.autograd.grad(logp.sum(), parameters, allow_unused=True))


def _dot(left: Sequence[Tensor | None], right: Sequence[Tensor | None]) -> float:
    products = (
        float(torch.linalg.vecdot(one.flatten().double(), other.flatten().double()))
        for one, other in zip(left, right, strict=True)
        if one is not None and other is not None
    )
    return math.fsum(products)
