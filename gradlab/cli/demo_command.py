"""Train small Llamas from scratch with every loss, evaluate them, and print the tables.

One task, size and seed take 5 to 20 minutes on one core; all 12 together, with data, one to four hours. Finished
runs are not repeated, and an interrupted run goes on where it was.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from gradlab.cli.guard import guarded
from gradlab.cli.options import need, parsed, quiet_transformers
from gradlab.cli.train_command import GOES_ON
from gradlab.console import say

_BOTH_TASKS = tyro.conf.arg(help_behavior_hint="(left out: both; tokens without data)")
_BOTH = tyro.conf.arg(help_behavior_hint="(left out: both)")
_THREE = tyro.conf.arg(help_behavior_hint="(left out: 0, 1 and 2)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemoCommand:
    """The options of ``gradlab demo``."""

    data: Annotated[str | None, tyro.conf.arg(metavar="PAIRS", help_behavior_hint="(left out: none)")] = None
    """HH-RLHF's pairs for the task hh: a file, or Anthropic/hh-rlhf where there is a network. With other pairs than
    before, the runs of hh start again."""
    out: Path = Path("runs/llm-demo")
    """The folder of the runs."""
    tasks: Annotated[tuple[str, ...], _BOTH_TASKS] = ()
    """Tasks: hh, which has real pairs, and tokens, whose reward is known."""
    sizes: Annotated[tuple[str, ...], _BOTH] = ()
    """Sizes of the models: 1M and 2M, in parameters."""
    seeds: Annotated[tuple[int, ...], _THREE] = ()
    """Seeds of pairs, weights and training."""
    workers: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(left out: one per core)")] = None
    """Processes, of one thread each."""
    smoke: bool = False
    """Try the whole path in a minute, on the task tokens; the numbers mean nothing."""
    keep: bool = False
    """Write the frames to FOLDER/llm, where the claims report looks for them; needs --data and all tasks,
    sizes and seeds."""
    folder: Path = Path("figures")
    """The folder of the figures, for --keep."""

    def run(self) -> int:
        """Train, evaluate, print, keep."""
        need("llm", "transformers")
        from gradlab.llm.demo import laptop_run

        if self.keep and (self.data is None or self.tasks or self.sizes or self.seeds or self.smoke):
            raise ValueError(
                "keep needs --data and all tasks, sizes and seeds: leave out --tasks, --sizes, --seeds and --smoke"
            )
        settings = laptop_run.SMOKE if self.smoke else laptop_run.SETTINGS
        tasks = self.tasks or (("tokens",) if self.data is None or self.smoke else ())
        with quiet_transformers():
            frames = laptop_run.run_demo(
                self.out, data=self.data, settings=settings, tasks=tasks, sizes=self.sizes, seeds=self.seeds,
                workers=self.workers,
            )  # fmt: skip
        say(laptop_run.demo_table(frames["evaluation"]))
        files = f"{self.out}/*/evaluation.parquet, logs.parquet, pairs.parquet"
        say(f"\nframes, one of each per task, size and seed: {files}")
        if self.keep:
            command = "gradlab demo --data PAIRS --keep"
            for file in laptop_run.save_demo(frames, self.folder / "llm", settings, command):
                say(f"saved: {file}")
        return 0


def run(arguments: Sequence[str]) -> int:
    """Do what the arguments say; return the exit status."""
    return guarded(
        parsed(DemoCommand, "demo", __doc__, arguments).run, stopped=GOES_ON, smaller="fewer --workers or --sizes"
    )
