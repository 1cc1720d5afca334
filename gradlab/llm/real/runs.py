"""The units of the experiments on a pretrained model: run, resumed, and kept as small frames one by one."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gradlab.doctor.training_log import LOG, read_log
from gradlab.llm.data.batches import Row, dealt
from gradlab.llm.model import loading
from gradlab.llm.model.group import Group
from gradlab.llm.model.unit_process import in_single, one_thread, quietly
from gradlab.llm.real.declared_models import refuse_other_models
from gradlab.llm.real.known_task import KnownTask
from gradlab.llm.real.pairs_task import PairsTask
from gradlab.llm.real.task import REFERENCE, Looked, Place, RealTask, Unit
from gradlab.llm.train.checkpoints import remove
from gradlab.llm.train.hidden_cache import HiddenCache
from gradlab.llm.train.policy_model import PolicyModel, frozen
from gradlab.llm.train.reference import score
from gradlab.llm.train.run_settings import Settings
from gradlab.llm.train.stages import train
from gradlab.store.artifacts import load_frame, save_frame
from gradlab.store.files import file_hash, write_whole
from gradlab.store.pool import Part, run_parts
from gradlab.store.provenance import fingerprint

TASKS: dict[str, RealTask] = {task.name: task for task in (KnownTask(), PairsTask())}
MICRO = 16  # rows that are scored at a time
_MARK = "key.txt"  # in a run's folder: the key of its frame
_SECONDS = "seconds.txt"  # there: how long processes have worked on it
_NAMING = ("methods", "beyond", "seeds", "per_method")  # settings that name units, or count for some of them alone


def key_of(unit: Unit, place: Place) -> str:
    """Return a hash of all that a unit's frame depends on; its pairs count by their content, the model by its name.

    A name stands for one model: ``run_units`` refuses any other.
    """
    settings = unit.task.of(place)
    method = unit.task.methods(place)[unit.method]
    rest = {name: value for name, value in settings.items() if name not in _NAMING}
    pairs = [file_hash(file) for file in unit.task.inputs(place, unit.seed)]
    own = [of for name, of in settings.get("per_method", {}).items() if name == unit.method]
    return fingerprint(unit.task.name, unit.task.version, rest, unit.method, method, unit.seed, pairs, *own)


def part_of(unit: Unit, place: Place) -> Part:
    """Return the unit as a part of a long work; its frame is in ``place.kept``, or in ``place.out`` for a test."""
    folder = place.out / "frames" if place.smoke else place.kept
    arguments = {"task": unit.task.name, "method": unit.method, "seed": unit.seed, "place": place}
    return Part(arguments, folder / f"{unit.name}.parquet", key_of(unit, place))


def is_done(unit: Unit, place: Place) -> bool:
    """Say whether the unit's frame is there, whole, and of the pairs and settings that are there."""
    return unit.task.inputs_are_quick(place, unit.seed) and part_of(unit, place).is_done()


def run_units(
    units: Sequence[Unit], place: Place, *, workers: int | None = None, minutes: float | None = None
) -> None:  # fmt: skip
    """Run the units that are not done, one block of units with one task and seed after the other.

    The folder of a unit's run, with weights of half a gigabyte, is removed once its frame is kept.

    workers  processes, of one thread each; the number changes no bit.
    minutes  after so many, a unit in training stops at the end of its step and keeps a checkpoint, and none is begun;
             what a unit does before and after its training is not cut short. Left out: all are run to their end.

    ValueError where the place has another model than the tasks declare.
    """
    refuse_other_models([unit.task for unit in units], place)
    end = math.inf if minutes is None else time.time() + 60 * minutes
    for _, block in itertools.groupby(units, lambda unit: (unit.task.name, unit.seed)):
        if time.time() >= end:
            break
        todo = []
        for part in (part_of(unit, place) for unit in block):
            if part.is_done():
                _remove_run(part)  # it is there where a process was killed after it had kept the frame
            else:
                todo.append(part)
        work = functools.partial(run_unit, until=end)
        run_parts(work, todo, label="pretrained model", unit="run", workers=workers, saved=_remove_run)


@one_thread()
def run_unit(task: str, method: str, seed: int, place: Place, until: float = math.inf) -> pd.DataFrame | None:
    """Train one method on one seed's pairs; return all looks and the log as one frame, with task, method and seed.

    Kinds of rows: those of the task's looks, ``log`` (one row per step), those of the task's ``about``, and ``run``
    (the seconds of the whole unit, those of processes that were stopped among them). What the run wrote stays in its
    folder, so that to run it again trains nothing; what a run with another key left there is removed.

    until  when to stop, in seconds as ``time.time`` counts them; None is returned then, and the next call goes on.
    """
    if time.time() >= until:
        return None
    unit, folder = Unit(TASKS[task], method, seed), _folder(task, method, seed, place)
    _begin(folder, key_of(unit, place))
    with _timed(folder) as seconds, quietly(folder.parent / f"{method}.txt"):
        settings = dataclasses.replace(unit.task.training(place, method, seed), out=folder)
        looks = _Looks(unit, place, settings, folder, until)
        if method == REFERENCE:
            looks.at_start()
            frames = looks.frames([0])
        else:
            try:
                train(settings, look=looks)
            except KeyboardInterrupt:
                if time.time() < until:
                    raise
                return None
            log = read_log(folder / settings.names[0] / LOG)
            frames = [*looks.frames(unit.task.of(place)["looks"]), log.assign(kind="log")]
            frames += [pd.DataFrame([row]) for row in unit.task.about(place, method, seed)]
    run = pd.DataFrame({"kind": ["run"], "seconds": [seconds()]})
    frame = pd.concat([*frames, run], ignore_index=True)
    return in_single(frame).assign(task=task, method=method, seed=seed)


@contextlib.contextmanager
def _timed(folder: Path) -> Iterator[Callable[[], float]]:
    """Give a clock of all processes that have worked on a run; a process that is killed leaves no time."""
    file, began = folder / _SECONDS, time.perf_counter()
    before = float(file.read_text("utf-8")) if file.exists() else 0.0

    def seconds() -> float:
        return before + time.perf_counter() - began

    try:
        yield seconds
    finally:
        write_whole({file: f"{seconds():.3f}"})


def _folder(task: str, method: str, seed: int, place: Place) -> Path:
    """Return where a run keeps its weights and looks; it takes the arguments of ``run_unit``."""
    return place.out / task / str(seed) / method


def _begin(folder: Path, key: str) -> None:
    """Make a run's folder, without looks and checkpoints of another run: they would be taken for this one's.

    FileExistsError where something else is in its place.
    """
    mark = folder / _MARK
    if folder.exists() and not mark.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} must be a run's folder, which has key.txt, got another one; move it away")
    if not mark.exists() or mark.read_text("utf-8") != key:
        remove(folder)
        folder.mkdir(parents=True)
        write_whole({mark: key})


def _remove_run(part: Part) -> None:
    """Remove the folder of a part's run; another folder in its place, without key.txt, stays."""
    folder = _folder(**part.arguments)
    if (folder / _MARK).is_file():
        remove(folder)


class _Looks:
    """Looks along one training, each kept as soon as it is made, so that a run that is resumed need not repeat it."""

    def __init__(self, unit: Unit, place: Place, settings: Settings, folder: Path, until: float) -> None:
        self.unit, self.place, self.settings, self.folder, self.until = unit, place, settings, folder, until
        self.steps = unit.task.of(place)["looks"]
        self.memory: dict[str, Any] = {}
        self.tokenizer = loading.load_tokenizer(settings.model)
        self._reference: PolicyModel | None = None

    def __call__(self, _: str, policy: PolicyModel, step: int) -> None:
        """Look at the policy, where this step is one of those declared and the look is not there yet.

        When the time is over, the training is asked to stop as Ctrl-C asks it: with a checkpoint after this step.
        """
        if step in self.steps and not self._file(step).exists():
            with frozen(policy):
                self._look(policy, step)
        if time.time() >= self.until:
            self.until = math.inf  # a second signal would stop at once, without a checkpoint
            signal.raise_signal(signal.SIGINT)

    def at_start(self) -> None:
        """Look at the reference itself."""
        if not self._file(0).exists():
            self._look(self.reference(None), 0)

    def frames(self, steps: Sequence[int]) -> list[pd.DataFrame]:
        """Return the looks at these steps."""
        return [load_frame(self._file(step))[0] for step in steps]

    def reference(self, hidden: HiddenCache | None) -> PolicyModel:
        """Return the model before training, which takes the hidden states of rows that it has in common with others."""
        if self._reference is None:
            model = loading.load_model(self.settings.model)
            pad = self.tokenizer.pad_token_id
            self._reference = PolicyModel(model, Group(), self.settings, rate=1.0, steps=1, pad=pad, hidden=hidden)
            self._reference.model.eval()
        return self._reference

    @torch.no_grad()
    def _look(self, policy: PolicyModel, step: int) -> None:
        reference = self.reference(policy.hidden)
        scored, ref_scored = (functools.partial(_scored, model) for model in (policy, reference))
        both = functools.partial(_both, policy, reference)
        looked = Looked(policy.model, scored, ref_scored, both, self.tokenizer, self.memory)
        frame = self.unit.task.look(self.place, self.unit.seed, step, looked)
        save_frame(frame.assign(step=step), self._file(step), {}, overwrite=True)

    def _file(self, step: int) -> Path:
        return self.folder / f"look-{step:05d}.parquet"


def _scored(model: PolicyModel, rows: Sequence[Row]) -> Tensor:
    return score(model, rows, model.group, pad=model.pad, micro=MICRO)


def _both(policy: PolicyModel, reference: PolicyModel, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
    """Return log π and log π_ref of rows; what the layers below those that are trained give is computed once."""
    if policy is reference:
        once = _scored(policy, rows)
        return once, once
    if policy.upper is None:
        return _scored(policy, rows), _scored(reference, rows)
    logps = torch.zeros(2, len(rows), dtype=torch.float64)
    for part in dealt(np.array([len(prompt) + len(response) for prompt, response in rows]), MICRO):
        batch = policy.batch([rows[index] for index in part])
        logps[:, part] = torch.stack([model(**batch).double() for model in (policy, reference)])
    return logps[0], logps[1]
