"""Tabular policies, whose logits are linear in the parameters: one interface serves free logits and shared features.

log π(·|x) = log-softmax(log π_start(·|x) + Φ θ_x), with Φ of shape (Y, K) and one parameter vector θ_x per prompt.
Free logits have Φ = I; shared parameters couple the responses of a prompt. At θ = 0 the policy is its start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from gradlab.checks import count, keep_plain, one_of, positive, shown


class Policy(Protocol):
    """A tabular policy: a name and the features of its responses."""

    name: ClassVar[str]

    def features(self, responses: int) -> Tensor:
        """Return Φ, shape (Y, K), float64."""
        ...


@dataclass(frozen=True)
class FreeLogits:
    """One free logit for every (prompt, response): Φ = I. The paper's tabular policy, as we read it."""

    name: ClassVar[str] = "free"

    def features(self, responses: int) -> Tensor:
        """Return Φ = I, shape (Y, Y)."""
        return torch.eye(responses, dtype=torch.float64)


@dataclass(frozen=True)
class RadialBasis:
    """Shared parameters: K Gaussian bumps, evenly spaced over the response axis (ours).

    centres  K ≥ 1, the number of bumps, and of parameters per prompt.
    width    standard deviation of a bump, in multiples of the spacing between bumps.

    Each row of Φ is scaled to unit length, so that one step of gradient descent moves a logit about as far as with
    free logits, and moves its neighbours too.
    """

    centres: int = 8
    width: float = 1.0

    name: ClassVar[str] = "shared"

    def __post_init__(self) -> None:
        keep_plain(self, centres=count("centres", self.centres, least=1), width=positive("width", self.width))

    def features(self, responses: int) -> Tensor:
        """Return Φ with rows of unit length, shape (Y, K)."""
        last = float(responses - 1)
        centres = (
            torch.linspace(0.0, last, self.centres, dtype=torch.float64)
            if self.centres > 1
            else (torch.tensor([last / 2], dtype=torch.float64))
        )
        spacing = last / max(self.centres - 1, 1)
        distance = torch.arange(responses, dtype=torch.float64)[:, None] - centres
        exponent = -0.5 * (distance / (self.width * spacing)) ** 2
        exponent = exponent - exponent.max(1, keepdim=True).values  # far from all bumps must not underflow to 0/0
        return torch.nn.functional.normalize(exponent.exp(), dim=1)


FREE_LOGITS = FreeLogits()
POLICIES: dict[str, Policy] = {"free": FREE_LOGITS, "shared": RadialBasis()}


def tabular_policy(name: str) -> Policy:
    """Return the registered policy of that name, with its default settings; ValueError names those that exist."""
    return POLICIES[one_of("policy", name, POLICIES)]


def check_policy(policy: object) -> None:
    """Raise a ValueError for anything that is not a policy, such as a class."""
    if isinstance(policy, type) or not hasattr(policy, "features"):
        raise ValueError(
            f"policy must be one of {', '.join(POLICIES)}, FreeLogits() or RadialBasis(), got {shown(policy)}"
        )


def is_free(features: Tensor) -> bool:
    """Say whether Φ is the unit matrix: then each response has its own logit."""
    return torch.equal(features, torch.eye(*features.shape, dtype=features.dtype, device=features.device))


def log_policy(policy: Policy, parameters: Tensor, start_logp: Tensor) -> Tensor:
    """Return log π, shape (..., X, Y), from parameters (..., X, K) and the start's log-probabilities (..., X, Y)."""
    features = policy.features(start_logp.shape[-1]).to(parameters)
    return torch.log_softmax(start_logp + parameters @ features.T, dim=-1)
