"""Means over an interval of functions of sigmoids, by Gauss–Legendre panels that are refined where needed.

A log-density s makes σ(s(y) − s(t)) turn from 0 to 1 within a few units of s, at t = y and wherever else s(t) is s(y).
Panels that all y share see this where s changes little within a panel. Else each y refines its panels (ours).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from gradlab.theory.inputs import Array

RISE = 8.0  # units that a sigmoid's argument may change within a panel: 16 nodes are then exact to about 1e-10
_X, _WEIGHT = np.polynomial.legendre.leggauss(16)
_WITH_ENDS = np.concatenate([[-1.0], _X, [1.0]])
_VANDER = np.polynomial.legendre.legvander
_TO_ENDS = np.linalg.solve(_VANDER(_X, 15).T, _VANDER(np.array([-1.0, 1.0]), 15).T)  # the polynomial's values there
_PIECES = 512  # that are searched for the steepest slope
_EVEN = (16, 4096)  # the fewest and the most equal panels
_SEEN = 4096  # places, at least, at which scores are looked at
_FLAT = 1e-6  # units of a score: smaller turns are rounding
_SETTLED = 40.0  # beyond ± this a sigmoid is 0 or 1 to the last bit
_UNSEEN = 1e-12  # a score may miss its polynomial by this many units over the whole interval
_BASE = 64  # panels before refinement
_LEVELS = 60  # halvings: the last bit of the interval
_EXACT = 1e-14  # a panel's share of a mean changes by less than this when it is halved for the last time
_PAIRS = 16384  # of y and panel that are refined at once, so that memory stays small
_MOST = 400  # panels per y, beyond which a function is no smooth function with a few peaks, kinks and jumps


Scores = Sequence[Callable[[Array], Array]]


class Integrand(Protocol):
    """A function of y and t that is smooth in its sigmoids' arguments."""

    def arguments(self, row: Array, t: Array) -> Sequence[Array]:
        """Return the sigmoids' arguments at y[row], row (k,), and t (k, m): arrays (k, m)."""
        ...

    def value(self, arguments: Sequence[Array]) -> Array:
        """Return the integrand, (k, m), from its arguments."""
        ...


def shared_panels(low: float, high: float, scores: Scores, points: Array) -> tuple[Array, Array] | None:
    """Return nodes on [low, high] and their shares, which sum to one, for every y; None where they would be too many.

    There are enough equal panels that the steepest score changes by at most ``RISE`` within a panel. A panel is halved
    until each score is, at 4,096 places in all or more, the polynomial through the panel's nodes: a kink, a jump or a
    narrow peak is not. Then the turns and ``points`` of ``base_edges`` are ends of panels too.
    """
    scan = np.linspace(low, high, _PIECES + 1)
    rise = max(np.abs(np.diff(score(scan))).max() for score in scores)
    wanted = max(np.ceil(rise * _PIECES / RISE), _EVEN[0])
    if wanted > _EVEN[1]:
        return None
    edges = np.linspace(low, high, int(wanted) + 1)
    places = max(_SEEN // int(wanted), 3)
    if len(points) or not _polynomial(edges[:-1], edges[1:], scores, places, high - low).all():
        edges = np.union1d(edges, base_edges(low, high, scores, points))
    left, right = edges[:-1], edges[1:]
    todo = ~_polynomial(left, right, scores, places, high - low)
    while todo.any():
        if len(left) > _EVEN[1]:
            return None
        middle = (left[todo] + right[todo]) / 2
        halves = np.concatenate([left[todo], middle]), np.concatenate([middle, right[todo]])
        left, right = (np.concatenate([end[~todo], half]) for end, half in zip((left, right), halves, strict=True))
        unresolved = ~_polynomial(*halves, scores, places, high - low)
        todo = np.concatenate([np.zeros(len(left) - len(unresolved), bool), unresolved])
    middle, half = (right + left) / 2, (right - left) / 2
    nodes = middle[:, None] + half[:, None] * _X
    return nodes.ravel(), (half[:, None] * _WEIGHT).ravel() / (high - low)


def _polynomial(left: Array, right: Array, scores: Scores, places: int, span: float) -> Array:
    """Return in which panels each score is the polynomial through the nodes, as far as the mean can tell, (panels,)."""
    middle, half = (right + left)[:, None] / 2, (right - left)[:, None] / 2
    between = np.linspace(-1, 1, places)
    to_places = np.linalg.solve(_VANDER(_X, 15).T, _VANDER(between, 15).T)
    there = np.clip(middle + half * between, left[:, None], right[:, None])
    resolved = np.ones(len(left), bool)
    for score in scores:
        at_nodes, at_places = score(middle + half * _X), score(there)
        missed, size = np.abs(at_nodes @ to_places - at_places).max(1), np.abs(at_places).max(1)
        resolved &= (missed <= 1e-9 + 1e-12 * size) | (missed * half[:, 0] <= _UNSEEN * span)
    return resolved


def base_edges(low: float, high: float, scores: Scores, points: Array) -> Array:
    """Return the edges of the panels with which refinement begins: evenly spaced, the scores' turns, and ``points``.

    A turn is a local extremum of a score at 4,097 places. A narrower peak is seen only from points on it.
    """
    scan = np.linspace(low, high, _SEEN + 1)
    turns = []
    for score in scores:
        step = np.diff(score(scan))
        up, down = step > _FLAT, step < -_FLAT
        turns.append(scan[1:-1][(up[:-1] & ~up[1:]) | (down[:-1] & ~down[1:])])
    inside = points[(points > low) & (points < high)]
    return np.unique(np.concatenate([np.linspace(low, high, _BASE + 1), *turns, inside]))


def refined_means(integrand: Integrand, y: Array, edges: Array) -> Array:
    """Return the mean of an integrand over t between the first edge and the last, for each y (k,), to about 1e-13.

    A panel is halved until each sigmoid's argument changes by at most ``RISE`` in it, or leaves the sigmoid at 0 or 1,
    and until halving it once more changes nothing. y is an edge for itself, since the integrand turns there.

    Raises ValueError where that takes more than 400 panels per y besides the edges: the function is not smooth.
    """
    step = max(1, _PAIRS // len(edges))
    parts = [_means(integrand, np.arange(k, min(k + step, len(y))), y, edges) for k in range(0, len(y), step)]
    return np.concatenate([np.empty(0), *parts])


def _means(integrand: Integrand, rows: Array, y: Array, edges: Array) -> Array:
    """Return ``refined_means`` for some rows of y."""
    kinks = np.clip(y[rows], edges[0], edges[-1])
    ends = np.sort(np.concatenate([np.broadcast_to(edges, (len(rows), len(edges))), kinks[:, None]], axis=1), axis=1)
    row, left, right = np.repeat(rows, len(edges)), ends[:, :-1].ravel(), ends[:, 1:].ravel()
    most, span = len(row) + _MOST * len(rows), edges[-1] - edges[0]
    total, (before, _) = np.zeros(len(rows)), _panels(integrand, row, left, right, span)
    for _ in range(_LEVELS):
        middle = (left + right) / 2
        halves = [_panels(integrand, row, *ends, span) for ends in ((left, middle), (middle, right))]
        both = halves[0][0] + halves[1][0]
        exact = halves[0][1] & halves[1][1] & (np.abs(both - before) <= _EXACT)
        done = exact | (right - left <= np.finfo(float).eps * span)
        total += np.bincount(row[done] - rows[0], both[done], minlength=len(rows))
        again = ~done
        if not again.any():
            return total
        if again.sum() > most:
            break
        row, left, right, middle = row[again], left[again], right[again], middle[again]
        row, left, right = np.tile(row, 2), np.concatenate([left, middle]), np.concatenate([middle, right])
        before = np.concatenate([half[0][again] for half in halves])
    raise ValueError(
        "log_p and log_q must be smooth but for a few peaks, kinks and jumps, got more than can be refined"
    )


def _panels(integrand: Integrand, row: Array, left: Array, right: Array, span: float) -> tuple[Array, Array]:
    """Return each panel's share of the mean, and whether the integrand is resolved in it."""
    t = (left + right)[:, None] / 2 + (right - left)[:, None] / 2 * _WITH_ENDS
    arguments = integrand.arguments(row, t)
    resolved = np.ones(len(row), bool)
    for argument in arguments:
        low, high = argument.min(1), argument.max(1)
        slack = np.abs(np.diff(argument, axis=1)).max(1)  # a smooth function strays about as far between two nodes
        resolved &= (high - low <= RISE) | (low - slack > _SETTLED) | (high + slack < -_SETTLED)
    values, share = integrand.value(arguments), (right - left) / span
    inner = values[:, 1:-1]
    # A kink between an end and the nearest node shows at the end alone.
    missed = np.abs(inner @ _TO_ENDS - values[:, [0, -1]]).max(1)
    resolved &= missed * share * (1 + _X[0]) <= _EXACT
    return inner @ _WEIGHT * share / 2, resolved
