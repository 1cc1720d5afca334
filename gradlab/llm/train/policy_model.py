"""A language model that is trained: log-probabilities, and gradients of micro-batches."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradlab.llm.data.batches import Row, collate
from gradlab.llm.model.checkpointed_layers import checkpoint_layers
from gradlab.llm.model.group import Group, Precision, computing, gradients_meet, placed, precision_on, spread
from gradlab.llm.model.loading import has_dropout
from gradlab.llm.model.logps import with_logps
from gradlab.llm.model.seeded import drawing
from gradlab.llm.train.run_settings import Settings
from gradlab.llm.train.trained_model import TrainedModel
from gradlab.streams import Purpose, torch_seed


class PolicyModel(TrainedModel[Settings]):
    """The language model that a stage trains, which gives log-probabilities. All processes make the same calls.

    model      a model from ``load_model``, with its LoRA adapter where it has one.
    rate       the highest learning rate; ``steps`` the schedule's length.
    """

    def __init__(self, model: Any, group: Group, settings: Settings, *, rate: float, steps: int, pad: int) -> None:
        self.precision: Precision = precision_on(group.device, settings.precision)
        checkpoint_layers(model, settings.gradient_checkpointing)
        self.drops = has_dropout(model)
        model = with_logps(placed(model, group, settings.distribution), chunk=settings.chunk, group=group)
        model = spread(model, group, settings.distribution, self.precision)
        super().__init__(model, group, settings, rate=rate, steps=steps)
        self.pad = pad

    def forward(self, rows: Sequence[Row]) -> Tensor:
        """Return log π of each row's response, (B,) float32 in nats, with its graph where gradients are on."""
        return self(**collate(rows, self.pad, self.group.device))

    def __call__(self, **batch: Tensor) -> Tensor:
        """Return the log-probabilities of a collated batch, (B,)."""
        with computing(self.group.device, self.precision):
            return self.model(**batch, mean=self.settings.reduction == "mean")

    def accumulate(
        self, parts: Sequence[np.ndarray], rows_of: Callable[[np.ndarray], list[Row]],
        values: Callable[[Tensor, np.ndarray], Tensor], *, number: int, step: int, items: int | None = None,
    ) -> Tensor:  # fmt: skip
        """Add up the gradient of the sum of all values over ``number``, micro-batch by micro-batch; return each log π.

        parts    places of this process's items, an array per micro-batch, some perhaps empty (see ``batches.dealt``).
        rows_of  gives the rows of some places: each item's first row, then each item's second row, …
        values   gives the values to differentiate, one per item, from log π of its rows (rows per item, items).
        step     decides, with the settings' seed, what dropout draws.
        items    the number of items, ``number`` where left out.

        Returns (items, rows per item) in float64, in every process, from these same forward passes.
        """
        by_item: Tensor | None = None
        for turn, part in enumerate(parts):
            draw = torch_seed(self.settings.seed, Purpose.DROPOUT, step, turn, self.group.rank)
            places = part if len(part) else np.zeros(1, int)  # FSDP needs every process in every forward and backward
            with (
                gradients_meet(self.model, turn == len(parts) - 1),
                drawing(draw, self.group.device) if self.drops else contextlib.nullcontext(),
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


@contextlib.contextmanager
def frozen(policy: PolicyModel) -> Iterator[None]:
    """Turn gradients and dropout off inside."""
    policy.model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        policy.model.train()
