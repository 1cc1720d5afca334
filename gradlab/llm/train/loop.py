"""The training loop: any model with an optimiser, any task; logged, looked at on the way, saved, resumed."""

from __future__ import annotations

import json
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from gradlab.console import printable, say
from gradlab.llm.data.pairs import Pair
from gradlab.llm.model.finished import STOPPED
from gradlab.llm.model.group import Elsewhere, stop_asked
from gradlab.llm.train.checkpoints import CHECKPOINTS
from gradlab.llm.train.stage_log import StageLog
from gradlab.llm.train.trained_model import TrainedModel
from gradlab.store.files import write_whole

M = TypeVar("M", bound=TrainedModel[Any])
Look = Callable[[str, Any, int], None]  # sees a stage's name, its model and the step just made; changes nothing


class Task(ABC, Generic[M]):
    """The task that ``run_steps`` trains a model on; all processes make the same calls."""

    @abstractmethod
    def gradient(self, policy: M, step: int) -> dict[str, float]:
        """Put the gradient of step 1, 2, … into the model; return columns of the log, ``grad_norm`` among them."""

    def realised(self, policy: M, step: int, row: dict[str, float]) -> dict[str, float]:
        """Return further columns for a step that has just been made and has this row; none by default."""
        return {}

    def validate(self, policy: M) -> dict[str, float]:
        """Return the columns about held-out data; none where no data is held out."""
        return {}

    def samples(self) -> Sequence[Mapping[str, Any]]:
        """Return samples of the latest step for a person, an object per prompt; none by default."""
        return []

    def resumable(self, policy: M, step: int) -> bool:
        """Say whether training can go on from a checkpoint after this step."""
        return True

    def described(self, index: Sequence[int]) -> list[dict[str, Any]]:
        """Return a failed step's data in a form that a person can read; ``index``: places as in ``NotFinite``."""
        return []


class NotFinite(Exception):
    """An error: a step's numbers are not finite. It carries the batch."""

    def __init__(self, words: str, batch: dict[str, Any]) -> None:
        super().__init__(words)
        self.batch = batch


class Stopped(FloatingPointError):
    """An error: a training ends because a number is not finite; its batch is in a file. The main process raises it."""


class StoppedElsewhere(Elsewhere):
    """An error: the same in the other processes."""


class NoStep(ValueError):
    """An error: what a step needs could not be had; all processes raise it, the model as the last step left it."""


def check_finite(name: str, values: Tensor, step: int, index: np.ndarray) -> None:
    """Raise ``NotFinite`` where a value is not finite; every process sees the same values and stops alike."""
    if not bool(torch.isfinite(values).all()):
        raise NotFinite(f"step {step}: {name} is not finite", {
            "step": step, "what": name, "training_pairs": index.tolist(),
            "values": [str(value) for value in values.flatten().tolist()],
        })  # fmt: skip


def described(index: Sequence[int], texts: Sequence[Pair], tokens: Sequence[Any]) -> list[dict[str, Any]]:
    """Return the pairs at ``index`` for a person to read: as text, where ``texts`` are known, and as tokens."""
    return [
        {"text": asdict(texts[place]) if texts else None, "tokens": ids}
        for place, ids in zip(index, tokens, strict=True)
    ]


def run_steps(
    policy: M, task: Task[M], folder: Path, key: str, header: dict[str, Any], title: str, look: Look | None = None
) -> dict[str, Any]:
    """Train for the model's steps, from the newest checkpoint on; log, look at held-out pairs, save.

    folder  the stage's folder, which holds log.jsonl and checkpoints/.
    look    is called after each step, before the checkpoint of that step; a run that is resumed may call it again.
    Returns a summary: the number of steps, the step at which this call began, its seconds, its tokens over all
    processes, and the training's last numbers.
    """
    group = policy.group
    done = policy.resume(folder / CHECKPOINTS, key)
    log = StageLog(folder, header, done, policy.settings.log, active=group.is_main)
    started = time.perf_counter()
    row = log.ended() if done == policy.steps else {}  # the training was stopped after its last step
    with (
        tqdm(total=policy.steps, initial=done, desc=printable(title), unit="step", disable=not group.is_main) as bar,
        log,
        stop_asked(group) as asked,
    ):
        steps = _Steps(policy, task, folder, key, log, asked, done)
        for step in range(done + 1, policy.steps + 1):
            row = steps.make(step)
            if look is not None:
                look(title, policy, step)
            bar.set_postfix({name: f"{row[name]:.3f}" for name in ("loss", "accuracy") if name in row}, refresh=False)
            bar.update()
            steps.save(step)
        seen = steps.last_look()
    tokens = float(group.total(torch.tensor(policy.tokens, dtype=torch.float64)))
    summary = {"steps": policy.steps, "resumed_at": done, "seconds": time.perf_counter() - started, "tokens": tokens}
    return summary | StageLog.ending({**row, **seen})


@dataclass(frozen=True)
class _Steps(Generic[M]):
    """The parts of a step: gradient and update, log, checkpoint, and a stop where somebody asked for it."""

    policy: M
    task: Task[M]
    folder: Path
    key: str
    log: StageLog
    asked: Callable[[], bool]
    done: int  # the step after which this call goes on

    def make(self, step: int) -> dict[str, float]:
        """Make a step and log it; return its row."""
        every = self.policy.settings.log.validate_every
        seen = self.task.validate(self.policy) if every and (step - 1) % every == 0 else {}
        row = self._gradient(step)
        rate = self.policy.step(step, row["grad_norm"])
        moved = self.task.realised(self.policy, step, row)
        self.log.write(step, {**row, **seen, **moved, "learning_rate": rate})
        shown = self.policy.settings.log.samples_every
        if shown and (step - 1) % shown == 0:
            self.log.show(step, self.task.samples())
        return row

    def save(self, step: int) -> None:
        """Write a checkpoint where the settings say so or a stop was asked for; in the latter case, stop.

        The stop is a KeyboardInterrupt.
        """
        every, last = self.policy.settings.log.save_every, step == self.policy.steps
        stop = (last or self.task.resumable(self.policy, step)) and self.asked()
        if stop or (not last and every and step % every == 0):
            self._write(step)
        if stop:
            raise KeyboardInterrupt

    def last_look(self) -> dict[str, float]:
        """Look at the held-out data with the finished model and log it; stop where that was asked for meanwhile."""
        policy = self.policy
        seen = self.task.validate(policy) if policy.settings.log.validate_every else {}
        self.log.write(policy.steps + 1, seen)
        if self.asked():
            self._write(policy.steps)
            raise KeyboardInterrupt
        return seen

    def _write(self, step: int) -> None:
        """Write the checkpoint of a step, once its log is on the disk."""
        self.log.sync()
        self.policy.save(self.folder / CHECKPOINTS, step, self.key)

    def _keep(self, step: int) -> None:
        """Write the checkpoint of the last step before the training ends by an error, unless it is there already."""
        every = self.policy.settings.log.save_every
        if step <= self.done or (every and step % every == 0) or not self.task.resumable(self.policy, step):
            return
        self._write(step)
        if self.policy.group.is_main:
            say(f"gradlab: step {step} is saved, and the same command goes on after it", file=sys.stderr)

    def _gradient(self, step: int) -> dict[str, float]:
        """Compute the task's gradient; where a number is not finite, write the batch to a file and stop."""
        try:
            return self.task.gradient(self.policy, step)
        except NoStep:
            self._keep(step - 1)
            if not self.policy.group.is_main:
                raise Elsewhere from None
            raise
        except NotFinite as error:
            words, batch = f"{error}", error.batch
        file = self.folder / STOPPED.format(step)

        def write() -> None:
            page = {**batch, "pairs": self.task.described(batch["training_pairs"])}
            write_whole({file: json.dumps(page, indent=1, ensure_ascii=False) + "\n"})

        self.policy.group.on_main(write)
        if not self.policy.group.is_main:
            raise StoppedElsewhere
        raise Stopped(f"{words}; the batch is in {file}, and the last checkpoint is kept")
