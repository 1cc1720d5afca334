"""Balanced-DPO's weights on pairs of long sequences, to first order in 1/√L.

−log π of a sequence of L tokens is about L a ± s √L, where a is the mean of a token's surprisal −log P, and s its
long-run standard deviation: s² is the limit of Var(−log π)/L. Source: ours, by the delta method. All functions take
numbers of any shapes that broadcast.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from gradlab.theory.inputs import Array, finite, same_shapes


def weight_spread(mean: ArrayLike, spread: ArrayLike, length: ArrayLike) -> Array:
    """Return how far λ_w spreads about ½ for two sequences of L tokens: s/(2√2·a·√L).

    mean, spread  a > 0 and s ≥ 0, in nats per token. length: L ≥ 1. ValueError for other numbers.
    With costs S = −log π, λ_w − ½ = (S_l − S_w)/(2(S_w + S_l)): a difference of variance 2 s² L over about 4 a L.
    """
    mean, spread, length = _checked(mean, spread, length)
    return spread / (2 * np.sqrt(2 * length) * mean)


def explained_by_length(mean: ArrayLike, spread: ArrayLike, length: ArrayLike, variation: ArrayLike) -> Array:
    """Return how much of λ_w's variance the loser's share of tokens explains: c²/(c² + s²/(a²L)).

    mean, spread, length  as in ``weight_spread``; L is the mean length, variation c ≥ 0 the coefficient of variation of
    the lengths. ½ at L = (s/(ac))², .9 at nine times that.
    """
    mean, spread, length = _checked(mean, spread, length)
    variation = finite("variation", variation)
    same_shapes(mean=mean, spread=spread, length=length, variation=variation)
    if (variation < 0).any():
        raise ValueError(f"variation must be ≥ 0, got {variation.min():.6g}")
    noise = (spread / mean) ** 2 / length
    both = variation**2 + noise
    return np.divide(variation**2, both, out=np.zeros(np.shape(both)), where=both > 0)


def _checked(mean: ArrayLike, spread: ArrayLike, length: ArrayLike) -> tuple[Array, Array, Array]:
    mean, spread, length = finite("mean", mean), finite("spread", spread), finite("length", length)
    same_shapes(mean=mean, spread=spread, length=length)
    if (mean <= 0).any():
        raise ValueError(f"mean must be > 0, got {mean.min():.6g}")
    if (spread < 0).any():
        raise ValueError(f"spread must be ≥ 0, got {spread.min():.6g}")
    if (length < 1).any():
        raise ValueError(f"length must be ≥ 1, got {length.min():.6g}")
    return mean, spread, length
