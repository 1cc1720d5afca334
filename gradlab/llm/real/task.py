"""The contract of a task on a pretrained model: its declared settings, its pairs, and how each method is trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
from torch import Tensor

from gradlab.checks import one_of
from gradlab.llm.data.batches import Row
from gradlab.llm.data.prepare import prepare
from gradlab.llm.data.tokens import Encoded
from gradlab.llm.train.run_settings import Settings
from gradlab.llm.train.section_settings import LogSettings, ReferenceSettings

REFERENCE = "reference"  # the method of a unit that only looks at the model before any training


@dataclass(frozen=True)
class Place:
    """Where a task finds its model and pairs, and where it works.

    model    the pretrained model, as ``gradlab train`` takes it.
    out      the folder of all that can be made again: runs, caches.
    figures  the folder of the committed figures, with pairs and frames in ``llm/real``.
    data     pairs that cannot be committed, where the task needs them.
    smoke    use the task's settings for a test.
    """

    model: str
    out: Path
    figures: Path
    data: str | None = None
    smoke: bool = False

    @property
    def kept(self) -> Path:
        """Return the folder of the pairs and frames that are committed."""
        return self.figures / "llm" / "real"


class RealTask(ABC):
    """A task: pairs for each seed, methods to train on them, and what is measured along the training.

    name      in lower case; the frames' names begin with it.
    needs_data  the pairs must be given, as they are not committed.
    version   part of each frame's key; raised by hand when a change of any source changes the numbers.
    settings  JSON-able: every number that the frames depend on. ``methods`` has the core (name → loss, as
              ``gradlab train --loss`` takes it; None for ``REFERENCE``), ``beyond`` what is run when all seeds have the
              core, and ``seeds`` the seeds; these three name runs and change none of them. ``per_method`` has, by
              method, the numbers on which its frames alone depend; a ``learning_rate`` there replaces the common one.
    smoke     the settings that a test replaces.
    """

    name: ClassVar[str]
    needs_data: ClassVar[bool] = False
    version: ClassVar[int]
    settings: ClassVar[Mapping[str, Any]]
    smoke: ClassVar[Mapping[str, Any]] = {}

    def of(self, place: Place) -> dict[str, Any]:
        """Return the settings of a run at this place."""
        return {**self.settings, **(self.smoke if place.smoke else {})}

    def methods(self, place: Place) -> dict[str, str | None]:
        """Return all methods, those of the core first."""
        settings = self.of(place)
        return {**settings["methods"], **settings.get("beyond", {})}

    @abstractmethod
    def inputs(self, place: Place, seed: int) -> list[Path]:
        """Return the files of a seed's pairs, on whose content the frames depend; those that are missing are made."""

    @abstractmethod
    def inputs_are_quick(self, place: Place, seed: int) -> bool:
        """Say whether ``inputs`` takes seconds, and need not make a file that takes minutes."""

    @abstractmethod
    def training(self, place: Place, method: str, seed: int) -> Settings:
        """Return the settings by which a method is trained."""

    def common_training(self, place: Place, method: str, seed: int, **more: Any) -> Settings:
        """Return the settings of a training: those that are the same in every task, and ``more`` by name."""
        settings = self.of(place)
        rate = settings.get("per_method", {}).get(method, {}).get("learning_rate", settings["learning_rate"])
        train, held_out = self.inputs(place, seed)
        log = LogSettings(
            sides_every=settings["sides_every"], validate_every=settings["validate_every"],
            save_every=settings["looks"][0], keep=1,
        )  # fmt: skip
        return Settings(
            model=place.model, data=str(train), validation=str(held_out), out=place.out, template="chat",
            loss=(self.methods(place)[method] or "dpo",), reference=ReferenceSettings(steps=0),
            steps=settings["steps"], learning_rate=rate, micro=settings["batch"], seed=seed,
            precision="fp32", device="cpu", train_from=settings["train_from"],
            cache=place.out / self.name / str(seed) / "cache", log=log, **more,
        )  # fmt: skip

    def held_out(self, place: Place, seed: int, model: Looked) -> Sequence[Encoded]:
        """Return a seed's held-out pairs as a model reads them; they are read once per training."""
        if "held-out" not in model.memory:
            data = prepare(self.training(place, REFERENCE, seed).flat(), model.tokenizer)
            model.memory["held-out"] = data.part(data.held_out)
        return model.memory["held-out"]

    def about(self, place: Place, method: str, seed: int) -> list[dict[str, Any]]:
        """Return rows, each with ``kind``, about what a training was made with beside its pairs; none by default."""
        return []

    @abstractmethod
    def look(self, place: Place, seed: int, step: int, model: Looked) -> pd.DataFrame:
        """Return the rows that describe a model after a step, each with ``kind``; 0 is the model before training."""


@dataclass
class Looked:
    """A model that a task looks at, beside the reference; log-probabilities are (N,), in nats.

    policy     the model, as ``gradlab.llm.model.sampling.sample`` takes it.
    score      gives log π of rows (prompt, response); ``ref_score`` gives log π_ref.
    both       gives log π and log π_ref of rows, for little more than the price of one where both share layers.
    memory     what the looks of one training share, such as log π_ref of the held-out pairs.
    """

    policy: Any
    score: Callable[[Sequence[Row]], Tensor]
    ref_score: Callable[[Sequence[Row]], Tensor]
    both: Callable[[Sequence[Row]], tuple[Tensor, Tensor]]
    tokenizer: Any
    memory: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Unit:
    """One unit of work: a method and a seed of a task."""

    task: RealTask
    method: str
    seed: int

    @property
    def name(self) -> str:
        """Return the name of the unit's frame, without its ending."""
        return f"{self.task.name}-{self.method}-{self.seed}"


def units_of(
    tasks: Sequence[RealTask], place: Place, methods: Sequence[str] = (), seeds: Sequence[int] = ()
) -> list[Unit]:  # fmt: skip
    """Return units in the order in which they are run: task by task the core of each seed, then what is beyond it.

    methods  are run on the tasks that have them. ValueError for a method that none of the tasks has.
    methods, seeds  left out: all that the settings declare.
    """
    every = dict.fromkeys(name for task in tasks for name in task.methods(place))
    whose = " and ".join(task.name for task in tasks)
    wanted = [one_of(f"methods of {whose}", name, every) for name in methods]
    return [unit for task in tasks for unit in _units_of(task, place, wanted, seeds)]


def _units_of(task: RealTask, place: Place, methods: Sequence[str], seeds: Sequence[int]) -> list[Unit]:
    declared, there = task.of(place), task.methods(place)
    chosen = [name for name in methods or there if name in there]
    core = [name for name in chosen if name in declared["methods"]]
    rest = [name for name in chosen if name not in core]
    return [Unit(task, method, seed) for part in (core, rest) for seed in seeds or declared["seeds"] for method in part]
