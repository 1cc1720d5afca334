"""The interval on which responses lie, with nodes and weights: sums that stand for integrals."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from gradlab.checks import between, count, keep_plain, positive

LogDensity = Callable[[Tensor], Tensor]  # of y, element by element

NODES = 16  # of the Gauss–Legendre rule in each panel
OFF = 1e-6  # a density's total may differ from one by this much


@dataclass(frozen=True)
class Interval:
    """Responses between two ends, in panels with 16 Gauss–Legendre nodes each.

    low, high  the ends, low < high, in units of y.
    panels     ≥ 1. A Gaussian density is exact to about 1e-13 where its standard deviation is at least a fifth of the
               length of the panels there, see ``gaussian_error``.
    even       > 0, in units of y: panels are about equal up to this distance from 0, and grow in proportion to the
               distance beyond it; None: all are equal.
    """

    low: float = -1000.0
    high: float = 1000.0
    panels: int = 240
    even: float | None = 4.0
    nodes: Tensor = field(init=False, repr=False, compare=False)  # (n,) float64, rising
    weights: Tensor = field(init=False, repr=False, compare=False)  # (n,), in sum high − low

    def __post_init__(self) -> None:
        low = between("low", self.low, -math.inf, open_low=True)
        high = between("high", self.high, low, open_low=True)
        even = None if self.even is None else positive("even", self.even)
        keep_plain(self, low=low, high=high, even=even, panels=count("panels", self.panels, least=1, most=10**5))
        x, weight = np.polynomial.legendre.leggauss(NODES)
        edges = self.edges
        middle, half = (edges[1:] + edges[:-1]) / 2, (edges[1:] - edges[:-1]) / 2
        object.__setattr__(self, "nodes", torch.as_tensor((middle[:, None] + half[:, None] * x).ravel()))
        object.__setattr__(self, "weights", torch.as_tensor((half[:, None] * weight).ravel()))

    @property
    def edges(self) -> np.ndarray:
        """Return the ends of the panels, (panels + 1,)."""
        if self.even is None:
            return np.linspace(self.low, self.high, self.panels + 1)
        first, last = (math.asinh(end / self.even) for end in (self.low, self.high))
        return self.even * np.sinh(np.linspace(first, last, self.panels + 1))

    def integral(self, values: Tensor) -> Tensor:
        """Return the integrals over the interval of functions by their values at the nodes, (..., n) → (...)."""
        return values @ self.weights

    def checked(self, name: str, log_density: LogDensity) -> Tensor:
        """Return a log density at the nodes, (n,); ValueError unless its exponential integrates to one."""
        logp = log_density(self.nodes)
        total = float(self.integral(logp.exp()))
        if not abs(total - 1) <= OFF:
            raise ValueError(
                f"{name} must integrate to one on [{self.low:g}, {self.high:g}], got a total of {total:.6g}"
            )
        return logp


WHOLE = Interval()  # on which policies are measured
NEAR = Interval(-8.0, 8.0, 32, None)  # on which energies are normalised, at every step


def gaussian_error(sd: float, length: float) -> float:
    """Return a bound on the error that 16 nodes make in the integral of a Gaussian density over one panel.

    sd, length  of the density and of the panel, in the same units.

    With n nodes the error on a panel of half length a is at most (64/15) a M ρ^{−2n}/(1 − ρ^{−2}), for every ρ > 1,
    where M bounds the density in the ellipse with foci at the panel's ends and half axes a(ρ ± 1/ρ)/2 (Trefethen 2008,
    SIAM Review 50, theorem 4.5). There |exp(−z²/2)| ≤ exp(y²/2), with y the imaginary part, in units of sd: at most
    a(ρ − 1/ρ)/2. The bound is the least over a list of ρ.
    """
    half = positive("length", length) / 2
    rho = np.geomspace(1.01, 100, 2000)
    grown = (half * (rho - 1 / rho) / 2 / positive("sd", sd)) ** 2 / 2
    log_bound = np.log(64 / 15 * half / (sd * math.sqrt(2 * math.pi))) + grown - 2 * NODES * np.log(rho)
    return float(np.exp((log_bound - np.log1p(-(rho**-2.0))).min()))
