"""The extrema of a weight function, and Theorem 3's two statements about them.

Functions are sampled: flat stretches, rounding noise, coarse grids and ends of the grid are dealt with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from gradlab.checks import between
from gradlab.theory.inputs import Array, finite, grid

ALLOWED_CELLS = 1.0  # on a grid an extremum may miss a statement by this many cells
ROUNDING = 1e-9  # of a distance to a statement's border, in units of y
NOISE = 1e-12  # steps below this share of the function's range are rounding, not slope


@dataclass(frozen=True)
class Extremum:
    """A local extremum of a sampled function.

    position  in units of y, refined below the grid's resolution.
    value     f at the sampled point.
    kind      ``minimum`` or ``maximum``.
    at_end    True at an end of the grid, which counts only where f is lowest or highest of all.
    """

    position: float
    value: float
    kind: Literal["minimum", "maximum"]
    at_end: bool = False


@dataclass(frozen=True)
class Placement:
    """The position of a weight function's extrema relative to an interval.

    extrema  all of them, by position.
    slack    signed distance of the worst extremum, in units of y, from the boundary: ≥ 0 where the statement is true,
             else minus the distance by which it misses; ∞ without any extremum.
    reach    how far the lowest minimum and the highest maximum lie outside the interval, the larger of the two;
             0 where both are inside.
    """

    extrema: tuple[Extremum, ...]
    slack: float
    reach: float


def extrema(y: ArrayLike, f: ArrayLike, noise: ArrayLike | None = None) -> tuple[Extremum, ...]:
    """Return all local extrema of ``f`` (n,) sampled on ``y`` (n,), strictly increasing, n ≥ 3, by position.

    A flat extremum counts once, at its middle. Other positions are those of the parabola through the point and its
    neighbours. An end of the grid counts only where ``f`` is lowest or highest of all there.

    noise: the rounding error of ``f``, a number or (n,), one per point; None: 1e-12 of its range. A product such as
    w·p is exact to a share of p, so its far tails, however small, have true extrema: pass it ``product_noise``.
    """
    y, f = grid(y, f)
    error = np.asarray(NOISE * np.ptp(f)) if noise is None else finite("noise", noise)
    if error.shape not in ((), f.shape) or (error < 0).any():
        raise ValueError(f"noise must be ≥ 0, a number or of y's shape {y.shape}, got shape {error.shape}")
    error = np.broadcast_to(error, f.shape)
    steps = np.diff(f)
    rising = np.flatnonzero(np.abs(steps) > np.maximum(error[1:], error[:-1]))
    if not len(rising):  # constant, or only rounding
        return ()
    up = steps[rising] > 0
    turns = np.flatnonzero(up[:-1] != up[1:])
    local = [_turn(y, f, int(rising[k]) + 1, int(rising[k + 1]), bool(up[k])) for k in turns]
    for first, last, high in ((0, int(rising[0]), not up[0]), (int(rising[-1]) + 1, len(y) - 1, bool(up[-1]))):
        best, kind = (f.max(), "maximum") if high else (f.min(), "minimum")
        # A slow drift, as in a Gaussian's tail, leaves the level stretch before it reaches the end.
        level = first + np.flatnonzero(np.abs(f[first : last + 1] - best) <= error[first : last + 1])
        if len(level):
            local.append(Extremum(float(y[level[0]] + y[level[-1]]) / 2, float(f[level[0]]), kind, at_end=True))
    return tuple(sorted(local, key=lambda extremum: extremum.position))


def product_noise(product: ArrayLike, factor: ArrayLike) -> Array:
    """Return the rounding error of a product w·p, (n,), with its factor p ≥ 0: 1e-12 of the largest |w|, times p."""
    product, factor = finite("product", product), finite("factor", factor)
    if factor.shape != product.shape or (factor < 0).any():
        wanted = f"factor must be ≥ 0 and have product's shape {product.shape}"
        raise ValueError(f"{wanted}, got shape {factor.shape} with a least value of {factor.min(initial=0):g}")
    largest = np.divide(np.abs(product), factor, out=np.zeros_like(product), where=factor > 0).max(initial=0)
    return NOISE * largest * factor


def outside(y: ArrayLike, f: ArrayLike, low: float, high: float, noise: ArrayLike | None = None) -> Placement:
    """Judge Theorem 3 on DPO's weights: every local extremum lies outside [low, high] (the modes of p and q)."""
    return _place(y, f, low, high, noise, lambda position: max(low - position, position - high))


def inside(y: ArrayLike, f: ArrayLike, low: float, high: float, noise: ArrayLike | None = None) -> Placement:
    """Judge Theorem 3 on balanced weights: every local extremum lies inside [low, high] (the modes of p and q)."""
    return _place(y, f, low, high, noise, lambda position: min(position - low, high - position))


def _place(
    y: ArrayLike, f: ArrayLike, low: float, high: float, noise: ArrayLike | None, distance: Callable[[float], float]
) -> Placement:
    between("high", high, between("low", low, -np.inf, open_low=True))
    everything = extrema(y, f, noise)
    slack = min((distance(extremum.position) for extremum in everything), default=np.inf)
    main = [kind(everything, key=lambda extremum: extremum.value) for kind in (min, max) if everything]
    reach = max((max(low - at, at - high, 0.0) for at in (extremum.position for extremum in main)), default=0.0)
    return Placement(everything, float(slack), float(reach))


def _turn(y: Array, f: Array, first: int, last: int, high: bool) -> Extremum:
    """Return the extremum on the level stretch from point ``first`` to point ``last``."""
    kind = "maximum" if high else "minimum"
    if first != last:
        return Extremum(float(y[first] + y[last]) / 2, float(f[first]), kind)
    left, right = y[first] - y[first - 1], y[first + 1] - y[first]
    fall, rise = f[first] - f[first - 1], f[first + 1] - f[first]
    # The vertex of the parabola through three points, which need not be evenly spaced.
    offset = (left**2 * rise + right**2 * fall) / (2 * (right * fall - left * rise))
    return Extremum(float(y[first] + np.clip(offset, -left / 2, right / 2)), float(f[first]), kind)
