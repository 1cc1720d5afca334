"""The laptop run: small Llamas from scratch on real pairs and on a task of known reward; ``make llm-demo``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import tyro

from gradlab.cli.train_command import guarded, quiet

FIGURES = Path(__file__).resolve().parent.parent / "figures/llm"


def demo(
    data: Annotated[str | None, tyro.conf.arg(metavar="PAIRS", help_behavior_hint="(left out: none)")] = None,
    out: Path = Path("runs/llm-demo"),
    tasks: Annotated[tuple[str, ...], tyro.conf.arg(help_behavior_hint="(left out: both; tokens without data)")] = (),
    sizes: Annotated[tuple[str, ...], tyro.conf.arg(help_behavior_hint="(left out: both)")] = (),
    seeds: Annotated[tuple[int, ...], tyro.conf.arg(help_behavior_hint="(left out: 0, 1 and 2)")] = (),
    workers: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(left out: one a core)")] = None,
    smoke: bool = False,
    keep: bool = False,
) -> int:
    """Train small Llamas from scratch by every loss, evaluate them, and print the tables.

    A task, size and seed take 5 to 20 minutes on one core; all of them, 12 with data, one to four hours on one. What
    is done already is not done again, and an interrupted run goes on where it was.

    Args:
        data: HH-RLHF's pairs for the task hh: a file, or Anthropic/hh-rlhf where there is a network. With other pairs
            than before, the runs of hh begin anew.
        out: Where the runs go.
        tasks: Real pairs, hh, and a task of known reward, tokens.
        sizes: Millions of parameters, 1M and 2M.
        seeds: Seeds of pairs, weights and training.
        workers: Processes, of one thread each.
        smoke: A minute's look at the whole path, on the task of tokens; the numbers mean nothing.
        keep: Write the frames to figures/llm, where the claims report looks for them; needs all tasks, sizes and seeds.
    """
    from gradlab.llm.demo import laptop_run as run

    quiet()
    settings = run.SMOKE if smoke else run.SETTINGS
    tasks = tasks or (("tokens",) if data is None or smoke else ())
    if keep and (tasks or sizes or seeds or smoke):
        raise ValueError("keep must go with all tasks, sizes and seeds, and with data; leave out the others")
    frames = run.run_demo(out, data=data, settings=settings, tasks=tasks, sizes=sizes, seeds=seeds, workers=workers)
    print(run.demo_table(frames["evaluation"]))
    print(f"\nframes, one of each for a task, size and seed: {out}/*/evaluation.parquet, logs.parquet, pairs.parquet")
    if keep:
        for file in run.save_demo(frames, FIGURES, settings, "python scripts/llm_demo.py --data PAIRS --keep"):
            print(f"saved: {file}")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(lambda: tyro.cli(demo, prog="llm_demo.py", config=(tyro.conf.FlagCreatePairsOff,)), "llm_demo.py"))
