"""The stages of a run, each a training: supervised, the reference, then each loss; finished stages are skipped."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from gradlab.console import say
from gradlab.doctor.training_log import LOG, read_log
from gradlab.llm.data.batches import Partly, Row, seen_by
from gradlab.llm.data.earlier_answers import AnswerMarks
from gradlab.llm.data.tokens import Encoded
from gradlab.llm.model import loading
from gradlab.llm.model.gguf_file import whole_model
from gradlab.llm.model.group import start_group
from gradlab.llm.model.rewards import reward_code, reward_hash
from gradlab.llm.train.loop import Look, Stopped, StoppedElsewhere, Task
from gradlab.llm.train.pair_task import PairTask
from gradlab.llm.train.policy_model import PolicyModel, frozen
from gradlab.llm.train.reference import reference_logps
from gradlab.llm.train.run_folder import caches
from gradlab.llm.train.run_settings import PPO, Settings
from gradlab.llm.train.section_settings import flat_defaults
from gradlab.llm.train.stage import Run, Stage, free_memory, kinds_of
from gradlab.llm.train.supervised_task import SupervisedTask
from gradlab.losses import DPO, PairLoss
from gradlab.store.provenance import fingerprint

# Settings that change PPO's numbers; the later ones only count where they differ from the default, so that runs from
# before they existed go on.
_OF_PPO = ("samples", "sample_length", "ppo_epochs", "ppo_clip")
_OF_PPO_LATER = (
    "ppo_baseline", "ppo_normalize", "ppo_level", "ppo_kl", "ppo_unfinished_penalty", "ppo_length_penalty",
    "ppo_clip_reward", "ppo_whiten",
)  # fmt: skip


def train(settings: Settings, look: Look | None = None) -> list[Path]:
    """Train the stages that are not done yet; return the folders of the trained models, one per loss.

    look  sees the model of each stage after each step, see ``run_steps``.

    Files in ``settings.out``: ``data.json``; for each stage (``sft``, ``reference``, each loss's name) a folder with
    ``model/``, ``log.jsonl``, ``done.json``, and ``checkpoints/`` until it is done; ``cache/`` of the references.
    Raises ValueError, OSError or FloatingPointError with a message of one line; finished stages are kept. A loss whose
    numbers are no longer finite stops no other: the error comes after the last loss.
    """
    if settings.log.wandb and find_spec("wandb") is None:
        raise ValueError(
            "wandb must be installed where the log goes there: pip install wandb, or leave --log.wandb out"
        )
    if settings.lora.base == "4bit" and find_spec("bitsandbytes") is None:
        raise ValueError(
            "bitsandbytes must be installed for a base in 4 bits: "
            "pip install 'gradlab[qlora]', or leave --lora.base out"
        )
    with start_group(settings.device) as group, contextlib.ExitStack() as stack:
        settings = dataclasses.replace(settings, model=group.on_all(lambda: whole_model(settings.model)))
        run = dataclasses.replace(Run.opened(settings, group, stack), look=look)
        base = reference = settings.model
        if settings.sft.epochs:
            base = reference = SupervisedStage(run, base).model()
        if settings.of("reference.steps"):
            reference = ReferenceStage(run, base, base).model()
        start = reference if settings.init == "reference" else base
        return _train_losses(run, start, reference)


def _train_losses(run: Run, start: str, reference: str) -> list[Path]:
    """Train each loss; return the folders of the models. Where numbers are not finite, the other losses come first."""
    folders, stopped = [], []
    for text in run.settings.loss:
        stage = loss_stage(run, text, start, reference)
        try:
            folders.append(Path(stage.model()).parent)
        except (Stopped, StoppedElsewhere) as error:  # its words alone: the traceback would keep the model in memory
            stopped.append(f"{error}")
    if stopped and not run.group.is_main:
        raise StoppedElsewhere
    if stopped:
        raise Stopped("; ".join(stopped))
    return folders


class SupervisedStage(Stage):
    """Supervised training on the chosen responses."""

    name = "sft"

    @property
    def steps(self) -> int:
        """Return the number of steps in ``sft.epochs`` epochs."""
        return self.run.steps(self.run.settings.sft.epochs)

    @property
    def rate(self) -> float:
        """Return ``sft.learning_rate``, the highest learning rate."""
        return self.run.settings.sft.learning_rate

    def task(self) -> tuple[PolicyModel, Task[PolicyModel]]:
        """Return the model that the stage starts from, and the chosen responses as its task."""
        data = self.run.data
        train, held_out = (self._rows(data.part(part)) for part in (data.train, data.held_out))
        return self.policy_of(self.start), SupervisedTask(train, held_out, texts=data.train_texts)

    def decided(self) -> dict[str, Any]:
        """Return the values that the stage's numbers depend on, with the answers that are learned if these are all."""
        turns = self.run.settings.sft.turns
        return {**super().decided(), **({} if turns == "last" else {"sft_turns": turns})}

    def _rows(self, pairs: Sequence[Encoded]) -> list[Row]:
        """Return prompts and chosen responses, with earlier answers where they are to be learned too."""
        run = self.run
        if run.settings.sft.turns == "last":
            return [(pair.prompt, pair.win) for pair in pairs]
        marks = AnswerMarks.of(run.tokenizer, run.settings.template)
        rows = [marks.row(pair.prompt, pair.win) for pair in pairs]
        if run.group.is_main:
            number = sum(isinstance(row[1], Partly) for row in rows)
            say(f"sft: {number:,} of {len(rows):,} pairs have earlier answers, which are learned too")
        return rows


class PairStage(Stage):
    """Training with a preference loss, against a reference."""

    reference: str

    def __init__(self, run: Run, start: str, reference: str, loss: PairLoss) -> None:
        super().__init__(run, start, reference)
        self.name, self.loss = loss.name, loss

    def task(self) -> tuple[PolicyModel, Task[PolicyModel]]:
        """Return the model that the stage starts from, and the pairs as its task."""
        assert self.loss is not None
        data = self.run.data
        policy, train_ref, held_out_ref = scored(self, "train", "held_out")
        train, held_out = data.part(data.train), data.part(data.held_out)
        return policy, PairTask(self.loss, train, train_ref, held_out, held_out_ref, data.train_texts)


class ReferenceStage(PairStage):
    """Training by DPO that makes the reference."""

    def __init__(self, run: Run, start: str, reference: str) -> None:
        super().__init__(run, start, reference, DPO(run.settings.of("beta")))
        self.name = "reference"

    @property
    def steps(self) -> int:
        """Return ``reference.steps``, or the recipe's where that is left out."""
        return self.run.settings.of("reference.steps")


class PPOStage(Stage):
    """Training by PPO, on responses that the model samples."""

    name = PPO
    reference: str

    def model(self) -> str:
        """Train, unless that has been done; say first where the file of the reward was edited after the start."""
        self.run.group.on_main(self._say_edited)
        return super().model()

    def header(self, policy: PolicyModel) -> dict[str, Any]:
        """Return the log's first line, with PPO's settings, and the hash of the reward's file if FILE.py:FUNCTION."""
        settings, flat = self.run.settings, self.run.settings.flat()
        return {
            **super().header(policy), "beta": settings.of("beta"), "ppo_reward": settings.ppo.reward,
            "ppo_judge": settings.ppo.judge, **{name: flat[name] for name in (*_OF_PPO, *_OF_PPO_LATER)},
            "reward_code": reward_code(str(settings.ppo.reward)),
        }  # fmt: skip

    def _say_edited(self) -> None:
        """Say where the reward's file or judge is not that of the log: a repair may be wanted, so it is no error."""
        folder, spec = self.run.settings.out / self.name, str(self.run.settings.ppo.reward)
        try:
            header = read_log(folder / LOG).attrs["settings"] if (folder / LOG).is_file() else {}
        except (OSError, ValueError):  # a damaged log, which is said elsewhere
            return
        known, judges = header.get("reward_code"), (header.get("ppo_judge"), self.run.settings.ppo.judge)
        if header and judges[0] != judges[1]:
            before, now = (judge or "none" for judge in judges)
            say(
                f"gradlab: the judge was {before} when {folder} began, and is {now} now; what either judges does not "
                "compare",
                file=sys.stderr,
            )
        if known and known != reward_code(spec):
            say(
                f"gradlab: the file of reward {spec} was edited after {folder} began; what was trained before keeps "
                "the former rewards",
                file=sys.stderr,
            )

    def decided(self) -> dict[str, Any]:
        """Return the values that the stage's numbers depend on, with PPO's settings and the hash of the reward."""
        settings = self.run.settings
        reward = self.run.group.on_main(lambda: reward_hash(str(settings.ppo.reward)))
        flat, usual = settings.flat(), {**flat_defaults(), "micro": Settings.micro}
        # ``micro`` decides which prompts share a draw, and so which samples are drawn.
        later = {name: flat[name] for name in (*_OF_PPO_LATER, "micro") if flat[name] != usual[name]}
        return {
            **super().decided(), "reward": reward, **{name: flat[name] for name in _OF_PPO}, **later,
            "beta": settings.of("beta"),
        }  # fmt: skip

    def seen(self) -> Sequence[Encoded]:
        """Return the held-out pairs: the steps are on responses of the model's own."""
        return self.run.data.part(self.run.data.held_out) if self.run.settings.log.validate_every else []

    def task(self) -> tuple[PolicyModel, Task[PolicyModel]]:
        """Return the model that the stage starts from, and the prompts with their reward as its task."""
        from gradlab.llm.train.ppo_task import PPOTask, frozen_reference

        run = self.run
        policy, held_out_ref = scored(self, "held_out")
        reference = frozen_reference(self.reference, self.start, policy, run.start_model)
        return policy, PPOTask.prepared(policy, run.data, run.tokenizer, reference, held_out_ref)


def loss_stage(run: Run, text: str, start: str, reference: str) -> Stage:
    """Return the stage that trains by the loss that a text names, or by PPO."""
    if text == PPO:
        return PPOStage(run, start, reference)
    return PairStage(run, start, reference, run.settings.loss_of(text))


def scored(stage: PairStage | PPOStage, *parts: str) -> tuple[Any, ...]:
    """Return the model that a stage starts from, and log π_ref of the pairs in each of these parts of the data."""
    policy = stage.policy_of(stage.reference)  # scores the pairs before training, or before it makes room for ``start``
    logps = [_reference_logps(stage, policy, part) for part in parts]
    if stage.reference != stage.start:
        del policy
        free_memory()
        policy = stage.policy_of(stage.start)
    return policy, *logps


def _reference_logps(stage: PairStage | PPOStage, policy: PolicyModel, part: str) -> Tensor:
    """Return log π_ref of both sides of each pair in a part of the data, (N, 2), from the cache where that has it.

    It is NaN for training pairs that no step of the stage sees, and for held-out pairs where nothing looks at them. In
    bf16 other numbers of processes may compute in other types: each way has a file of its own.
    """
    run = stage.run
    settings, data = run.settings, run.data
    kinds = kinds_of(settings, run.group)
    whole = kinds[0] == "fp32"
    cache = fingerprint(
        run.group.on_main(lambda: loading.weights_hash(stage.reference)), data.fingerprint, part, settings.precision,
        settings.reduction, *stage.later().values(), *(() if whole else kinds),
    )  # fmt: skip
    folder = Path(stage.reference).parent
    name = folder.name if folder.parent == settings.out else "model"  # stages with one reference share its cache
    number = len(getattr(data, part))
    used = seen_by(stage.steps, number, settings.batch, settings.seed) if part == "train" else np.arange(number)
    if part == "held_out" and not settings.log.validate_every:
        used = used[:0]
    file = caches(settings) / f"{name}-{part}{f'-{cache}' if settings.cache or not whole else ''}.safetensors"
    with frozen(policy):
        return reference_logps(
            file, cache, policy, data.part(getattr(data, part)), run.group, used=used, pad=policy.pad,
            micro=settings.micro, budget=settings.tokens_per_micro, layout=policy.layout,
            title=f"reference, {part.replace('_', '-')} pairs",
        )  # fmt: skip
