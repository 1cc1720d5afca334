"""The average of an effect over worlds as a function of a dose, or of the value of a factor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from gradlab.arrays import real_array, real_row
from gradlab.checks import count
from gradlab.stats.equivalence import Array, Mean, mean_of

_COLUMNS = ("dose_low", "dose_high", "dose", "effect", "low", "high", "worlds")


@dataclass(frozen=True)
class Slope:
    """A change of an effect per unit of dose: least squares over worlds, with its 95% t interval.

    p  of the two-sided t test of no slope.
    """

    slope: float
    low: float
    high: float
    p: float
    worlds: int


def effect_by_dose(effects: ArrayLike, dose: ArrayLike, bins: int = 6) -> pd.DataFrame:
    """Return the average effect of worlds by dose, a row per bin, with its 95% t interval over the worlds of the bin.

    effects  a world's mean difference, (worlds,).
    dose     such as R/β, (worlds,). A bin holds one value where there are at most ``bins`` values, else about as many
             worlds as every other: equal doses share a bin. Then the bins' ends are the quantiles at 0, 1/bins, …, 1
             (NumPy's ``quantile`` with the method "higher", so each end is a dose of the sample). A bin has its lower
             end and not its upper one; the last bin has both.

    Columns: dose_low, dose_high (the least and the greatest dose of the bin), dose (median), effect, low, high (NaN
    with one world), worlds. Each interval covers its bin's average 95% of the time; they are not corrected for their
    number, so all of them together cover less often.
    """
    effects, dose = _pair(effects, dose)
    values = np.unique(dose)
    if len(values) > count("bins", bins, least=1):
        ends = np.unique(np.quantile(dose, np.linspace(0, 1, bins + 1), method="higher"))
        which = np.searchsorted(ends[1:-1], dose, side="right")
    else:
        which = np.searchsorted(values, dose)
    rows = []
    for number in np.unique(which):
        at, mean = dose[which == number], mean_of(effects[which == number])
        low, high = mean.interval()
        numbers = (at.min(), at.max(), np.median(at), mean.effect, low, high)
        rows.append({**dict(zip(_COLUMNS, map(float, numbers), strict=False)), "worlds": len(at)})
    return pd.DataFrame(rows, columns=list(_COLUMNS))


def effect_by_value(effects: ArrayLike, factor: pd.Series) -> pd.DataFrame:
    """Return the average effect of worlds per value of a factor, such as a policy; a row per value, in their order.

    Columns: value, effect, low, high (95% t interval over worlds, not corrected for the number of rows; NaN with one),
    worlds.
    """
    effects = real_array("effects", effects)
    if effects.shape != factor.shape or not np.isfinite(effects).all() or factor.isna().any():
        raise ValueError(f"factor must have a value per effect, without gaps, got {factor.shape} for {effects.shape}")
    rows = []
    groups = factor.reset_index(drop=True).groupby(factor.to_numpy()).groups
    for value, at in sorted(groups.items(), key=None if pd.api.types.is_numeric_dtype(factor) else str):
        mean = mean_of(effects[np.asarray(at)])
        low, high = mean.interval()
        rows.append({"value": value, "effect": float(mean.effect), "low": float(low), "high": float(high),
                     "worlds": len(at)})  # fmt: skip
    return pd.DataFrame(rows)


def variance_explained(effects: ArrayLike, table: pd.DataFrame) -> float:
    """Return ω²: the share of the variance between worlds that a factor explains, 0 in expectation if it does nothing.

    effects  (worlds,), those of the ``table`` that ``effect_by_dose`` or ``effect_by_value`` made of them: ``effect``
             and ``worlds`` of each of its k rows. With B = Σ n_k (e_k − ē)² and W = (Σ (e − ē)² − B)/(worlds − k), it
             is (B − (k − 1) W)/(Σ (e − ē)² + W); it can be a little below 0. NaN where worlds do not vary, or k is
             not below their number.
    """
    effects, number = real_row("effects", effects), table["worlds"].to_numpy(float)
    if number.sum() != len(effects):
        raise ValueError(f"table must be made of the {len(effects)} effects, got one of {number.sum():g}")
    total, groups = ((effects - effects.mean()) ** 2).sum(), len(table)
    if total == 0 or groups >= len(effects):
        return float("nan")
    between = (number * (table["effect"].to_numpy(float) - effects.mean()) ** 2).sum()
    within = (total - between) / (len(effects) - groups)
    return float((between - (groups - 1) * within) / (total + within))


def slope_over_dose(effects: ArrayLike, dose: ArrayLike) -> Slope:
    """Return the least-squares slope of worlds' effects over dose, (worlds,) each, at least 3; pass log dose for a log.

    The standard error is White's for unequal variances (HC3): worlds of one dose vary more than those of another.
    """
    effects, dose = _pair(effects, dose)
    if len(dose) < 3 or np.ptp(dose) == 0:
        raise ValueError(f"dose must have at least 3 worlds and 2 values, got {len(dose)} with {len(np.unique(dose))}")
    centred = dose - dose.mean()
    total = (centred**2).sum()
    slope = (centred * effects).sum() / total
    residual = effects - effects.mean() - slope * centred
    leverage = 1 / len(dose) + centred**2 / total
    error = np.sqrt(((centred * residual / np.maximum(1 - leverage, np.finfo(float).eps)) ** 2).sum()) / total
    mean = Mean(np.asarray(slope), np.asarray(error), np.asarray(len(dose) - 2.0))
    low, high = mean.interval()
    return Slope(float(slope), float(low), float(high), float(mean.p_differs()), len(dose))


def _pair(effects: ArrayLike, dose: ArrayLike) -> tuple[Array, Array]:
    """Return effects and doses, if they are finite and as many."""
    effects, dose = real_array("effects", effects), real_array("dose", dose)
    if effects.ndim != 1 or not len(effects) or effects.shape != dose.shape:
        raise ValueError(f"effects and dose must be one number per world, got {effects.shape} and {dose.shape}")
    if not (np.isfinite(effects).all() and np.isfinite(dose).all()):
        raise ValueError("effects and dose must be finite, got NaN or an infinity")
    return effects, dose
