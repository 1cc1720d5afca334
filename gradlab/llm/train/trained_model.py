"""A model with its optimiser, over all processes: gradients, steps, checkpoints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from gradlab.llm.model.group import Group, norm, plain, trainable
from gradlab.llm.train.checkpoints import load_checkpoint, save_checkpoint
from gradlab.llm.train.section_settings import LogSettings

_FLOOR = 0.1  # a schedule ends at this share of the highest learning rate


class TrainingSettings(Protocol):
    """The settings that any training has, whatever is trained."""

    @property
    def schedule(self) -> str: ...  # noqa: D102
    @property
    def warmup(self) -> float: ...  # noqa: D102
    @property
    def weight_decay(self) -> float: ...  # noqa: D102
    @property
    def max_norm(self) -> float: ...  # noqa: D102
    @property
    def log(self) -> LogSettings: ...  # noqa: D102


S = TypeVar("S", bound=TrainingSettings)


class TrainedModel(Generic[S]):
    """A model, spread over the group, with AdamW for the parameters that are trained.

    rate    the highest learning rate; ``steps`` the schedule's length.
    """

    def __init__(self, model: Any, group: Group, settings: S, *, rate: float, steps: int) -> None:
        self.model, self.group, self.settings, self.rate, self.steps = model, group, settings, rate, steps
        self.model.train()
        self.parameters = list(trainable(self.model).values())
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=rate, weight_decay=settings.weight_decay, betas=(0.9, 0.95), fused=True
        )
        self.tokens = 0  # that this process has trained on, without padding; a prompt in a shared row counts once

    @property
    def held(self) -> list[Tensor]:
        """Return the gradient itself, one tensor per parameter; zeros where a parameter has no gradient."""
        return [torch.zeros_like(p) if p.grad is None else p.grad.detach() for p in self.parameters]

    def gradient(self) -> list[Tensor]:
        """Return a copy of the gradient, one tensor per parameter; zeros where a parameter has no gradient."""
        return [part.clone() for part in self.held]

    def taken(self) -> list[Tensor]:
        """Take the gradient out of the model: it is returned, and the model holds none."""
        gradient = self.held
        self.clear()
        return gradient

    def put(self, gradient: Sequence[Tensor]) -> None:
        """Set the gradient."""
        for parameter, part in zip(self.parameters, gradient, strict=True):
            parameter.grad = part

    def clear(self) -> None:
        """Clear the gradient."""
        self.optimizer.zero_grad(set_to_none=True)

    def norm(self) -> float:
        """Return ‖g‖ over all parameters.

        It is not torch.nn.utils.get_total_norm, which sums in the gradient's type on a CPU too: over the 28 million
        weights of an embedding, float32 is wrong in the fourth digit there.
        """
        return norm([parameter.grad for parameter in self.parameters if parameter.grad is not None], self.group)

    def step(self, number: int, norm: float) -> float:
        """Make step ``number`` from 1, by the gradient, which is ``norm`` long; return the learning rate."""
        rate = scheduled(number, self.steps, self.rate, self.settings.schedule, self.settings.warmup)
        for options in self.optimizer.param_groups:
            options["lr"] = rate
        self.optimizer.grad_scale = self.scale(norm)  # type: ignore[attr-defined]
        self.optimizer.step()
        self.clear()
        return rate

    def scale(self, norm: float) -> Tensor | None:
        """Return the number that the optimizer divides a gradient of this norm by, so that it is max_norm long at most.

        None where the gradient is not too long. The division is part of AdamW's own pass over gradient and moments.
        """
        too_long = norm > self.settings.max_norm
        return torch.tensor(norm / self.settings.max_norm, device=self.group.device) if too_long else None

    def save(self, folder: Path, step: int, key: str) -> None:
        """Write a checkpoint."""
        save_checkpoint(folder, step, self.model, self.optimizer, self.group, key, keep=self.settings.log.keep)

    def resume(self, folder: Path, key: str) -> int:
        """Go back to the newest checkpoint, and return its step; 0 where there is none."""
        return load_checkpoint(folder, self.model, self.optimizer, self.group, key)

    @property
    def plain(self) -> Any:
        """Return the model itself, as transformers or peft knows it."""
        return plain(self.model)


def scheduled(step: int, steps: int, rate: float, schedule: str, warmup: float) -> float:
    """Return the rate of step 1, …, ``steps``: a linear warm-up over the share ``warmup``, then the schedule."""
    rising = math.ceil(warmup * steps)
    if step <= rising:
        return rate * step / rising
    if schedule == "constant":
        return rate
    gone = (step - rising) / max(steps - rising, 1)
    left = 1 - gone if schedule == "linear" else 0.5 * (1 + math.cos(math.pi * gone))
    return rate * (_FLOOR + (1 - _FLOOR) * left)
