"""The disentanglement band: whether a step raises the winner and lowers the loser, from both sides' gradients.

One pair, plain gradient descent with a small step, and a loss whose slope is negative at the winner and positive at the
loser. With g_w and g_l the gradients of the loss in the parameters through either side, C their cosine and
R = ‖g_w‖/‖g_l‖, the winner's log π rises exactly if R > −C, and the loser's falls exactly if 1/R > −C. Source: Chen et
al. 2026 (arXiv 2604.18239); the statement for batches and for other metrics is ours.

A batch: g_w and g_l are sums over pairs, and what rises is Σ_i |∂L/∂log π_w,i| · log π_w,i, not the mean of log π_w.
An optimiser that scales coordinates by P, such as Adam: the norms and the cosine are those of ⟨a, b⟩ = aᵀPb; with the
plain ones the band is only an association.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from gradlab.theory.inputs import Array, finite, same_shapes


def disentanglement_band(cosine: ArrayLike) -> tuple[Array, Array]:
    """Return the least and the largest R = ‖g_w‖/‖g_l‖ at which winners rise and losers fall: −C and −1/C.

    cosine  C of g_w and g_l, in [−1, 1], of any shape. Where C ≥ 0, the band is all R: 0 and ∞.

    ValueError for a cosine that is not finite or outside of [−1, 1]. Source: Chen et al. 2026 (arXiv 2604.18239).
    """
    low = np.maximum(-_cosine(cosine), 0.0)
    with np.errstate(divide="ignore"):
        return low, 1 / low


def side_moves(norm_win: ArrayLike, norm_lose: ArrayLike, cosine: ArrayLike) -> tuple[Array, Array]:
    """Return R + C and 1/R + C: above 0 where the step raises the winner, and where it lowers the loser.

    norm_win, norm_lose  ‖g_w‖ and ‖g_l‖, ≥ 0; cosine: C; shapes broadcast. NaN where both norms are 0.

    ValueError for a norm that is negative or not finite, and for a cosine outside of [−1, 1].
    """
    win, lose = (_norm(name, values) for name, values in (("norm_win", norm_win), ("norm_lose", norm_lose)))
    cosine = _cosine(cosine)
    same_shapes(norm_win=win, norm_lose=lose, cosine=cosine)
    with np.errstate(divide="ignore", invalid="ignore"):
        return win / lose + cosine, lose / win + cosine


def _norm(name: str, values: ArrayLike) -> Array:
    norm = finite(name, values)
    if (norm < 0).any():
        raise ValueError(f"{name} must be ≥ 0, got {norm.min():.6g}")
    return norm


def _cosine(values: ArrayLike) -> Array:
    """Return the cosine, within rounding of [−1, 1]."""
    cosine = finite("cosine", values)
    worst = float(np.abs(cosine).max(initial=0.0))
    if worst > 1 + 1e-6:
        raise ValueError(f"cosine must lie in [−1, 1], got {cosine.flat[np.abs(cosine).argmax()]:.6g}")
    return np.clip(cosine, -1.0, 1.0)
