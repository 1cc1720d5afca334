"""Train a pretrained model on declared tasks with every method, and keep a small frame per finished run.

A run is one method and one seed. It takes a quarter of an hour to an hour and a half on one core, with PPO
more. Finished runs are not repeated, an interrupted one goes on where it was, and --minutes ends a slice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from gradlab.checks import count, one_of, positive
from gradlab.cli.guard import guarded
from gradlab.cli.options import need, parsed, quiet_transformers
from gradlab.cli.train_command import GOES_ON
from gradlab.console import say

_ALL = tyro.conf.arg(help_behavior_hint="(left out: all)")
_TASKS = tyro.conf.arg(help_behavior_hint="(left out: all, without --data only known)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RealCommand:
    """The options of ``gradlab real``."""

    model: str
    """The pretrained model that the tasks declare: a folder with its weights in safetensors, or a GGUF file."""
    data: Annotated[str | None, tyro.conf.arg(metavar="PAIRS", help_behavior_hint="(left out: none)")] = None
    """HH-RLHF's pairs for the task hh: a file, or Anthropic/hh-rlhf where there is a network."""
    out: Path = Path("runs/llm-real")
    """The folder of the runs, whose weights are removed as soon as a frame is kept."""
    folder: Path = Path("figures")
    """The folder of the figures: llm/real in it has the pairs, and gets a frame per finished run."""
    tasks: Annotated[tuple[str, ...], _TASKS] = ()
    """Tasks: known, whose true reward is known, and hh, which has real pairs and needs --data."""
    methods: Annotated[tuple[str, ...], _ALL] = ()
    """Methods, by the names that the tasks declare; each is run on the tasks that have it."""
    seeds: Annotated[tuple[int, ...], _ALL] = ()
    """Seeds of pairs and training."""
    workers: int = 2
    """Processes, of one thread each; each needs 3 GB of memory."""
    minutes: Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="(left out: no end)")] = None
    """Runs stop after so many minutes, at the end of their step, and go on from there the next time."""
    open: bool = False
    """Only print which runs are done, and which are open."""
    smoke: bool = False
    """Try the whole path in a minute or two; the frames go to --out, and their numbers mean nothing."""

    def run(self) -> int:
        """Run what is open, and print how many runs are done."""
        self._check()
        need("llm", "transformers")
        from gradlab.llm.model.gguf_file import whole_model
        from gradlab.llm.real.declared_models import refuse_other_models
        from gradlab.llm.real.runs import TASKS, is_done, run_units
        from gradlab.llm.real.task import Place, units_of

        place = Place(whole_model(self.model), self.out, self.folder, self.data, self.smoke)
        given = [name for name, task in TASKS.items() if self.data is not None or not task.needs_data]
        tasks = [TASKS[one_of("tasks", name, TASKS)] for name in self.tasks or given]
        with quiet_transformers():
            units = units_of(tasks, place, self.methods, self.seeds)
            if self.open:
                refuse_other_models([unit.task for unit in units], place)
            else:
                run_units(units, place, workers=self.workers, minutes=self.minutes)
            done = [is_done(unit, place) for unit in units]
        for unit, there in zip(units, done, strict=True):
            say(f"{'done' if there else 'open'}  {unit.name}")
        say(f"{sum(done)} of {len(units)} runs are done")
        return 0

    def _check(self) -> None:
        """Raise ValueError for a name or a seed that comes twice, and for numbers that count nothing."""
        for name, given in {"tasks": self.tasks, "methods": self.methods, "seeds": self.seeds}.items():
            if len(set(given)) < len(given):
                raise ValueError(f"{name} must be named once each, got {' '.join(map(str, given))}")
        for seed in self.seeds:
            count("seeds", seed)
        count("workers", self.workers, 1)
        if self.minutes is not None:
            positive("minutes", self.minutes)


def run(arguments: Sequence[str]) -> int:
    """Do what the arguments say; return the exit status."""
    return guarded(parsed(RealCommand, "real", __doc__, arguments).run, stopped=GOES_ON, smaller="fewer --workers")
