"""Supervised training as a task of the loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradlab.llm.data.batches import Row, asked_of, batch_at
from gradlab.llm.data.pairs import Pair
from gradlab.llm.train.loop import Task, check_finite, described
from gradlab.llm.train.policy_model import PolicyModel, frozen


@dataclass(frozen=True)
class SupervisedTask(Task[PolicyModel]):
    """A task of the loop: learn the chosen responses; the loss is the mean of −log π over their tokens.

    texts  the pairs that the training responses come from.
    """

    train: Sequence[Row]
    held_out: Sequence[Row]
    texts: Sequence[Pair] = ()

    def described(self, index: Sequence[int]) -> list[dict[str, Any]]:
        """Return the training responses at ``index``, as text and as tokens."""
        rows = [self.train[place] for place in index]
        return described(index, self.texts, [{"prompt": prompt, "win": response} for prompt, response in rows])

    def gradient(self, policy: PolicyModel, step: int) -> dict[str, float]:
        """Put the gradient of this step's loss into the policy; return its row of the log."""
        settings = policy.settings
        index = batch_at(step - 1, len(self.train), settings.batch, settings.seed)
        rows = [self.train[place] for place in index]
        tokens = sum(_asked(row) for row in rows)
        summed = policy.accumulate(
            policy.parts(rows, settings.micro),
            lambda places: [rows[place] for place in places],
            lambda logps, at: self._loss(policy, logps, rows, at) / tokens,
            number=1, step=step, items=len(rows),
        )  # fmt: skip
        check_finite("log π", summed, step, index)
        norm = policy.norm()
        check_finite("the gradient", torch.tensor(norm), step, index)
        return {
            "loss": float(self._loss(policy, summed.T, rows, np.arange(len(rows))).sum()) / tokens,
            "grad_norm": norm,
        }

    @staticmethod
    def _loss(policy: PolicyModel, logps: Tensor, rows: Sequence[Row], at: np.ndarray) -> Tensor:
        """Return −log π of whole responses, also where the policy gives means."""
        if policy.settings.reduction == "mean":
            logps = logps * torch.tensor([_asked(rows[place]) for place in at]).to(logps)
        return -logps[0]

    def validate(self, policy: PolicyModel) -> dict[str, float]:
        """Return the loss of the held-out responses."""
        if not self.held_out:
            return {}
        with frozen(policy):
            logps = policy.score(self.held_out, 2 * policy.settings.micro)
        tokens = sum(_asked(row) for row in self.held_out)
        every = np.arange(len(self.held_out))
        return {"validation_loss": float(self._loss(policy, logps[None], self.held_out, every).sum()) / tokens}


def _asked(row: Row) -> int:
    """Return the tokens of a row's response that are learned."""
    return len(asked_of(row[1]))
