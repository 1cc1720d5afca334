"""Densities of responses on a line that are given: references, as a Gaussian or a mixture of Gaussians."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from gradlab.checks import between, of_kind, positive, shown

SUCH_AS = "a density, such as GaussianMixture((0.0,), (1.0,), (1.0,))"


@runtime_checkable
class Density(Protocol):
    """A density on a line that a world can draw from: its logarithm and its distribution function, float64."""

    def log_density(self, y: Tensor) -> Tensor:
        """Return log π_ref(y), in the shape of y."""
        ...

    def cdf(self, y: Tensor) -> Tensor:
        """Return the probability of responses up to y, in the shape of y."""
        ...

    def draw(self, random: np.random.Generator, number: int) -> np.ndarray:
        """Return this many independent responses, (number,)."""
        ...


@dataclass(frozen=True)
class GaussianMixture:
    """A mixture of Gaussians; by default N(0, 1).

    means, sds  of the components; sds > 0, in units of y.
    shares      of the components, > 0 and one in sum.
    """

    means: tuple[float, ...] = (0.0,)
    sds: tuple[float, ...] = (1.0,)
    shares: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        given = {name: of_kind(name, getattr(self, name), (tuple, list), "a tuple of numbers")
                 for name in ("means", "sds", "shares")}  # fmt: skip
        counts = [len(part) for part in given.values()]
        if not 0 < counts[0] == counts[1] == counts[2]:
            got = ", ".join(map(str, counts))
            raise ValueError(f"means, sds and shares must be equally many, at least one, got {got}")
        for name, part in given.items():
            check = positive if name != "means" else lambda name, mean: between(name, mean, -math.inf, open_low=True)
            object.__setattr__(self, name, tuple(check(name, value) for value in part))
        if abs(sum(self.shares) - 1) > 1e-9:
            raise ValueError(f"shares must sum to one, got {shown(self.shares)}")

    def log_density(self, y: Tensor) -> Tensor:
        """Return log π_ref(y), in the shape of y."""
        means, sds, shares = self._columns()
        return mixture_log_density(y[..., None], shares.log(), means, sds.log())

    def cdf(self, y: Tensor) -> Tensor:
        """Return the probability of responses up to y, in the shape of y."""
        means, sds, shares = self._columns()
        return (torch.special.ndtr((y[..., None] - means) / sds) * shares).sum(-1)

    def draw(self, random: np.random.Generator, number: int) -> np.ndarray:
        """Return this many independent responses, (number,)."""
        which = random.choice(len(self.means), number, p=np.array(self.shares) / sum(self.shares))
        return np.array(self.means)[which] + np.array(self.sds)[which] * random.standard_normal(number)

    def _columns(self) -> tuple[Tensor, Tensor, Tensor]:
        means, sds, shares = (torch.tensor(part, dtype=torch.float64) for part in (self.means, self.sds, self.shares))
        return means, sds, shares


def mixture_log_density(y: Tensor, log_shares: Tensor, means: Tensor, log_sds: Tensor) -> Tensor:
    """Return the log density of a mixture of Gaussians; components along the last axis, which is summed over."""
    kernel = -0.5 * ((y - means) / log_sds.exp()) ** 2 - log_sds - 0.5 * math.log(2 * math.pi)
    return torch.logsumexp(log_shares + kernel, -1)


REFERENCES: dict[str, GaussianMixture] = {
    "normal": GaussianMixture(),
    "mixture": GaussianMixture((-1.5, 1.5), (0.7, 0.7), (0.5, 0.5)),
}
