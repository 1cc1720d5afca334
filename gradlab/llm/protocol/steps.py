"""From a plan to its commands, in order, each of which is skipped where it was done; and the joined evaluations."""

from __future__ import annotations

import dataclasses
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from gradlab.console import say
from gradlab.llm.model.finished import DONE, stopped_at
from gradlab.llm.protocol.cost import training_of
from gradlab.llm.protocol.plan import Arm, Group, Plan
from gradlab.losses import from_text
from gradlab.store.artifacts import load_frame

KEYS = ("arm", "group", "seed")


@dataclasses.dataclass(frozen=True)
class Step:
    """A command of a protocol: the training of a group's losses, or its evaluation.

    words   the command without the losses, which are named last.
    losses  the folder of each loss, by the loss as the command names it.
    made    the file that is there once the command is done, unless trainings have stopped.
    core    False: the claims can be judged without it.
    """

    name: str
    words: tuple[str, ...]
    losses: Mapping[str, Path]
    made: Path
    trains: bool
    core: bool = True

    def __str__(self) -> str:
        return shlex.join(self.command)

    @property
    def command(self) -> tuple[str, ...]:
        """Return the command; an evaluation is without the losses whose training has stopped."""
        return (*self.words, *(loss for loss in self.losses if self.trains or loss not in self.stopped))

    @property
    def stopped(self) -> dict[str, int]:
        """Return the losses whose training stopped because a number was not finite, each with the step."""
        found = {loss: stopped_at(folder) for loss, folder in self.losses.items()}
        return {loss: step for loss, step in found.items() if step is not None}

    @property
    def done(self) -> bool:
        """Say whether nothing is left: each loss is trained or has stopped; of the trained ones there is ``made``."""
        finished = [loss for loss, folder in self.losses.items() if (folder / DONE).is_file()]
        settled = len(finished) + len(self.stopped) == len(self.losses)
        return settled if self.trains else self.made.is_file() or (settled and not finished)


def steps(plan: Plan, out: Path) -> list[Step]:
    """Return the plan's commands in their order: core groups of all seeds first, each trained and then evaluated.

    The first group makes supervised model and reference; later groups start at that reference. ValueError where
    losses begin at the base, which later groups do not have.
    """
    shared = _shared(plan)
    found = []
    for core in (True, False):
        for seed in plan.seeds:
            for arm in plan.arms:
                for group in plan.groups:
                    if group.core == core:
                        found += _of_group(plan, out, arm, group, seed, shared)
    return found


def run(plan: Plan, todo: Sequence[Step], *, core: bool) -> None:
    """Run the commands of the core, or the others, that are not done yet; what a command prints is shown.

    A training that stops because a number is not finite is a result: the group's other losses are evaluated.

    Raises OSError where a command fails in another way: the same call goes on from there. ValueError where an
    evaluation had fewer prompts than the plan asks for, right after it.
    """
    for number, step in enumerate(todo, 1):
        if step.core != core:
            continue
        place = f"{plan.name}: {number} of {len(todo)}, {step.name}"
        if step.done:
            say(f"{place}: done before")
            continue
        say(f"{place}\n  {step}")
        status = subprocess.run(step.command, check=False).returncode
        if not step.done or status not in (0, 1 if step.trains and step.stopped else 0):
            raise OSError(f"{step.name} stopped with status {status}; the same command goes on from there")
        if not step.trains and step.made.is_file():
            _evaluation(plan, step.made)


def stops(todo: Sequence[Step]) -> list[str]:
    """Return in words which trainings stopped because a number was not finite: their methods have no row."""
    return [
        f"{step.name}: {loss} stopped at step {at}, where a number is not finite; it has no row"
        for step in todo if step.trains for loss, at in step.stopped.items()
    ]  # fmt: skip


def joined(plan: Plan, out: Path) -> pd.DataFrame:
    """Return the evaluations that are there, one row per arm, group, seed and ``method``, a loss as it was named."""
    tables = [frame for arm in plan.arms for seed in plan.seeds for frame in _evaluations(plan, out, arm, seed)]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=[*KEYS, "method"])


def folder_of(out: Path, arm: Arm, group: Group, seed: int) -> Path:
    """Return the folder of a group's training."""
    return out / arm.name / f"seed-{seed}" / group.name


def _evaluations(plan: Plan, out: Path, arm: Arm, seed: int) -> Iterator[pd.DataFrame]:
    for group in plan.groups:
        file = folder_of(out, arm, group, seed) / "evaluation" / "evaluation.parquet"
        if not file.is_file():
            continue
        frame = _evaluation(plan, file)
        spelled = {from_text(text).name: text for text in group.loss}
        named = frame["run"].map(lambda name, known=spelled: known.get(name, name))
        yield frame.drop(columns=["out", "run"]).assign(arm=arm.name, group=group.name, seed=seed, method=named)


def _evaluation(plan: Plan, file: Path) -> pd.DataFrame:
    """Return the frame of an evaluation; ValueError where it is on other than the plan's number of prompts."""
    frame, _ = load_frame(file)
    for number in frame["prompts"].unique():
        if number != plan.prompts:
            raise ValueError(
                f"{file} must have the plan's {plan.prompts} prompts, got {number}; where too few are held out, raise "
                f"held_out in {plan.training} and begin in another folder"
            )
    return frame


def _of_group(plan: Plan, out: Path, arm: Arm, group: Group, seed: int, shared: str | None) -> list[Step]:
    folder, first = folder_of(out, arm, group, seed), plan.groups[0]
    where = f"{arm.name}, seed {seed}, {group.name}"
    start = ["--model", plan.model]
    if group != first:  # at the reference of the first group, which is the same for all
        made = plan.model if shared is None else str(folder_of(out, arm, first, seed) / shared / "model")
        start = ["--model", made, "--sft.epochs", "0", "--reference.steps", "0"]
    choice = ["--choice", arm.choice] if arm.choice else []
    train = [
        *_launcher(plan), "--config", plan.beside(plan.training), *start, "--data", arm.data, *choice,
        "--out", str(folder), "--seed", str(seed), "--loss",
    ]  # fmt: skip
    names = [from_text(text).name for text in group.loss]
    judge = [
        sys.executable, "-m", "gradlab.cli", "evaluate", str(folder),
        "--reward", plan.beside(plan.reward), "--cost", plan.beside(plan.cost), "--prompts", str(plan.prompts),
        "--samples", str(plan.samples), "--length", str(plan.length), "--seed", str(seed), "--names",
    ]  # fmt: skip
    trained = {text: folder / name for text, name in zip(group.loss, names, strict=True)}
    asked, made = {name: folder / name for name in names}, folder / "evaluation" / "evaluation.parquet"
    return [
        Step(f"{where}, training", tuple(train), trained, folder / names[-1] / DONE, True, group.core),
        Step(f"{where}, evaluation", tuple(judge), asked, made, False, group.core),
    ]


def _shared(plan: Plan) -> str | None:
    """Return the stage of the first group whose model is the reference of all; None where that is the plan's model.

    ValueError where losses begin at the base, which later groups would not have.
    """
    settings = training_of(plan)
    if len(plan.groups) > 1 and settings.init != "reference":
        raise ValueError(f"init in {plan.training} must be reference where groups share one, got {settings.init!r}")
    return "reference" if settings.of("reference.steps") else "sft" if settings.sft.epochs else None


def _launcher(plan: Plan) -> list[str]:
    if not plan.gpus:
        return [sys.executable, "-m", "gradlab.llm"]
    torchrun = str(Path(sys.executable).with_name("torchrun"))
    program = torchrun if os.access(torchrun, os.X_OK) else "torchrun"
    return [program, "--nproc-per-node", str(plan.gpus), "-m", "gradlab.llm"]
