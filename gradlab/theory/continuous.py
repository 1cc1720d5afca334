"""The same weights on a continuous response axis, by quadrature: what the grid tends to as it is refined.

The paper leaves continuous spaces open (all of this file is ours). Responses are drawn uniformly from an interval;
w(y) is the limit of w_i/n on grids of n cells. Log-densities are functions of an array; constants in them do not
matter, except in w(y) p(y).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from gradlab.checks import between, count, positive
from gradlab.theory.inputs import Array, finite

LogDensity = Callable[[Array], Array]
_NODES = 16  # Gauss–Legendre nodes a panel


def gaussian_log_density(mean: float, width: float) -> LogDensity:
    """The log-density of a Gaussian, as a function of y; ``mean`` and ``width`` > 0 in units of y."""
    positive("width", width)
    return lambda y: -0.5 * ((y - mean) / width) ** 2 - np.log(width * np.sqrt(2 * np.pi))


def dpo_weight_limit(
    y: ArrayLike, log_p: LogDensity, log_q: LogDensity, low: float, high: float, *, beta: float = 1.0, panels: int = 64
) -> Array:
    """w(y) = E_t[σ(log q(y) − log q(t)) − σ(β(log p(y) − log p(t)))], t uniform on [low, high]; the shape of y.

    The limit of ``dpo_weight``/n with a uniform reference, as n grows. panels: pieces of the interval, 16 nodes each.
    """
    y = finite("y", y)
    nodes, shares = _quadrature(low, high, panels)

    def beats(score: LogDensity, scale: float) -> Array:
        return expit(scale * (score(y)[..., None] - score(nodes)))

    return (beats(log_q, 1.0) - beats(log_p, positive("beta", beta))) @ shares


def bdpo_weight_limit(
    y: ArrayLike,
    log_p: LogDensity,
    log_q: LogDensity,
    low: float,
    high: float,
    *,
    beta: float = 1.0,
    cells: float = np.inf,
    panels: int = 64,
) -> Array:
    """``bdpo_weight``/n with a uniform reference, its sum over responses turned into an integral; the shape of y.

    cells  n, how many responses share the interval: Balanced-DPO's λ sees probabilities, not densities, and so depends
           on the resolution. ∞: every λ is ½ and w(y) is half of ``dpo_weight_limit`` at β/2. On a continuum
           Balanced-DPO is DPO at β/2; grids tend to that only as 1/log n.
    log_p  must be normalised on [low, high] where ``cells`` is finite.

    Raises ValueError where a cell would hold more than probability one.
    """
    y = finite("y", y)
    if np.isinf(cells):
        return 0.5 * dpo_weight_limit(y, log_p, log_q, low, high, beta=positive("beta", beta) / 2, panels=panels)
    nodes, shares = _quadrature(low, high, panels)
    size = np.log(high - low) - np.log(between("cells", cells, 2))
    cost, other = -log_p(y)[..., None] - size, -log_p(nodes) - size  # −log p_i of the cells there
    if min(cost.min(), other.min()) < 0:
        raise ValueError(f"cells must be so many that none holds more than probability 1, got {cells:g}")
    weight = other / (cost + other)
    margin = positive("beta", beta) * (2 * weight - 1) * np.log(cells)
    return (weight * (expit(log_q(y)[..., None] - log_q(nodes)) - expit(margin))) @ shares


def equal_width_extrema(mean_p: float, mean_q: float, width: float) -> tuple[float, float]:
    """Where (log q − log p) p has its minimum and its maximum, for Gaussians of one width; (minimum, maximum).

    With half distance h and width s: μ_p + (h ∓ √(h² + 4s²))/2 for μ_p < μ_q. The minimum is always outside
    [μ_p, μ_q]; the maximum is inside only if h ≥ s/√2.
    """
    half = (mean_q - mean_p) / 2
    root = np.sqrt(half**2 + 4 * positive("width", width) ** 2)
    before, after = mean_p + (half - root) / 2, mean_p + (half + root) / 2
    return (before, after) if half >= 0 else (after, before)


def _quadrature(low: float, high: float, panels: int) -> tuple[Array, Array]:
    """Nodes on [low, high] and their shares, which sum to one: composite Gauss–Legendre."""
    between("high", high, low, open_low=True)
    edges = np.linspace(low, high, count("panels", panels, least=1) + 1)
    x, weight = np.polynomial.legendre.leggauss(_NODES)
    middle, half = (edges[1:] + edges[:-1]) / 2, (edges[1:] - edges[:-1]) / 2
    nodes = (middle[:, None] + half[:, None] * x).ravel()
    return nodes, (half[:, None] * weight).ravel() / (high - low)
