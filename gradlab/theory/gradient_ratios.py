"""The ratio of a loss's pull on the winner to its push on the loser, in closed form.

ρ = |∂L/∂log π_w| / |∂L/∂log π_l|; in probabilities the ratio is ρ · π_l/π_w for every loss (chain rule). All functions
take log-probabilities of any shapes that broadcast, and give natural logarithms of ratios.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from gradlab.checks import between, positive
from gradlab.theory.inputs import Array, finite, log_probabilities, numbers, same_shapes


def dpo_log_rho(log_win: ArrayLike, log_lose: ArrayLike) -> Array:
    """Return log ρ = 0 of DPO, and of every loss of h_w − h_l alone. Source: the paper's gradient ratio."""
    log_win, log_lose = _pair(log_win, log_lose)
    return np.zeros(np.broadcast_shapes(log_win.shape, log_lose.shape))


def bdpo_log_rho(log_win: ArrayLike, log_lose: ArrayLike) -> Array:
    """Return log ρ = log(log π_l / log π_w) of Balanced-DPO; 0 where both sides are certain, ±∞ where one side is.

    Source: the paper's ratio −π_l log π_l / (π_w log π_w).
    """
    log_win, log_lose = _pair(log_win, log_lose)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log(-log_lose) - np.log(-log_win)
    return np.where((log_win == 0) & (log_lose == 0), 0.0, ratio)


def nbdpo_log_rho(log_win: ArrayLike, log_lose: ArrayLike, clip: float = 0.5, symmetric: bool = False) -> Array:
    """Return log ρ = log λ of naive Balanced-DPO, λ = 1 + clip(log π_w − log π_l, Δ_min, ``clip``).

    Δ_min is 0, or 1/(1 + clip) − 1 where ``symmetric`` (stated); that λ weighs h_w alone is ours.
    """
    log_win, log_lose = _pair(log_win, log_lose)
    least = 1 / (1 + positive("clip", clip)) - 1 if symmetric else 0.0
    return np.log1p(np.clip(log_win - log_lose, least, clip))


def fixed_weight_log_rho(log_win: ArrayLike, log_lose: ArrayLike, win_weight: float = 0.5) -> Array:
    """Return log ρ = log λ − log(1 − λ) of a constant weight λ in (0, 1) on the winner. Source: ours (a control)."""
    between("win_weight", win_weight, 0, 1, open_low=True, open_high=True)
    return dpo_log_rho(log_win, log_lose) + np.log(win_weight) - np.log1p(-win_weight)


def in_probabilities(log_rho: ArrayLike, log_win: ArrayLike, log_lose: ArrayLike) -> Array:
    """Return log(|∂L/∂π_w| / |∂L/∂π_l|) = log ρ + log π_l − log π_w, from log ρ (which may be ±∞)."""
    log_win, log_lose = _pair(log_win, log_lose)
    log_rho = numbers("log_rho", log_rho)
    same_shapes(log_rho=log_rho, log_win=log_win, log_lose=log_lose)
    return log_rho + (log_lose - log_win)


def share_corrected(log_prob_ratio: ArrayLike, log_win: ArrayLike, log_lose: ArrayLike) -> Array:
    """Return the share of DPO's imbalance |log π_l − log π_w| that a loss takes away; NaN where DPO is balanced.

    1: the sides are balanced. 0: as DPO. Negative: farther from balance than DPO. Source: ours.
    """
    log_win, log_lose = _pair(log_win, log_lose)
    log_prob_ratio = numbers("log_prob_ratio", log_prob_ratio)
    same_shapes(log_prob_ratio=log_prob_ratio, log_win=log_win, log_lose=log_lose)
    imbalance = np.abs(log_lose - log_win)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = 1 - np.abs(log_prob_ratio) / imbalance
    return np.where(imbalance > 0, share, np.nan)


def logarithmic_mean(a: ArrayLike, b: ArrayLike) -> Array:
    """Return the logarithmic mean (b − a)/(log b − log a) of numbers ≥ 0; a where they are equal, 0 where one is 0.

    Any shapes that broadcast; right to a few roundings, also where a and b are nearly equal. It lies between √(ab) and
    (a + b)/2. Raises ValueError for numbers that are negative or not finite.
    """
    a, b = finite("a", a), finite("b", b)
    same_shapes(a=a, b=b)
    for name, values in (("a", a), ("b", b)):
        if (values < 0).any():
            raise ValueError(f"{name} must be ≥ 0, got {values.min():.6g}")
    low, high = np.minimum(a, b), np.maximum(a, b)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        change = (high - low) / low
        # Near each other the difference of logarithms would lose digits; far apart the quotient may overflow.
        logs = np.where(change < 1, np.log1p(change), np.log(high) - np.log(low))
        mean = (high - low) / logs
    return np.where(low == high, low, np.where(low == 0, 0.0, mean))


def bdpo_share_corrected(log_win: ArrayLike, log_lose: ArrayLike) -> Array:
    """Return the share of DPO's imbalance that Balanced-DPO takes away: 1 − |1 − 1/LM|.

    LM is the logarithmic mean of −log π_w and −log π_l. 1/LM where it is at least 1; below that Balanced-DPO corrects
    too much. For two responses to one prompt, π_w + π_l ≤ 1, the share is above 0; where LM < ½, as two probabilities
    near 1 would have it, it is negative, and −∞ where one side is certain. Where π_w = π_l, so that ``share_corrected``
    is NaN, this is its limit. Source: ours, from the paper's ratio; the proof is ``ratio-corrected``.
    """
    log_win, log_lose = _pair(log_win, log_lose)
    with np.errstate(divide="ignore"):
        return 1 - np.abs(1 - 1 / logarithmic_mean(-log_win, -log_lose))


def _pair(log_win: ArrayLike, log_lose: ArrayLike) -> tuple[Array, Array]:
    win, lose = log_probabilities("log_win", log_win), log_probabilities("log_lose", log_lose)
    same_shapes(log_win=win, log_lose=lose)
    return win, lose
