"""A language model that is trained: log-probabilities, and gradients of micro-batches."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradlab.llm.data.batches import Layout, Row, collate, dealt, moved, token_by_token
from gradlab.llm.model.checkpointed_layers import checkpoint_layers
from gradlab.llm.model.group import Group, Precision, computing, gradients_meet, placed, precision_on, spread
from gradlab.llm.model.loading import has_dropout
from gradlab.llm.model.logps import with_logps
from gradlab.llm.model.seeded import drawing
from gradlab.llm.model.upper_layers import UpperLayers
from gradlab.llm.train.hidden_cache import HiddenCache
from gradlab.llm.train.reference import score
from gradlab.llm.train.run_settings import Settings
from gradlab.llm.train.trained_model import TrainedModel
from gradlab.streams import Purpose, torch_seed


class PolicyModel(TrainedModel[Settings]):
    """The language model that a stage trains, which gives log-probabilities. All processes make the same calls.

    model      a model from ``load_model``, with its LoRA adapter where it has one.
    rate       the highest learning rate; ``steps`` the schedule's length.
    hidden     hidden states of rows before the layers that are trained, where ``train_from`` says which layers are;
               those of rows that it does not know are computed.
    """

    def __init__(
        self, model: Any, group: Group, settings: Settings, *, rate: float, steps: int, pad: int,
        hidden: HiddenCache | None = None,
    ) -> None:  # fmt: skip
        self.precision: Precision = precision_on(group.device, settings.precision)
        checkpoint_layers(model, settings.gradient_checkpointing, first=settings.train_from or 0)
        self.drops = has_dropout(model)
        model = with_logps(placed(model, group, settings.distribution), chunk=settings.chunk, group=group)
        self.upper = None if settings.train_from is None else UpperLayers(model, settings.train_from, group)
        self.layout: Layout = model.layout
        model = spread(model, group, settings.distribution, self.precision)
        super().__init__(model, group, settings, rate=rate, steps=steps)
        self.pad, self.hidden = pad, hidden
        # One copy of the weights in bfloat16 per step, which autocast keeps until its outermost context ends. Layers
        # that are computed again would keep nothing else; and layers below those that are trained see no gradient.
        self.casts_once = self.precision == "bf16" and settings.gradient_checkpointing < 1 and self.upper is None

    def forward(self, rows: Sequence[Row], width: int | None = None) -> Tensor:
        """Return log π of each response, (R,) float32 in nats, with its graph where gradients are on.

        width  gives log π of each token, (R, width), see ``batches.token_by_token``.
        """
        batch = self.batch(rows)
        return self(**batch) if width is None else token_by_token(self, batch, width)

    def batch(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Return rows as a call takes them, with their hidden states where only upper layers are trained."""
        batch = collate(rows, self.pad, self.group.device, layout=self.layout)
        if self.upper is None:
            return batch
        known = None if self.hidden is None else self.hidden.hidden(rows, self.layout)
        return {**batch, "below": self.below(rows) if known is None else moved(known, self.group.device)}

    def below(self, rows: Sequence[Row]) -> Tensor:
        """Return the hidden states of rows before the layers that are trained, (B, T, H), as the layout lays them."""
        assert self.upper is not None
        batch = collate(rows, self.pad, self.group.device, layout=self.layout)
        batch |= {name: batch[name][:0] for name in ("places", "targets", "responses")}  # so no logits are computed
        with self.upper.below() as seen:
            self(**batch)
        [states] = seen
        return states

    def __call__(self, *, below: Tensor | None = None, **batch: Tensor) -> Tensor:
        """Return the log-probabilities of a collated batch, (R,).

        below  hidden states, in the place of the layers below those that are trained; left out: all layers compute.
        """
        apart = contextlib.nullcontext() if below is None or self.upper is None else self.upper.above(below)
        with apart, computing(self.group.device, self.precision):
            return self.model(**batch, mean=self.settings.reduction == "mean")

    def parts(self, rows: Sequence[Row], micro: int) -> list[np.ndarray]:
        """Return the places of this process's micro-batches, of ``micro`` rows or by the settings' budget of tokens.

        ValueError where the budget is below the longest row.
        """
        budget = self.settings.tokens_per_micro
        return dealt(self.layout.tokens(rows), micro, self.group.rank, self.group.size, budget=budget)

    def score(
        self, rows: Sequence[Row], micro: int, *, width: int | None = None, by: Callable[..., Tensor] | None = None
    ) -> Tensor:
        """Return log π of each response, see ``reference.score``; inside ``frozen``.

        by  another model's function in the place of this model's, which then gets the same micro-batches, in its own
            ``layout`` where it has one.
        """
        return score(
            by or self, rows, self.group, pad=self.pad, micro=micro, budget=self.settings.tokens_per_micro,
            layout=getattr(by, "layout", self.layout), width=width,
        )  # fmt: skip

    def accumulate(
        self, parts: Sequence[np.ndarray], rows_of: Callable[[np.ndarray], list[Row]],
        values: Callable[[Tensor, np.ndarray], Tensor], *, number: int, step: int, items: int | None = None,
        width: int | None = None,
    ) -> Tensor:  # fmt: skip
        """Add up the gradient of the sum of all values over ``number``, micro-batch by micro-batch; return each log π.

        parts    places of this process's items, an array per micro-batch, some perhaps empty (see ``batches.dealt``).
        rows_of  gives the rows of some places, one per item, with equally many responses each.
        values   gives the values to differentiate, which are added up, from log π of items (responses, items).
        step     decides, with the settings' seed, what dropout draws.
        items    the number of items, ``number`` where left out.
        width    gives log π of each token instead, a further axis of this width; 0 after a response's end.

        Returns (items, responses per item) in float64, in every process, from these same forward passes.
        """
        found = []
        with computing(self.group.device, self.precision) if self.casts_once else contextlib.nullcontext():
            for turn, part in enumerate(parts):
                draw = torch_seed(self.settings.seed, Purpose.DROPOUT, step, turn, self.group.rank)
                places = part if len(part) else np.zeros(1, int)  # FSDP needs every process in every pass
                with (
                    gradients_meet(self.model, turn == len(parts) - 1),
                    drawing(draw, self.group.device) if self.drops else contextlib.nullcontext(),
                ):
                    rows = rows_of(places)
                    logps = self.forward(rows, width)
                    logps = logps.view(len(places), -1, *logps.shape[1:]).transpose(0, 1)
                    total = values(logps, places).sum() * (len(part) > 0)
                    self.tokens += (len(part) > 0) * self.layout.real_tokens(rows)
                    with computing(self.group.device, "fp32"):
                        (total * self.group.size / number).backward()  # DDP and FSDP take the mean over processes
                found.append(logps.detach().transpose(0, 1)[: len(part)])
        fetched = torch.cat(found).double().cpu()  # once per step: each fetch waits for the device
        by_item = torch.zeros(items or number, *fetched.shape[1:], dtype=torch.float64)
        by_item[np.concatenate(parts)] = fetched
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
