"""Coordinates in which responses are written: other units, and other monotone functions of y.

A density changes with the coordinate: log π_z(z) = log π_y(y) − log dz/dy. A probability does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.checks import between, of_kind, positive, shown
from gradlab.lab.line.densities import SUCH_AS, Density
from gradlab.lab.line.interval import Interval
from gradlab.losses import PairLogps

_SAME = 1e-3  # by which log dz/dy may miss the slope between two neighbouring nodes


@dataclass(frozen=True, eq=False)
class Coordinate:
    """A coordinate z(y) that rises strictly.

    name       as it stands in tables, such as "1000 y".
    position   z of y, element by element, float64.
    log_slope  log dz/dy at y, in the shape of y.
    """

    name: str
    position: Callable[[Tensor], Tensor]
    log_slope: Callable[[Tensor], Tensor]

    def pairs(
        self, win: Tensor, lose: Tensor, ref_win: Tensor, ref_lose: Tensor, y: tuple[Tensor, Tensor]
    ) -> PairLogps:
        """Return log densities in this coordinate of pairs whose log densities in y are given.

        y  the responses of the winners and of the losers.
        """
        at_win, at_lose = map(self.log_slope, y)
        return PairLogps(win - at_win, lose - at_lose, ref_win - at_win, ref_lose - at_lose)


def scaled(unit: float) -> Coordinate:
    """Return the coordinate c·y; ValueError for a unit c ≤ 0."""
    unit = positive("unit", unit)
    log_unit = math.log(unit)
    return Coordinate("y" if unit == 1 else f"{unit:g} y", lambda y: unit * y, lambda y: torch.full_like(y, log_unit))


def hyperbolic() -> Coordinate:
    """Return the coordinate sinh y."""
    return Coordinate("sinh y", torch.sinh, lambda y: y.abs() + torch.log1p((-2 * y.abs()).exp()) - math.log(2))


def quantiles(reference: Density) -> Coordinate:
    """Return the reference's distribution function: in this coordinate, from 0 to 1, the reference is uniform."""
    of_kind("reference", reference, Density, SUCH_AS)
    return Coordinate("reference's CDF", reference.cdf, reference.log_density)


def cells(number: float, low: float, high: float) -> Coordinate:
    """Return the coordinate in which a density is the probability of one of so many equal cells on [low, high].

    The log-probability of a cell is its log density plus the logarithm of its width; there is no array of cells.
    """
    low = between("low", low, -math.inf, open_low=True)
    width = between("high", high, low, open_low=True) - low
    binned = scaled(between("number", number, 1) / width)
    return Coordinate(f"{number:g} cells", binned.position, binned.log_slope)


def coordinate(
    name: str, position: Callable[[Tensor], Tensor], log_slope: Callable[[Tensor], Tensor], on: Interval
) -> Coordinate:
    """Return a coordinate of one's own; ValueError where it does not rise strictly, or has another slope.

    on  the interval at whose nodes both functions are looked at.
    """
    of_kind("on", on, Interval, "an Interval, such as Interval(-8, 8)")
    for what, function in (("position", position), ("log_slope", log_slope)):
        if not callable(function):
            raise ValueError(f"{what} of {name} must be a function of responses, got {shown(function)}")
    z, slope = position(on.nodes), log_slope(on.nodes)
    for what, values in (("position", z), ("log_slope", slope)):
        if not isinstance(values, Tensor) or values.shape != on.nodes.shape or not bool(values.isfinite().all()):
            raise ValueError(f"{what} of {name} must be finite, one number per response, on [{on.low:g}, {on.high:g}]")
    rise = z.diff()
    if not bool((rise > 0).all()):
        at = float(on.nodes[:-1][rise <= 0][0])
        raise ValueError(
            f"position of {name} must rise strictly, so that responses keep their order, got none at {at:.4g}"
        )
    ends = slope[:-1], slope[1:]
    measured = (rise / on.nodes.diff()).log()
    missed = torch.maximum(torch.minimum(*ends) - measured, measured - torch.maximum(*ends))
    if float(missed.max()) > _SAME:
        at = float(on.nodes[int(missed.argmax())])
        raise ValueError(f"log_slope of {name} must be log dz/dy, got another slope at {at:.4g}")
    return Coordinate(name, position, log_slope)
