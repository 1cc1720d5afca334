"""Theorems 3 to 5 on densities: what depends on the coordinate.

The law by which responses are drawn is fixed: y is uniform on an interval. DPO's weight w is a function of the
response, and so are p/π_ref and the preference. A density is not: in another coordinate p is divided by dz/dy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from gradlab.lab.line import Interval
from gradlab.theory import dpo_weight_limit
from gradlab.theory.continuous import gaussian_log_density

LOW, HIGH = -10.0, 10.0
_EVEN = Interval(LOW, HIGH, 60, None)
_FLOOR = 1e-3  # of |w|, relative to its largest, in the coordinate that turns the variance
Slope = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]  # log dz/dy of (y, log p, w)

# log dz/dy up to a constant, which moves no extremum and cancels in the ratio of variances.
COORDINATES: dict[str, Slope] = {
    "y": lambda y, log_p, w: np.zeros_like(y),
    "1000 y": lambda y, log_p, w: np.full_like(y, np.log(1000)),
    "sinh y": lambda y, log_p, w: np.log(np.cosh(y)),
    "policy's CDF": lambda y, log_p, w: log_p,
    "p ∝ |w|": lambda y, log_p, w: log_p - np.log(np.abs(w) + _FLOOR * np.abs(w).max()),
}


def theory_parts(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one part with all cases."""
    return [{"kind": "theory", "distances": settings["distances"], "widths": settings["widths"]}]


def theory_part(kind: str, distances: list[float], widths: list[float]) -> pd.DataFrame:
    """Return a row per case and coordinate.

    spread    log(Var[w] E[p²] / Var[w p]): above 0 where Theorems 4 and 5 hold.
    balanced  how far the extrema of w·p lie inside of the interval between the modes of p and q in this coordinate, in
              units of y: below 0 where the balanced half of Theorem 3 fails.
    outer     how far DPO's lie outside, likewise.
    """
    rows = []
    for distance in distances:
        for width in widths:
            y, share = _EVEN.nodes.numpy(), _EVEN.weights.numpy() / (HIGH - LOW)
            log_p, log_q = (
                gaussian_log_density(mean, sd) for mean, sd in ((-distance / 2, width), (distance / 2, 1.0))
            )
            w = dpo_weight_limit(y, log_p, log_q, LOW, HIGH)
            for name, log_slope in COORDINATES.items():
                slope = log_slope(y, log_p(y), w)
                shape = [np.exp(one(y) - slope - np.max(one(y) - slope)) for one in (log_p, log_q)]
                rows.append({
                    "kind": kind, "method": "dpo", "coordinate": name, "apart": distance, "width": width,
                    **_measures(y, share, w, *shape),
                })  # fmt: skip
    return pd.DataFrame(rows)


def _measures(y: np.ndarray, share: np.ndarray, w: np.ndarray, p: np.ndarray, q: np.ndarray) -> dict[str, float]:
    product = w * p
    variance = share @ product**2 - (share @ product) ** 2
    low, high = sorted((y[np.argmax(p)], y[np.argmax(q)]))
    flat = np.ptp(p) < 1e-9  # a density without a mode
    inside = [min(at - low, high - at) for at in (y[np.argmin(product)], y[np.argmax(product)])]
    outer = [max(low - at, at - high) for at in (y[np.argmin(w)], y[np.argmax(w)])]
    return {
        "spread": float(np.log((share @ w**2) * (share @ p**2) / variance)),
        "balanced": np.nan if flat else float(min(inside)),
        "outer": np.nan if flat else float(min(outer)),
    }
