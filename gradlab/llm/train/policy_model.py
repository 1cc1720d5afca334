"""One model with its optimiser, over all processes: forwards, gradients of micro-batches, steps, checkpoints."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradlab.llm.data.batches import Row, collate
from gradlab.llm.model.group import Group, computing, dot, gradients_meet, local, plain, spread, trainable
from gradlab.llm.model.logps import with_logps
from gradlab.llm.model.seeded import drawing
from gradlab.llm.train.checkpoints import load_checkpoint, save_checkpoint
from gradlab.llm.train.run_settings import Settings

_FLOOR = 0.1  # of the highest learning rate, where a schedule ends


class PolicyModel:
    """The model that a stage trains, with its optimiser. All processes make the same calls.

    model      one of ``load_model``, with its LoRA adapter where it has one.
    rate       the highest learning rate; ``steps`` the schedule's length.
    """

    def __init__(self, model: Any, group: Group, settings: Settings, *, rate: float, steps: int, pad: int) -> None:
        if settings.gradient_checkpointing:
            # The later name came with transformers 5.24 or so, and the earlier one warns since.
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable({"use_reentrant": False})
            if settings.lora_rank:
                model.enable_input_require_grads()
        self.group, self.settings, self.rate, self.steps, self.pad = group, settings, rate, steps, pad
        self.model = spread(with_logps(model, chunk=settings.chunk), group, settings.distribution, settings.precision)
        self.model.train()
        self.parameters = list(trainable(self.model).values())
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=rate, weight_decay=settings.weight_decay, betas=(0.9, 0.95)
        )
        self.tokens = 0  # that this process has trained on, without padding

    def forward(self, rows: Sequence[Row]) -> Tensor:
        """Return log π of each row's response, (B,) float32 in nats, with its graph where gradients are on."""
        return self(**collate(rows, self.pad, self.group.device))

    def __call__(self, **batch: Tensor) -> Tensor:
        """Return the log-probabilities of a collated batch, (B,)."""
        with computing(self.group.device, self.settings.precision):
            return self.model(**batch, mean=self.settings.reduction == "mean")

    def accumulate(
        self, parts: Sequence[np.ndarray], rows_of: Callable[[np.ndarray], list[Row]],
        values: Callable[[Tensor, np.ndarray], Tensor], *, number: int, seed: Sequence[int], items: int | None = None,
    ) -> Tensor:  # fmt: skip
        """Add up the gradient of the sum of all values over ``number``, micro-batch by micro-batch; return each log π.

        parts    places of this process's items, an array per micro-batch, some perhaps empty (see ``batches.dealt``).
        rows_of  the rows of some places, one or more per item, in blocks: all first ones, all second ones, …
        values   what is differentiated, one value per item, from the log π of its rows (rows per item, items).
        seed     of dropout. items: how many there are, ``number`` where left out.
        Returns (items, rows per item) in float64, in every process, as they were on the way.
        """
        by_item: Tensor | None = None
        for turn, part in enumerate(parts):
            places = part if len(part) else np.zeros(1, int)  # FSDP needs every process in every forward and backward
            with (
                gradients_meet(self.model, turn == len(parts) - 1),
                drawing((*seed, turn, self.group.rank), self.group.device),
            ):
                rows = rows_of(places)
                logps = self.forward(rows).view(-1, len(places))
                total = values(logps, places).sum() * (len(part) > 0)
                self.tokens += (len(part) > 0) * sum(len(prompt) + len(response) for prompt, response in rows)
                (total * self.group.size / number).backward()  # DDP and FSDP take the mean over processes
            if by_item is None:
                by_item = torch.zeros(items or number, len(logps), dtype=torch.float64)
            by_item[part] = logps.detach().double().cpu().T[: len(part)]
        assert by_item is not None  # there is at least one turn
        return self.group.total(by_item)

    def gradient(self) -> list[Tensor]:
        """Return a copy of the gradient as it stands, a tensor per parameter; zeros where none came."""
        return [torch.zeros_like(p) if p.grad is None else p.grad.detach().clone() for p in self.parameters]

    def put(self, gradient: Sequence[Tensor]) -> None:
        """Make this the gradient."""
        for parameter, part in zip(self.parameters, gradient, strict=True):
            parameter.grad = part

    def clear(self) -> None:
        """Forget the gradient."""
        self.optimizer.zero_grad(set_to_none=True)

    def norm(self) -> float:
        """Return ‖g‖ over all parameters."""
        parts = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        return math.sqrt(dot(parts, parts, self.group)) if parts else 0.0

    def step(self, number: int, norm: float) -> float:
        """Make step ``number`` from 1, by the gradient, which is ``norm`` long; return the learning rate."""
        rate = scheduled(number, self.steps, self.rate, self.settings.schedule, self.settings.warmup)
        for options in self.optimizer.param_groups:
            options["lr"] = rate
        if norm > self.settings.max_norm:
            for parameter in self.parameters:
                if parameter.grad is not None:
                    local(parameter.grad).mul_(self.settings.max_norm / norm)
        self.optimizer.step()
        self.clear()
        return rate

    def save(self, folder: Path, step: int, key: str) -> None:
        """Write a checkpoint."""
        save_checkpoint(folder, step, self.model, self.optimizer, self.group, key, keep=self.settings.keep)

    def resume(self, folder: Path, key: str) -> int:
        """Go back to the newest checkpoint, and return its step; 0 where there is none."""
        return load_checkpoint(folder, self.model, self.optimizer, self.group, key)

    @property
    def plain(self) -> Any:
        """Return the model itself, as transformers or peft knows it."""
        return plain(self.model)


def scheduled(step: int, steps: int, rate: float, schedule: str, warmup: float) -> float:
    """Return the rate of step 1, …, ``steps``: a linear warm-up over that share of the steps, then the schedule."""
    rising = math.ceil(warmup * steps)
    if step <= rising:
        return rate * step / rising
    if schedule == "constant":
        return rate
    gone = (step - rising) / max(steps - rising, 1)
    left = 1 - gone if schedule == "linear" else 0.5 * (1 + math.cos(math.pi * gone))
    return rate * (_FLOOR + (1 - _FLOOR) * left)


@contextlib.contextmanager
def frozen(policy: PolicyModel) -> Iterator[None]:
    """Look at the model as it is: no gradients, no dropout."""
    policy.model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        policy.model.train()
