"""Optimisers, one object each: an update rule that runs over tensors, arrays and the engine's values alike.

To add an optimiser, write a class here with the members of ``Optimizer``, and its entry in ``OPTIMIZERS``. ``fit``,
the engine, the command line, sweeps and the explorers' menus then have it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from gradlab.checks import one_of

# The numbers that a rule works on: a tensor, an array, or lanes of the engine's code. All have the operators of
# arithmetic, but no type in common.
Numbers = Any


class Optimizer(Protocol):
    """A rule that moves parameters along a gradient.

    memories  how many numbers it keeps per parameter from step to step; all are 0 at first.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    memories: ClassVar[int]

    def factors(self, learning_rate: float, steps: int) -> np.ndarray:
        """Return the two numbers that ``update`` needs at each step, (steps, 2) float64."""
        ...

    def update(
        self, parameter: Numbers, gradient: Numbers, memory: Sequence[Numbers], factors: Sequence[Numbers],
        sqrt: Callable[[Numbers], Numbers],
    ) -> tuple[Numbers, Sequence[Numbers]]:  # fmt: skip
        """Return the parameter and the memory after one step. ``sqrt`` is the square root for this kind of numbers."""
        ...

    def stepper(self, parameters: Iterable[Tensor], learning_rate: float) -> torch.optim.Optimizer:
        """Return PyTorch's optimiser of the same rule, which the eager loop steps by: an independent reference."""
        ...


class Adam:
    """Adam with β₁ = 0.9, β₂ = 0.999, ε = 1e-8. Source: Kingma and Ba 2015, arXiv 1412.6980; the defaults too."""

    name: ClassVar[str] = "adam"
    label: ClassVar[str] = "Adam"
    memories: ClassVar[int] = 2
    betas: ClassVar[tuple[float, float]] = (0.9, 0.999)
    epsilon: ClassVar[float] = 1e-8

    def factors(self, learning_rate: float, steps: int) -> np.ndarray:
        """Return the step size, and the factor on the root of the second moment; both correct for moments from zero."""
        taken = np.arange(1, steps + 1)
        with np.errstate(over="ignore"):  # far too large a learning rate shows later, in a policy that is not finite
            return np.stack(
                [learning_rate / (1 - self.betas[0] ** taken), (1 - self.betas[1] ** taken) ** -0.5], axis=1
            )

    def update(
        self, parameter: Numbers, gradient: Numbers, memory: Sequence[Numbers], factors: Sequence[Numbers],
        sqrt: Callable[[Numbers], Numbers],
    ) -> tuple[Numbers, Sequence[Numbers]]:  # fmt: skip
        """Move against the mean gradient over the root of the mean square."""
        rate, correction = factors
        momentum = memory[0] * self.betas[0] + gradient * (1 - self.betas[0])
        square = memory[1] * self.betas[1] + gradient * gradient * (1 - self.betas[1])
        direction = momentum / (sqrt(square) * correction + self.epsilon)
        return parameter - rate * direction, (momentum, square)

    def stepper(self, parameters: Iterable[Tensor], learning_rate: float) -> torch.optim.Optimizer:
        """Return ``torch.optim.Adam``."""
        return torch.optim.Adam(parameters, lr=learning_rate, betas=self.betas, eps=self.epsilon, fused=True)


class GradientDescent:
    """Plain gradient descent: each step is the learning rate times the gradient."""

    name: ClassVar[str] = "gd"
    label: ClassVar[str] = "gradient descent"
    memories: ClassVar[int] = 0

    def factors(self, learning_rate: float, steps: int) -> np.ndarray:
        """Return the learning rate, and a 1 that nothing uses."""
        return np.stack([np.full(steps, learning_rate), np.ones(steps)], axis=1)

    def update(
        self, parameter: Numbers, gradient: Numbers, memory: Sequence[Numbers], factors: Sequence[Numbers],
        sqrt: Callable[[Numbers], Numbers],
    ) -> tuple[Numbers, Sequence[Numbers]]:  # fmt: skip
        """Move against the gradient."""
        return parameter - factors[0] * gradient, memory

    def stepper(self, parameters: Iterable[Tensor], learning_rate: float) -> torch.optim.Optimizer:
        """Return ``torch.optim.SGD``."""
        return torch.optim.SGD(parameters, lr=learning_rate)


OPTIMIZERS: dict[str, Optimizer] = {rule.name: rule for rule in (Adam(), GradientDescent())}


def optimizer_of(name: str) -> Optimizer:
    """Return the optimiser of that name; ValueError names those that exist."""
    return OPTIMIZERS[one_of("optimizer", name, OPTIMIZERS)]
