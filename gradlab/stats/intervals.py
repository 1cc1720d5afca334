"""The percentile bootstrap: a rough interval for figures and tables. What judges has t intervals, see ``equivalence``.

It covers the mean too seldom where there are few values: 75% at 3, 86% at 6, instead of 95%.
"""

from __future__ import annotations

import numpy as np

from gradlab.arrays import real_row
from gradlab.stats.equivalence import LEVEL
from gradlab.streams import Purpose, stream

RESAMPLES = 4000


def bootstrap_interval(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Return the 95% percentile bootstrap interval of the mean of ``values`` (n,); NaN with fewer than two values."""
    values = real_row("values", values)
    if len(values) < 2:
        return (np.nan, np.nan)
    drawn = stream(seed, Purpose.BOOTSTRAP).integers(len(values), size=(RESAMPLES, len(values)))
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(values[drawn].mean(1), [tail, 1 - tail])
    return float(low), float(high)
