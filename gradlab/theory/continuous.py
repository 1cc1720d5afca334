"""The weights on a continuous response axis, by quadrature: the limit of the grid as it is refined.

The paper leaves continuous spaces open (all of this file is ours). Responses are drawn uniformly from an interval;
w(y) is the limit of w_i/n on grids of n cells. Log-densities are functions of an array; constants in them do not
matter, except in w(y) p(y).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from gradlab.checks import between, positive
from gradlab.theory.inputs import Array, finite, sigmoid
from gradlab.theory.quadrature import base_edges, refined_means, shared_panels

LogDensity = Callable[[Array], Array]


def gaussian_log_density(mean: float, width: float) -> LogDensity:
    """Return the log-density of a Gaussian as a function of y; ``mean`` and ``width`` > 0 in units of y."""
    between("mean", mean, -np.inf, open_low=True)
    positive("width", width)
    return lambda y: -0.5 * ((y - mean) / width) ** 2 - np.log(width * np.sqrt(2 * np.pi))


def dpo_weight_limit(
    y: ArrayLike,
    log_p: LogDensity,
    log_q: LogDensity,
    low: float,
    high: float,
    *,
    beta: float = 1.0,
    points: ArrayLike = (),
) -> Array:
    """Return w(y) = E_t[σ(log q(y) − log q(t)) − σ(β(log p(y) − log p(t)))], t uniform on [low, high]; shape of y.

    It is the limit of ``dpo_weight``/n with a uniform reference, as n grows. Exact to about 1e-10, and to about 1e-13
    where a density is steep, kinked or narrow.

    points  where log p or log q has a peak or a kink that is narrower than a 4,000th of the interval, as for SciPy's
            ``quad``; such a place is not found otherwise, unless y lies on it or slopes lead to it.

    Raises ValueError for a log-density that is no smooth function with a few peaks, kinks and jumps.
    """
    y, beta, points = finite("y", y), positive("beta", beta), finite("points", points).ravel()
    low, high = _interval(low, high)
    scores = [partial(_values, "log_q", log_q), lambda t: beta * _values("log_p", log_p, t)]
    shared = shared_panels(low, high, scores, points)
    if shared is None:
        edges = base_edges(low, high, scores, points)
        means = [refined_means(_Beats(score, score(y.ravel())), y.ravel(), edges) for score in scores]
        return (means[0] - means[1]).reshape(y.shape)
    nodes, shares = shared

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
    points: ArrayLike = (),
) -> Array:
    """Return ``bdpo_weight``/n with a uniform reference, the sum over responses as an integral; the shape of y.

    cells   n, the number of responses on the interval: Balanced-DPO's λ sees probabilities, not densities, and so
            depends on the resolution. ∞: every λ is ½ and w(y) is half of ``dpo_weight_limit`` at β/2. On a continuum
            Balanced-DPO is DPO at β/2; grids tend to that only as 1/log n.
    log_p   must be normalised on [low, high] where ``cells`` is finite.
    points  as for ``dpo_weight_limit``, and so is the accuracy.

    λ is ½ between two cells that hold probability 1 each, as in ``bdpo_weight``. Raises ValueError where a cell would
    hold more than probability one, where p's total is off by more than 1e-6, and as ``dpo_weight_limit`` does.
    """
    y, beta, points = finite("y", y), positive("beta", beta), finite("points", points).ravel()
    if np.ndim(cells) == 0 and cells == np.inf:
        return 0.5 * dpo_weight_limit(y, log_p, log_q, low, high, beta=beta / 2, points=points)
    low, high = _interval(low, high)
    scores = [partial(_values, "log_q", log_q), lambda t: beta * _values("log_p", log_p, t)]
    shared = shared_panels(low, high, scores, points)
    size = np.log(high - low) - np.log(between("cells", cells, 2))
    loss = _Balanced(log_p, log_q, size, beta * np.log(cells), y.ravel())
    edges = base_edges(low, high, scores, points)
    least = min(loss.at_y.min(initial=np.inf), loss.cost(edges if shared is None else shared[0]).min())
    if least < 0:
        raise ValueError(f"cells must be so many that none holds more than probability 1, got {cells:g}")
    density = _Density(partial(_values, "log_p", log_p))
    if shared is None:
        total = (high - low) * float(refined_means(density, np.array([low]), edges)[0])
    else:
        total = (high - low) * float(density.value([_values("log_p", log_p, shared[0])]) @ shared[1])
    if not abs(total - 1) <= 1e-6:
        raise ValueError(f"log_p must be normalised on [low, high] where cells is finite, got a total of {total:.6g}")
    # λ turns within a few units of log p only where costs are small, and the margin no faster than β log p where not.
    if shared is None or least < max(1.0, np.log(cells) / 2):
        return refined_means(loss, y.ravel(), edges).reshape(y.shape)
    nodes, shares = shared
    # −log p_i of the cells at y and at the nodes
    cost, other = -_values("log_p", log_p, y)[..., None] - size, -_values("log_p", log_p, nodes) - size
    weight = other / (cost + other)
    margin = beta * (2 * weight - 1) * np.log(cells)
    wins = sigmoid(_values("log_q", log_q, y)[..., None] - _values("log_q", log_q, nodes))
    return (weight * (wins - sigmoid(margin))) @ shares


def equal_width_extrema(mean_p: float, mean_q: float, width: float) -> tuple[float, float]:
    """Return where (log q − log p) p has its (minimum, maximum), for two Gaussians of the same width.

    With half distance h and width s: μ_p + (h ∓ √(h² + 4s²))/2 for μ_p < μ_q. The minimum is always outside
    [μ_p, μ_q]; the maximum is inside only if h ≥ s/√2. Raises ValueError for equal means, where the product is 0.
    """
    for name, mean in (("mean_p", mean_p), ("mean_q", mean_q)):
        between(name, mean, -np.inf, open_low=True)
    if mean_q == mean_p:
        raise ValueError(f"mean_q must differ from mean_p, else there are no extrema, got {mean_q} for both")
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


def _interval(low: float, high: float) -> tuple[float, float]:
    """Return the ends of an interval of positive length."""
    low = between("low", low, -np.inf, open_low=True)
    return low, between("high", high, low, open_low=True)


@dataclass(frozen=True)
class _Beats:
    """σ(s(y) − s(t)) of a score s, with the scores at y, (k,)."""

    score: LogDensity
    at_y: Array

    def arguments(self, row: Array, t: Array) -> tuple[Array]:
        return (self.at_y[row, None] - self.score(t),)

    def value(self, arguments: Sequence[Array]) -> Array:
        return sigmoid(arguments[0].copy())


@dataclass(frozen=True)
class _Density:
    """A density, as the exponential of its logarithm."""

    log_density: LogDensity

    def arguments(self, row: Array, t: Array) -> tuple[Array]:
        return (self.log_density(t),)

    def value(self, arguments: Sequence[Array]) -> Array:
        return np.exp(np.minimum(arguments[0], 700.0))  # short of an overflow


class _Balanced:
    """Balanced-DPO's λ(σ(log q(y) − log q(t)) − σ(margin)), as a function of sigmoids: λ = σ(log other − log cost)."""

    def __init__(self, log_p: LogDensity, log_q: LogDensity, size: float, scale: float, y: Array) -> None:
        self.log_p, self.log_q, self.size, self.scale = log_p, log_q, size, scale
        self.at_y, self.preferred = self.cost(y), _values("log_q", log_q, y)

    def cost(self, t: Array) -> Array:
        """Return −log p of the cell at t."""
        return -_values("log_p", self.log_p, t) - self.size

    def arguments(self, row: Array, t: Array) -> tuple[Array, Array, Array]:
        # Shifted by the smallest normal number, which changes only 0/0: two certain cells weigh ½ each.
        cost, other = (np.maximum(part, 0) + np.finfo(float).tiny for part in (self.at_y[row, None], self.cost(t)))
        margin = self.scale * ((other - cost) / (other + cost))
        return np.log(other) - np.log(cost), margin, self.preferred[row, None] - _values("log_q", self.log_q, t)

    def value(self, arguments: Sequence[Array]) -> Array:
        weight, loses, wins = (sigmoid(argument.copy()) for argument in arguments)
        return weight * (wins - loses)
