"""t intervals and t tests of a mean: does it differ from 0, and is it equivalent to 0 within a margin?

Values are paired differences, (..., n): n independent replicates along the last axis, such as seeds or worlds. NaN
means that a replicate was not run in that row; it is left out. A row needs two replicates, else its interval and
p-values are NaN. Values without any spread are taken as exact: their interval has no width. For normal replicates all
of this is exact at any n; tests/test_rules_of_evidence.py simulates it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtr, stdtrit

from gradlab.arrays import real_array, real_row
from gradlab.checks import between, positive

LEVEL = 0.95
ALPHA = 1 - LEVEL
Array = np.ndarray


@dataclass(frozen=True)
class Mean:
    """A mean with its standard error; all fields are arrays of one shape.

    effect  the mean.
    error   its standard error; 0 where values have no spread but rounding, NaN without two of them.
    freedom  degrees of freedom of the standard error.
    """

    effect: Array
    error: Array
    freedom: Array

    def half_width(self, level: float = LEVEL) -> Array:
        """Return half the width of the t interval at ``level``: t((1 + level)/2; n − 1) times the standard error."""
        between("level", level, 0, 1, open_low=True, open_high=True)
        return -stdtrit(self.freedom, (1 - level) / 2) * self.error

    def interval(self, level: float = LEVEL) -> tuple[Array, Array]:
        """Return the ends of the t interval at ``level``."""
        half = self.half_width(level)
        return self.effect - half, self.effect + half

    def p_above(self, bound: float = 0.0) -> Array:
        """Return the p-value of the one-sided t test that the mean lies above ``bound``.

        It is P(T ≥ (mean − bound)/error), with T of n − 1 degrees of freedom.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            score = (self.effect - bound) / self.error
        score = np.where((self.error == 0) & (self.effect == bound), -np.inf, score)  # exactly at the bound: not above
        return stdtr(self.freedom, -score)

    def p_below(self, bound: float = 0.0) -> Array:
        """Return the p-value of the one-sided t test that the mean lies below ``bound``."""
        return Mean(-self.effect, self.error, self.freedom).p_above(-bound)

    def p_differs(self, bound: float = 0.0) -> Array:
        """Return the p-value of the two-sided t test that the mean is not ``bound``: twice the smaller one-sided."""
        return np.minimum(2 * np.minimum(self.p_above(bound), self.p_below(bound)), 1.0)

    def p_equivalent(self, margin: float) -> Array:
        """Return the p-value of equivalence: the larger one of both one-sided tests at ± ``margin``.

        Both tests must reject, so their larger p-value needs no correction for being two. Source: Schuirmann 1987.
        """
        positive("margin", margin)
        return np.maximum(self.p_above(-margin), self.p_below(margin))


def mean_of(values: ArrayLike) -> Mean:
    """Return the mean of replicates, values (..., n), with its standard error. ValueError for an infinity.

    The standard error is s/√n, with s² = Σ (d − d̄)²/(n − 1) over the n replicates that were run.
    """
    values = real_array("values", values)
    if np.isinf(values).any():
        raise ValueError("values must be finite, or NaN where a replicate was not run, got an infinity")
    run = ~np.isnan(values)
    number = run.sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(run, values, 0).sum(-1) / number
        deviation = np.where(run, values - mean[..., None], 0.0)
        error = np.sqrt((deviation**2).sum(-1) / (number - 1) / number)
    size = np.abs(np.where(run, values, 0.0)).max(-1, initial=0.0)
    flat = np.abs(deviation).max(-1, initial=0.0) <= 8 * np.finfo(float).eps * size  # rounding of equal values
    freedom = np.where(number > 1, number - 1.0, np.nan)
    return Mean(mean, np.where(number > 1, np.where(flat, 0.0, error), np.nan), freedom)


def mean_of_interval(effect: ArrayLike, low: ArrayLike, high: ArrayLike, freedom: ArrayLike) -> Mean:
    """Return the mean whose 95% t interval runs from ``low`` to ``high``, with so many degrees of freedom."""
    effect, low, high, freedom = (np.asarray(part, float) for part in (effect, low, high, freedom))
    return Mean(effect, (high - low) / 2 / -stdtrit(freedom, (1 - LEVEL) / 2), freedom)


def false_discoveries_controlled(p_values: ArrayLike) -> Array:
    """Return Benjamini and Hochberg's adjusted p-values, (n,); NaN counts as 1. Source: Benjamini & Hochberg 1995.

    In ascending order p_(i) becomes the least of n p_(j)/j over all j ≥ i, and at most 1.
    """
    from scipy.stats import false_discovery_control  # two seconds to import, for which no interval need wait

    p_values = np.nan_to_num(real_array("p_values", p_values), nan=1.0)
    return false_discovery_control(p_values) if p_values.size else p_values


def holm(p_values: np.ndarray) -> np.ndarray:
    """Return Holm's step-down correction of ``p_values`` (n,); NaN counts as 1. Source: Holm 1979.

    In ascending order p_(i) becomes the greatest of (n − j + 1) p_(j) over all j ≤ i, and at most 1.
    """
    p_values = np.nan_to_num(real_row("p_values", p_values), nan=1.0)
    order = np.argsort(p_values)
    scaled = p_values[order] * np.arange(len(p_values), 0, -1)
    corrected = np.empty_like(p_values)
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return corrected
