"""Policies on a line: a Gaussian, a mixture of Gaussians, and a small network of energies, all in torch and float64.

The parameters of several runs stand in one tensor, (runs, k). Every policy starts at a reference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from gradlab.checks import count, keep_plain, of_kind, one_of, shown
from gradlab.lab.line.densities import Density, GaussianMixture, mixture_log_density
from gradlab.lab.line.interval import NEAR, Interval
from gradlab.streams import Purpose, stream


@runtime_checkable
class LinePolicy(Protocol):
    """A family of densities on a line."""

    name: ClassVar[str]

    def start(self, reference: Density, seeds: Sequence[int]) -> Tensor:
        """Return the parameters at which every run starts, (runs, k): the policy is the reference.

        ValueError for a reference that the policy cannot be.
        """
        ...

    def log_density(self, theta: Tensor, y: Tensor, reference: Density) -> Tensor:
        """Return log π(y), (runs, n), of the parameters (runs, k) at responses y, (runs, n) or (n,)."""
        ...


@dataclass(frozen=True)
class GaussianPolicy:
    """A Gaussian with two parameters: its mean and the logarithm of its standard deviation."""

    name: ClassVar[str] = "gaussian"

    def start(self, reference: Density, seeds: Sequence[int]) -> Tensor:
        """Return mean and log sd of a reference that is a Gaussian, (runs, 2)."""
        if not isinstance(reference, GaussianMixture) or len(reference.means) != 1:
            raise ValueError(f"reference must be a Gaussian where the policy starts as one, got {reference}")
        row = torch.tensor([reference.means[0], math.log(reference.sds[0])], dtype=torch.float64)
        return row.expand(len(seeds), 2).clone()

    def log_density(self, theta: Tensor, y: Tensor, reference: Density) -> Tensor:
        """Return log π(y), (runs, n)."""
        mean, log_sd = theta[:, :1], theta[:, 1:]
        return -0.5 * ((y - mean) * (-log_sd).exp()) ** 2 - log_sd - 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True)
class MixturePolicy:
    """A mixture of Gaussians with three parameters per component: a logit of its share, its mean, its log sd."""

    name: ClassVar[str] = "mixture"

    def start(self, reference: Density, seeds: Sequence[int]) -> Tensor:
        """Return the components of a reference that is a mixture of Gaussians, (runs, 3 K)."""
        if not isinstance(reference, GaussianMixture):
            raise ValueError(f"reference must be a GaussianMixture where the policy starts as one, got {reference}")
        parts = (np.log(reference.shares), reference.means, np.log(reference.sds))
        row = torch.as_tensor(np.concatenate(parts, dtype=float))
        return row.expand(len(seeds), len(row)).clone()

    def log_density(self, theta: Tensor, y: Tensor, reference: Density) -> Tensor:
        """Return log π(y), (runs, n)."""
        logits, means, log_sds = theta[:, None, :].chunk(3, -1)
        return mixture_log_density(y[..., None], logits.log_softmax(-1), means, log_sds)


@dataclass(frozen=True)
class EnergyNetwork:
    """A density π ∝ π_ref e^f, f a network with one hidden layer of tanh, normalised by quadrature.

    hidden    units, ≥ 1; f has three parameters per unit.
    interval  on which π is normalised. tanh(w y + b) is analytic within π/(2w) of the line, so that panels shorter
              than that are exact to about 1e-10.

    The output weights start at 0, so that the policy starts at any reference.
    """

    hidden: int = 12
    interval: Interval = NEAR

    name: ClassVar[str] = "energy"

    def __post_init__(self) -> None:
        keep_plain(self, hidden=count("hidden", self.hidden, least=1, most=10**4))
        of_kind("interval", self.interval, Interval, "an Interval, such as Interval(-8, 8)")

    def start(self, reference: Density, seeds: Sequence[int]) -> Tensor:
        """Return slopes and places of the units, drawn by each run's seed, and output weights of 0, (runs, 3 K)."""
        rows = []
        for seed in seeds:
            random = stream(seed, Purpose.LINE_NETWORK)
            slope = random.choice([-1.0, 1.0], self.hidden) * random.uniform(1.0, 3.0, self.hidden)
            place = random.uniform(-3.0, 3.0, self.hidden)
            rows.append(np.concatenate([slope, -slope * place, np.zeros(self.hidden)]))
        return torch.as_tensor(np.stack(rows))

    def energy(self, theta: Tensor, y: Tensor) -> Tensor:
        """Return f(y) = Σ_k v_k tanh(w_k y + b_k), (runs, n)."""
        slopes, places, out = theta.chunk(3, -1)
        units = torch.tanh(y[..., None] * slopes[:, None, :] + places[:, None, :])
        return (units @ out[:, :, None]).squeeze(-1)

    def log_density(self, theta: Tensor, y: Tensor, reference: Density) -> Tensor:
        """Return log π(y), (runs, n)."""
        nodes, weights = self.interval.nodes, self.interval.weights
        known = reference.log_density(nodes) + weights.log()
        log_total = torch.logsumexp(known + self.energy(theta, nodes), -1, keepdim=True)
        return reference.log_density(y) + self.energy(theta, y) - log_total


POLICIES: dict[str, LinePolicy] = {one.name: one for one in (GaussianPolicy(), MixturePolicy(), EnergyNetwork())}


def line_policy(policy: LinePolicy | str) -> LinePolicy:
    """Return a policy by its name, or the policy that is given."""
    if isinstance(policy, str):
        return POLICIES[one_of("policy", policy, POLICIES)]
    accepted = f"one of {', '.join(POLICIES)}, or a policy on a line"
    if isinstance(policy, type):  # a class has the methods of a policy, too
        raise ValueError(f"policy must be {accepted}, got {shown(policy)}")
    return of_kind("policy", policy, LinePolicy, accepted)
