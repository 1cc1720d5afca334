"""Follow a gradient step by step in PyTorch: the eager loop, which is the reference for ``gradlab.lab.engine``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from gradlab.checks import count, one_of, positive
from gradlab.lab.objective import from_columns, mix, to_columns
from gradlab.lab.policy import Policy, features_of, is_free
from gradlab.lab.runs import Runs

Optimizer = Literal["adam", "gd"]
Gradient = Callable[[Tensor], Tensor]  # log π (Y, C) → ∂L/∂log π (Y, C)


@dataclass(frozen=True)
class Descent:
    """How to descend: optimiser, learning rate, where and in which precision, and whether to show progress.

    Raises ValueError for an optimiser that does not exist, or a learning rate that is not finite and positive.
    """

    optimizer: Optimizer
    learning_rate: float
    device: str
    dtype: torch.dtype
    progress: bool

    def __post_init__(self) -> None:
        one_of("optimizer", self.optimizer, get_args(Optimizer))
        positive("learning_rate", self.learning_rate)
        if not self.dtype.is_floating_point:
            raise ValueError(f"dtype must be a floating-point type such as torch.float64, got {self.dtype}")

    def run(
        self,
        runs: Runs,
        gradient_of: Callable[[slice], Gradient],
        start: Tensor,
        policy: Policy,
        wanted: np.ndarray,
        *,
        slots: int,
        label: str,
        normalise: bool = True,
    ) -> Tensor:
        """Descend from ``start`` (R, X, Y), block by block; log π at the ``wanted`` steps, (S, R, X, Y).

        gradient_of  gives the gradient of a block of runs, item first; ``slots`` is how many rows its tensors have.
        normalise    False: logits are free scores and not log-probabilities, as in a reward model.

        Raises FloatingPointError if a policy stops being finite.
        """
        features = features_of(policy, runs.responses).to(self.device, self.dtype)
        parts = []
        with self.bar(label, runs.count, int(wanted[-1])) as bar, steady(self.device):
            for block in runs.blocks(slots, self.device):
                width = block.stop - block.start
                columns = to_columns(start[block], self.device, self.dtype)

                def tick(steps: int, width: int = width) -> None:
                    bar.update(steps * width)

                followed = self._follow(gradient_of(block), columns, features, wanted, tick, normalise)
                parts.append(from_columns(followed, width, runs.prompts))
        policies = torch.cat(parts, 1)
        check_finite(policies, wanted, self.learning_rate)
        return policies

    def bar(self, label: str, runs: int, steps: int) -> tqdm:
        """What shows the steps of all runs as they are done, if progress is to be shown."""
        return tqdm(total=runs * steps, desc=f"{label}: {runs} runs", unit="step", disable=not self.progress)

    def _follow(
        self,
        gradient: Gradient,
        start: Tensor,
        features: Tensor,
        wanted: np.ndarray,
        tick: Callable[[int], None],
        normalise: bool,
    ) -> Tensor:
        theta = torch.zeros(features.shape[1], start.shape[1], dtype=self.dtype, device=self.device, requires_grad=True)
        stepper = self._stepper(theta)
        free = is_free(features)
        kept, due, last = [], set(wanted.tolist()), int(wanted[-1])
        for step in range(last + 1):
            values = theta.detach()
            logp = start + (values if free else mix(features, values))
            if normalise:
                logp = torch.log_softmax(logp, 0)
            if step in due:
                kept.append(logp)
            if step == last:
                break
            slope = gradient(logp)
            if normalise:  # through the softmax: ∂L/∂logit = g − π Σ g
                slope = torch.addcmul(slope, logp.exp(), slope.sum(0), value=-1)
            theta.grad = slope if free else mix(features.T, slope)
            stepper.step()
            if step % 50 == 49 or step == last - 1:
                tick(step % 50 + 1)
        return torch.stack(kept)

    def _stepper(self, theta: Tensor) -> torch.optim.Optimizer:
        if self.optimizer == "adam":
            return torch.optim.Adam([theta], lr=self.learning_rate, fused=True)
        return torch.optim.SGD([theta], lr=self.learning_rate)


def recorded_steps(steps: int, record: int) -> np.ndarray:
    """0, about ``record`` log-spaced steps from 1 on, and the last: sorted whole numbers."""
    count("steps", steps, least=1)
    count("record", record, least=1)
    spaced = np.geomspace(1, steps, record).round().astype(int) if record > 1 else []
    return np.unique([0, *spaced, steps])


def check_finite(policies: Tensor, steps: np.ndarray, learning_rate: float) -> None:
    """FloatingPointError names the first of the recorded steps at which a policy (S, ...) is not finite."""
    broken = ~policies.isfinite().flatten(1).all(1)
    if broken.any():
        step = steps[int(broken.nonzero()[0, 0])]
        raise FloatingPointError(f"the policy is not finite at step {step}; learning_rate={learning_rate} is too large")


@contextlib.contextmanager
def steady(device: str) -> Iterator[None]:
    """One thread on the CPU (two on a busy core can be slower by orders), determinism on CUDA; also a decorator."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    cpu = torch.device(device).type == "cpu"
    torch.set_num_threads(1)
    if not cpu:
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if not cpu:  # also because to call it imports torch's compiler, which takes a second
            torch.use_deterministic_algorithms(deterministic)
