"""The weights on a continuous response axis, by quadrature: the limit of the grid as it is refined.

The paper leaves continuous spaces open (all of this file is ours). Responses are drawn uniformly from an interval;
w(y) is the limit of w_i/n on grids of n cells. Log-densities are functions of an array; constants in them do not
matter, except in w(y) p(y).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from gradlab.checks import between, positive
from gradlab.theory.inputs import Array, finite, sigmoid

LogDensity = Callable[[Array], Array]
_NODES = 16  # Gauss–Legendre nodes per panel
_RISE = 8.0  # nats that a log-density may change within a panel: the sum is then exact to about 1e-10
_SCAN = 512  # pieces that are searched for the steepest slope


def gaussian_log_density(mean: float, width: float) -> LogDensity:
    """Return the log-density of a Gaussian as a function of y; ``mean`` and ``width`` > 0 in units of y."""
    between("mean", mean, -np.inf, open_low=True)
    positive("width", width)
    return lambda y: -0.5 * ((y - mean) / width) ** 2 - np.log(width * np.sqrt(2 * np.pi))


def dpo_weight_limit(
    y: ArrayLike, log_p: LogDensity, log_q: LogDensity, low: float, high: float, *, beta: float = 1.0
) -> Array:
    """Return w(y) = E_t[σ(log q(y) − log q(t)) − σ(β(log p(y) − log p(t)))], t uniform on [low, high]; shape of y.

    It is the limit of ``dpo_weight``/n with a uniform reference, as n grows.
    """
    y = finite("y", y)
    nodes, shares = _quadrature(low, high, log_p=(positive("beta", beta), log_p), log_q=(1.0, log_q))

    def beats(name: str, score: LogDensity, scale: float) -> Array:
        return sigmoid(scale * (_values(name, score, y)[..., None] - _values(name, score, nodes)))

    return (beats("log_q", log_q, 1.0) - beats("log_p", log_p, beta)) @ shares


def bdpo_weight_limit(
    y: ArrayLike,
    log_p: LogDensity,
    log_q: LogDensity,
    low: float,
    high: float,
    *,
    beta: float = 1.0,
    cells: float = np.inf,
) -> Array:
    """Return ``bdpo_weight``/n with a uniform reference, the sum over responses as an integral; the shape of y.

    cells  n, the number of responses on the interval: Balanced-DPO's λ sees probabilities, not densities, and so
           depends on the resolution. ∞: every λ is ½ and w(y) is half of ``dpo_weight_limit`` at β/2. On a continuum
           Balanced-DPO is DPO at β/2; grids tend to that only as 1/log n.
    log_p  must be normalised on [low, high] where ``cells`` is finite.

    Raises ValueError where a cell would hold more than probability one.
    """
    y = finite("y", y)
    if np.ndim(cells) == 0 and cells == np.inf:
        return 0.5 * dpo_weight_limit(y, log_p, log_q, low, high, beta=positive("beta", beta) / 2)
    nodes, shares = _quadrature(low, high, log_p=(positive("beta", beta), log_p), log_q=(1.0, log_q))
    size = np.log(high - low) - np.log(between("cells", cells, 2))
    # −log p_i of the cells at y and at the nodes
    cost, other = -_values("log_p", log_p, y)[..., None] - size, -_values("log_p", log_p, nodes) - size
    if min(cost.min(initial=0), other.min()) < 0:
        raise ValueError(f"cells must be so many that none holds more than probability 1, got {cells:g}")
    weight = other / (cost + other)
    margin = beta * (2 * weight - 1) * np.log(cells)
    wins = sigmoid(_values("log_q", log_q, y)[..., None] - _values("log_q", log_q, nodes))
    return (weight * (wins - sigmoid(margin))) @ shares


def equal_width_extrema(mean_p: float, mean_q: float, width: float) -> tuple[float, float]:
    """Return where (log q − log p) p has its (minimum, maximum), for two Gaussians of the same width.

    With half distance h and width s: μ_p + (h ∓ √(h² + 4s²))/2 for μ_p < μ_q. The minimum is always outside
    [μ_p, μ_q]; the maximum is inside only if h ≥ s/√2.
    """
    for name, mean in (("mean_p", mean_p), ("mean_q", mean_q)):
        between(name, mean, -np.inf, open_low=True)
    half = (mean_q - mean_p) / 2
    root = np.sqrt(half**2 + 4 * positive("width", width) ** 2)
    before, after = mean_p + (half - root) / 2, mean_p + (half + root) / 2
    return (before, after) if half >= 0 else (after, before)


def _values(name: str, log_density: LogDensity, y: Array) -> Array:
    """Return the log-density at each y, checked."""
    if not callable(log_density):
        raise ValueError(f"{name} must be a function of y, got {type(log_density).__name__}")
    values = finite(name, log_density(y))
    if values.shape != y.shape:
        raise ValueError(f"{name} must give a log-density for each y, shape {y.shape}, got {values.shape}")
    return values


def _quadrature(low: float, high: float, **scores: tuple[float, LogDensity]) -> tuple[Array, Array]:
    """Return nodes on [low, high] and their shares, which sum to one: composite Gauss–Legendre.

    σ(s(y) − s(t)) turns from 0 to 1 within a few units of s. So there are enough panels that the steepest score, a
    scale times a log-density, changes by at most ``_RISE`` within a panel; else the weights would ripple where tails
    are steep.
    """
    between("high", high, between("low", low, -np.inf, open_low=True), open_low=True)
    scan = np.linspace(low, high, _SCAN + 1)
    rises = [scale * np.abs(np.diff(_values(name, score, scan))).max() for name, (scale, score) in scores.items()]
    panels = int(np.clip(np.ceil(max(rises) * _SCAN / _RISE), 16, 4096))
    edges = np.linspace(low, high, panels + 1)
    x, weight = np.polynomial.legendre.leggauss(_NODES)
    middle, half = (edges[1:] + edges[:-1]) / 2, (edges[1:] - edges[:-1]) / 2
    nodes = (middle[:, None] + half[:, None] * x).ravel()
    return nodes, (half[:, None] * weight).ravel() / (high - low)
