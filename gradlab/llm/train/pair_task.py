"""Pairs as a task of the loop: a preference loss, and the gradient of each of its sides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradlab.llm.data.batches import Row, batch_at, dealt, len_of, lengths, moved, pair_rows
from gradlab.llm.data.pairs import Pair
from gradlab.llm.data.tokens import Encoded
from gradlab.llm.model.group import distance, dot, norm
from gradlab.llm.train.loop import Task, check_finite, described
from gradlab.llm.train.measures import batch_row, in_batches
from gradlab.llm.train.policy_model import PolicyModel, frozen
from gradlab.losses import BatchLoss, PairLogps, PairLoss, slopes

VALIDATED = ("loss", "reward_win", "reward_lose", "reward_margin", "accuracy", "logp_win", "logp_lose", "win_weight")
Values = Callable[[Tensor, np.ndarray], Tensor]  # as ``PolicyModel.accumulate`` takes them


@dataclass(frozen=True)
class PairTask(Task[PolicyModel]):
    """A task of the loop: pairs to train on, held-out pairs, the reference's log π of both (N, 2), and a loss.

    texts  the texts of the training pairs, for a person who looks at a failed batch.

    The micro-batches of each process are the batches of a ``BatchLoss``, and as large ones of held-out pairs.
    """

    loss: PairLoss | BatchLoss
    train: Sequence[Encoded]
    train_ref: Tensor
    held_out: Sequence[Encoded]
    held_out_ref: Tensor
    texts: Sequence[Pair] = ()

    def described(self, index: Sequence[int]) -> list[dict[str, Any]]:
        """Return the training pairs at ``index``, as text and as tokens."""
        return described(index, self.texts, [asdict(self.train[place]) for place in index])

    def logps(self, pairs: Sequence[Encoded], by_side: Tensor, ref: Tensor) -> PairLogps:
        """Return the pairs as a loss takes them; by_side and ref are (N, 2)."""
        sides = [len_of(pairs, side) for side in ("win", "lose")]
        ref = moved(ref.to(by_side.dtype), by_side.device)
        return PairLogps(
            by_side[:, 0], by_side[:, 1], ref[:, 0], ref[:, 1], *(moved(tokens, by_side.device) for tokens in sides)
        )

    def values_of(self, policy: PolicyModel, pairs: Sequence[Encoded], processes: int) -> Callable[[PairLogps], Tensor]:
        """Return the loss as a function of these pairs, which so many processes take in micro-batches."""
        if not isinstance(self.loss, BatchLoss):
            return self.loss
        tokens, micro = lengths(pairs), policy.settings.micro
        return in_batches(
            self.loss, [part for rank in range(processes) for part in dealt(tokens, micro, rank, processes)]
        )

    def parts(self, policy: PolicyModel, pairs: Sequence[Encoded]) -> list[np.ndarray]:
        """Return the places of this process's micro-batches; those of ``values_of`` for a loss of batches."""
        if isinstance(self.loss, BatchLoss):
            return dealt(lengths(pairs), policy.settings.micro, policy.group.rank, policy.group.size)
        return policy.parts(pair_rows(pairs), policy.settings.micro)

    def gradient(self, policy: PolicyModel, step: int) -> dict[str, float]:
        """Put the gradient of this step's mean loss into the policy; return its row of the log."""
        settings = policy.settings
        index = batch_at(step - 1, len(self.train), settings.batch, settings.seed)
        pairs, ref = [self.train[place] for place in index], self.train_ref[index]
        rows, parts = pair_rows(pairs), self.parts(policy, pairs)

        def run(rows: Sequence[Row], parts: Sequence[np.ndarray], values: Values) -> Tensor:
            return policy.accumulate(
                parts, lambda places: [rows[place] for place in places], values, number=len(pairs), step=step
            )

        def run_side(side: int, values: Values) -> Tensor:
            if settings.lora.rank and settings.lora.dropout:  # equal draws need equal rows
                return run(rows, parts, lambda logps, at: values(logps[[side]], at))
            alone = [(row[0], row[1 + side]) for row in rows]
            return run(alone, policy.parts(alone, settings.micro), values)

        by_side = run(rows, parts, lambda logps, at: self.loss(self.logps([pairs[i] for i in at], logps.T, ref[at])))
        logps = self.logps(pairs, by_side, ref)
        check_finite("log π", by_side, step, index)
        values_of = self.values_of(policy, pairs, policy.group.size)
        row = batch_row(self.loss, logps, values_of)
        row["grad_norm"] = policy.norm()
        check_finite("the gradient", torch.tensor(row["grad_norm"]), step, index)
        if settings.log.sides_every and (step - 1) % settings.log.sides_every == 0:
            row |= self.sides(policy, run_side, torch.stack(slopes(values_of, logps), 1), check=step == 1)
        return row

    def realised(self, policy: PolicyModel, step: int, row: dict[str, float]) -> dict[str, float]:
        """Return how far the step moved each side's mean log π; empty unless the step's row compares the sides."""
        settings = policy.settings
        if "grad_norm_win" not in row:
            return {}
        index = batch_at(step - 1, len(self.train), settings.batch, settings.seed)
        with frozen(policy):
            after = policy.score(pair_rows([self.train[place] for place in index]), settings.micro).view(-1, 2).mean(0)
        return {
            f"delta_{side}": float(after[place]) - row[f"logp_{side}"] for place, side in enumerate(("win", "lose"))
        }

    def sides(
        self, policy: PolicyModel, run_side: Callable[[int, Values], Tensor], slope: Tensor, *, check: bool
    ) -> dict[str, float]:
        """Return ‖g_w‖, ‖g_l‖ and their cosine, where g = g_w + g_l is the gradient of this step.

        run_side  runs one side forward and backward again, and gives ``values`` that side's log π alone, (1, n).
        slope     (B, 2): the factors of log π. Afterwards the policy holds g again.
        check     run the losers too, and return ``grad_split_error``, which is ‖g − g_w − g_l‖/‖g‖.

        The winners run again, and g_l is g − g_w.
        """
        whole, group, tokens = policy.taken(), policy.group, policy.tokens

        def run(side: int) -> None:
            run_side(side, lambda logps, at: logps[0] * slope[at, side].to(logps))

        run(0)
        winners = policy.held
        win, lose = norm(winners, group), distance(whole, winners, group) if slope[:, 1].any() else 0.0
        row = {"grad_norm_win": win, "grad_norm_lose": lose}
        if win * lose:
            row["grad_cosine"] = (dot(winners, whole, group) - win**2) / (win * lose)
        if check:
            run(1)
            size = norm(whole, group)
            row["grad_split_error"] = distance(whole, policy.held, group) / size if size else 0.0
        policy.put(whole)
        policy.tokens = tokens  # the passes above looked at tokens, and did not train on them
        return row

    def validate(self, policy: PolicyModel) -> dict[str, float]:
        """Return the log's columns about the held-out pairs."""
        if not self.held_out:
            return {}
        with frozen(policy):
            logps = policy.score(pair_rows(self.held_out), policy.settings.micro)
        values_of = self.values_of(policy, self.held_out, 1)
        row = batch_row(self.loss, self.logps(self.held_out, logps.view(-1, 2), self.held_out_ref), values_of)
        return {f"validation_{name}": row[name] for name in VALIDATED if name in row}
