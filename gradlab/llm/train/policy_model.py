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
from gradlab.llm.model.group import Processes, computing, dot, gradients_meet, local, plain, spread, trainable
from gradlab.llm.model.logps import with_logps
from gradlab.llm.model.seeded import drawing
from gradlab.llm.train.checkpoints import load_checkpoint, save_checkpoint
from gradlab.llm.train.run_settings import Settings

_FLOOR = 0.1  # of the highest learning rate, where a schedule ends


class Engine:
    """What every stage trains with. All processes make the same calls.

    model      one of ``load_model``, with its LoRA adapter where it has one.
    rate       the highest learning rate; ``steps`` the schedule's length.
    """

    def __init__(self, model: Any, own: Processes, settings: Settings, *, rate: float, steps: int, pad: int) -> None:
        if settings.gradient_checkpointing:
            # The later name came with transformers 5.24 or so, and the earlier one warns since.
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable({"use_reentrant": False})
            if settings.lora_rank:
                model.enable_input_require_grads()
        self.own, self.settings, self.rate, self.steps, self.pad = own, settings, rate, steps, pad
        self.model = spread(with_logps(model, chunk=settings.chunk), own, settings.distribution, settings.precision)
        self.model.train()
        self.parameters = list(trainable(self.model).values())
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=rate, weight_decay=settings.weight_decay, betas=(0.9, 0.95)
        )
        self.tokens = 0  # that this process has trained on, without padding

    def forward(self, rows: Sequence[Row]) -> Tensor:
        """log π of each row's response, (B,) float32 in nats, with its graph where gradients are on."""
        return self(**collate(rows, self.pad, self.own.device))

    def __call__(self, **batch: Tensor) -> Tensor:
        """The same of a collated batch."""
        with computing(self.own.device, self.settings.precision):
            return self.model(**batch, mean=self.settings.reduction == "mean")

    def accumulate(
        self, parts: Sequence[np.ndarray], rows_of: Callable[[np.ndarray], list[Row]],
        values: Callable[[Tensor, np.ndarray], Tensor], *, number: int, seed: Sequence[int], items: int | None = None,
    ) -> Tensor:  # fmt: skip
        """Add up the gradient of the sum of all values over ``number``, micro-batch by micro-batch; every item's log π.

        parts    places of this process's items, one array a micro-batch, some perhaps empty (see ``batches.dealt``).
        rows_of  the rows of some places, one or more an item, in blocks: all first ones, all second ones, …
        values   what is differentiated, one value an item, from the log π of its rows (rows an item, items).
        seed     of dropout. items: how many there are, ``number`` where left out.
        Returns (items, rows an item) in float64, in every process, as they were on the way.
        """
        found: Tensor | None = None
        for turn, part in enumerate(parts):
            places = part if len(part) else np.zeros(1, int)  # FSDP needs every process in every forward and backward
            with (
                gradients_meet(self.model, turn == len(parts) - 1),
                drawing((*seed, turn, self.own.rank), self.own.device),
            ):
                rows = rows_of(places)
                logps = self.forward(rows).view(-1, len(places))
                total = values(logps, places).sum() * (len(part) > 0)
                self.tokens += (len(part) > 0) * sum(len(prompt) + len(response) for prompt, response in rows)
                (total * self.own.size / number).backward()  # DDP and FSDP take the mean over processes
            if found is None:
                found = torch.zeros(items or number, len(logps), dtype=torch.float64)
            found[part] = logps.detach().double().cpu().T[: len(part)]
        assert found is not None  # there is at least one turn
        return self.own.total(found)

    def gradient(self) -> list[Tensor]:
        """The gradient as it stands, one tensor a parameter, its own copy; zeros where none came."""
        return [torch.zeros_like(one) if one.grad is None else one.grad.detach().clone() for one in self.parameters]

    def put(self, gradient: Sequence[Tensor]) -> None:
        """Make this the gradient."""
        for parameter, part in zip(self.parameters, gradient, strict=True):
            parameter.grad = part

    def clear(self) -> None:
        """Forget the gradient."""
        self.optimizer.zero_grad(set_to_none=True)

    def norm(self) -> float:
        """‖g‖ over all parameters."""
        parts = [one.grad for one in self.parameters if one.grad is not None]
        return math.sqrt(dot(parts, parts, self.own)) if parts else 0.0

    def step(self, number: int, norm: float) -> float:
        """Update the parameters in step ``number`` from 1, with a gradient of length ``norm``; the learning rate."""
        rate = scheduled(number, self.steps, self.rate, self.settings.schedule, self.settings.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if norm > self.settings.max_norm:
            for one in self.parameters:
                if one.grad is not None:
                    local(one.grad).mul_(self.settings.max_norm / norm)
        self.optimizer.step()
        self.clear()
        return rate

    def save(self, folder: Path, step: int, key: str) -> None:
        """Write a checkpoint."""
        save_checkpoint(folder, step, self.model, self.optimizer, self.own, key, keep=self.settings.keep)

    def resume(self, folder: Path, key: str) -> int:
        """Go back to the newest checkpoint; its step, 0 where there is none."""
        return load_checkpoint(folder, self.model, self.optimizer, self.own, key)

    @property
    def plain(self) -> Any:
        """The model itself, as transformers or peft knows it."""
        return plain(self.model)


def scheduled(step: int, steps: int, rate: float, schedule: str, warmup: float) -> float:
    """The learning rate of step 1, …, ``steps``: a linear warm-up over that share of the steps, then the schedule."""
    rising = math.ceil(warmup * steps)
    if step <= rising:
        return rate * step / rising
    if schedule == "constant":
        return rate
    gone = (step - rising) / max(steps - rising, 1)
    left = 1 - gone if schedule == "linear" else 0.5 * (1 + math.cos(math.pi * gone))
    return rate * (_FLOOR + (1 - _FLOOR) * left)


@contextlib.contextmanager
def frozen(engine: Engine) -> Iterator[None]:
    """Look at the model as it is: no gradients, no dropout."""
    engine.model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        engine.model.train()
