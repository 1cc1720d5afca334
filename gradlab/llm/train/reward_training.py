"""Training a small reward model on preference pairs, from a causal language model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from gradlab.checks import between, count, one_of, positive
from gradlab.llm.data.batches import batch_at, dealt, steps_per_epoch
from gradlab.llm.data.pairs import Pair
from gradlab.llm.data.templates import Template
from gradlab.llm.model.group import Group, Precision, computing
from gradlab.llm.model.reward_models import Scorer
from gradlab.llm.model.seeded import drawing
from gradlab.llm.train.loop import Task, run_steps
from gradlab.llm.train.reward_folder import Started, reward_folder
from gradlab.llm.train.section_settings import LogSettings
from gradlab.llm.train.trained_model import TrainedModel
from gradlab.losses import DPO, PairLogps
from gradlab.streams import Purpose, torch_seed


def train_reward(
    base: str | Path, pairs: Sequence[Pair], out: Path | str, *, held_out: Sequence[Pair] = (),
    template: Template = "plain", epochs: float = 1.0, learning_rate: float = 1e-5, batch: int = 16, micro: int = 8,
    max_length: int = 512, weight_decay: float = 0.0, max_norm: float = 1.0, warmup: float = 0.1, seed: int = 0,
    precision: Precision = "fp32", device: torch.device | str = "cpu", template_date: str | None = None,
) -> str:  # fmt: skip
    """Train a reward model on pairs by Bradley–Terry's −log σ(r_w − r_l); return the folder of the model.

    base       a folder or hub name of a causal language model; its head becomes one output, which starts at 0.
    out        gets ``model/``, a sequence classifier that transformers reads, ``log.jsonl`` and ``done.json``. A
               training that is done is not repeated; ValueError where it had other settings, data or base,
               FileExistsError where something else is in its place.
    held_out   pairs on which the finished model is judged, for the log and ``done.json``; both say how many of their
               prompts are trained on too.
    template   how the model whose responses are to be judged sees a prompt. A text is prompt, response and EOS.
    precision  "bf16": computes in bfloat16.
    template_date  the date that a chat template writes as today's, YYYY-MM-DD; left out: the day of the first start.

    The training is a single process. Ctrl-C ends the step and saves a checkpoint, from which the same call goes on.
    Equal seeds give equal weights on one kind of processor.
    """
    count("micro", micro, 1)
    settings = RewardSettings(
        template, epochs, learning_rate, batch, max_length, weight_decay, max_norm, warmup, seed, precision
    )

    def trained(started: Started) -> dict[str, Any]:
        return _train(started, settings, micro)

    return reward_folder(
        base, pairs, out, settings, trained, held_out=held_out, batch=2 * micro, device=device,
        template_date=template_date,
    )  # fmt: skip


def _train(started: Started, settings: RewardSettings, micro: int) -> dict[str, Any]:
    """Train on the ids of winners and losers, from the newest checkpoint on; return a summary."""
    model, pairs = started.scorer.model.train(), started.ids
    steps = math.ceil(settings.epochs * steps_per_epoch(len(pairs), settings.batch))
    group = Group(device=model.device)
    reward = RewardModel(model, group, settings, rate=settings.learning_rate, steps=steps)
    task = RewardTask(started.scorer, pairs, micro)
    header = {"loss": "reward model", "steps": steps, **started.header}
    return run_steps(reward, task, started.out, started.key, header, "reward model")


@dataclass(frozen=True)
class RewardSettings:
    """The settings that decide a reward model's weights; see ``train_reward``."""

    template: Template
    epochs: float
    learning_rate: float
    batch: int
    max_length: int
    weight_decay: float
    max_norm: float
    warmup: float
    seed: int
    precision: Precision

    def __post_init__(self) -> None:
        for name, least in (("batch", 1), ("max_length", 8), ("seed", 0)):
            count(name, getattr(self, name), least)
        for name in ("epochs", "learning_rate", "max_norm"):
            positive(name, getattr(self, name))
        between("weight_decay", self.weight_decay, 0)
        between("warmup", self.warmup, 0, 1)
        one_of("precision", self.precision, get_args(Precision))

    @property
    def schedule(self) -> str:
        """Return the name of the schedule by which the rate falls after the warm-up."""
        return "cosine"

    @property
    def log(self) -> LogSettings:
        """Return the settings of the log: the training is looked at and saved only at its end."""
        return LogSettings(sides_every=0, validate_every=0, save_every=0)


class RewardModel(TrainedModel[RewardSettings]):
    """A reward model with its optimiser, in one process."""


@dataclass(frozen=True)
class RewardTask(Task[RewardModel]):
    """A task of the loop: a scorer learns to tell winner from loser, given as ids, by Bradley–Terry's loss.

    micro  pairs that are scored at a time.
    """

    scorer: Scorer
    pairs: Sequence[Sequence[list[int]]]
    micro: int

    def gradient(self, policy: RewardModel, step: int) -> dict[str, float]:
        """Put the gradient of this step's mean loss into the model; return its row of the log."""
        settings, device = policy.settings, policy.group.device
        places = batch_at(step - 1, len(self.pairs), settings.batch, settings.seed, Purpose.REWARD_ORDER)
        chosen = [self.pairs[place] for place in places]
        row = dict.fromkeys(("loss", "accuracy"), 0.0)
        with drawing(torch_seed(settings.seed, Purpose.REWARD_DROPOUT, step), device):
            for part in dealt(np.array([max(map(len, pair)) for pair in chosen]), self.micro):
                win, lose = self._scores([chosen[place] for place in part], policy)
                # On unnormalised scores, and with a reference of 0, DPO is Bradley–Terry's loss.
                zero = torch.zeros_like(win)
                value = DPO()(PairLogps(win, lose, zero, zero)).sum() / len(chosen)
                value.backward()
                row["loss"] += float(value.detach())
                row["accuracy"] += float(((win > lose) + 0.5 * (win == lose)).sum()) / len(chosen)
        policy.tokens += sum(len(ids) for pair in chosen for ids in pair)
        norm = policy.norm()
        if not math.isfinite(norm) or not math.isfinite(row["loss"]):
            raise FloatingPointError(
                f"reward model, step {step}: the gradient is not finite; try a lower learning_rate"
            )
        return {**row, "grad_norm": norm}

    def _scores(self, pairs: Sequence[Sequence[list[int]]], policy: RewardModel) -> tuple[Tensor, ...]:
        """Return the scores of winners and of losers."""
        with computing(policy.group.device, policy.settings.precision):
            return self.scorer.scores([ids for side in zip(*pairs, strict=True) for ids in side]).chunk(2)
