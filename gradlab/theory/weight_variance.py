"""Theorems 4–5, by which weighting by p lowers the variance of the weights over responses drawn uniformly.

Arrays (..., n), responses last; means and variances over that axis, uniformly.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from gradlab.theory.inputs import Array, distribution, finite, same_responses


def variance_ratio(w: ArrayLike, p: ArrayLike) -> Array:
    """Return Var[w p] / (Var[w] E[p²]); the theorems say that it is below 1. NaN where w is constant.

    w, p: weights, and the policy's probabilities, (..., n). Source: the paper's Theorems 4–5.
    """
    w, p = _inputs(w, p)
    spread = np.where(np.ptp(w, -1) > 0, np.var(w, -1), np.nan)  # rounding may give a constant a little variance
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.var(w * p, -1) / (spread * (p**2).mean(-1))


def covariance_gap(w: ArrayLike, p: ArrayLike) -> Array:
    """Return Cov(w², p²) − E[w p]² + E[w]² E[p²], which is negative exactly where ``variance_ratio`` is below 1.

    With E[w] = 0, as DPO's weights have, the condition reads Cov(w², p²) < E[w p]². Source: ours.
    """
    w, p = _inputs(w, p)
    covariance = (w**2 * p**2).mean(-1) - (w**2).mean(-1) * (p**2).mean(-1)
    return covariance - (w * p).mean(-1) ** 2 + w.mean(-1) ** 2 * (p**2).mean(-1)


def noise_to_signal(weight: ArrayLike) -> Array:
    """Return Var[w] / E[|w|]² of weights (..., n): their variance over the square of their mean size.

    NaN where all are 0. Source: ours.
    """
    weight = finite("weight", weight)
    with np.errstate(invalid="ignore"):
        return weight.var(-1) / np.abs(weight).mean(-1) ** 2


def _inputs(w: ArrayLike, p: ArrayLike) -> tuple[Array, Array]:
    w, p = finite("w", w), distribution("p", p)
    same_responses(p=p, w=w)
    return w, p
