"""Speed of every sampler on the engine: a step of DPO beside uniform pairs, with weights anew every step and every ten.

Writes ``samplers.md`` and ``samplers.csv`` into figures/benchmarks, and prints the page. ``make bench`` runs it. All
samplers take turns in one run, on one thread. DPO is the cheapest loss, under which a sampler weighs most.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import tyro

from gradlab.lab.descent import recorded_steps
from gradlab.lab.engine import fused
from gradlab.lab.problem import PairProblem
from gradlab.lab.runs import Runs
from gradlab.lab.samplers import SAMPLERS
from gradlab.lab.training import Training
from gradlab.lab.world import gaussian_world
from gradlab.losses import DPO
from scripts.benchmarks.page_parts import heading, number, table
from scripts.benchmarks.timing import RESULTS, Step, compared, in_turn, machine, one_thread, write_results

DTYPES = ("float64", "float32")
POLICIES = ("free", "shared")
EVERY = (1, 10)
LIMIT = 3.0  # times uniform's time
MANY_DRAWS = ("best-worst:draws=64", "best-worst:draws=1000")


@dataclass(frozen=True)
class Extent:
    """How much is measured: steps by the number of runs, and samplers beside "uniform"."""

    steps: dict[int, int] = field(default_factory=lambda: {1: 500, 20: 200, 200: 100})
    samplers: Sequence[str] = (*(name for name in SAMPLERS if name != "uniform"), "importance:how=clipped", *MANY_DRAWS)
    rounds: int = 3
    responses: int = 20


QUICK = Extent({1: 3, 2: 2}, ("on-policy", "best-worst:draws=1000"), rounds=1, responses=4)


def bench(folder: Path = RESULTS, quick: bool = False) -> None:
    """Measure, print and save.

    Args:
        folder: Where samplers.csv and samplers.md go.
        quick: Tiny trainings: shows that it works, and nothing about speed.
    """
    with one_thread():
        ratios = summarise(pd.DataFrame(measure(QUICK if quick else Extent())))
    text = page(ratios, quick=quick)
    write_results(folder, "samplers", ratios, text)
    print(text)


def measure(extent: Extent) -> Iterator[dict[str, Any]]:
    """Give one row per measurement of a training, in seconds of the processor per run and step."""
    for (runs, steps), policy, dtype in product(extent.steps.items(), POLICIES, DTYPES):
        worlds = [gaussian_world(20, extent.responses, reference="shifted", seed=seed) for seed in range(runs)]
        batch = Runs.of(worlds, None, None, 0)
        problem = PairProblem(batch, DPO(), batch.data(), batch.start(None))
        recipe = Training(policy=policy, dtype=dtype, steps=steps)
        ways = {(name, every): _engine(problem, recipe.but(sampler=name, sampler_every=every))
                for name, every in product(("uniform", *extent.samplers), EVERY)}  # fmt: skip
        for one in in_turn(ways, extent.rounds, f"{runs} runs, {policy}, {dtype}", warm=1):
            sampler, every = one.way
            yield {
                "runs": runs, "policy": policy, "dtype": dtype, "every": every, "sampler": sampler,
                "round": one.round, "seconds": one.cpu_seconds / (runs * steps),
            }  # fmt: skip


def _engine(problem: PairProblem, recipe: Training) -> Step:
    """Call the engine itself: arrays in, log π out."""
    return functools.partial(fused, problem, recipe, recorded_steps(recipe.steps, 1))


def summarise(times: pd.DataFrame) -> pd.DataFrame:
    """Return one row per setting and sampler: microseconds, and how many times uniform's time, in the same round."""
    shared, rows = ["runs", "policy", "dtype", "every"], []
    for name, own, rounds in compared(times, shared, "sampler"):
        rows.append({
            **own.iloc[0][[*shared, "sampler"]], "measurements": len(own),
            "us_per_run_and_step": own["seconds"].median() * 1e6,
            "times_uniform": (rounds[name] / rounds["uniform"]).median(),
        })  # fmt: skip
    return pd.DataFrame(rows)


def page(ratios: pd.DataFrame, *, quick: bool) -> str:
    """Return the page: what was measured, on what, and how to read it."""
    order = [*dict.fromkeys(ratios["sampler"])]
    cells = ratios.set_index(["dtype", "policy", "every", "runs", "sampler"])
    counts = sorted(set(ratios["runs"]))
    text = [
        heading("Samplers on the engine", quick), "",
        "Times uniform's processor time, median of ratios in the same round: DPO on exact data of the paper's grid,",
        "20 prompts × 20 responses, Adam, one thread, all samplers by turns. k: weights anew every k steps; 1, 20,",
        "200: runs in one batch. The row of uniform is in microseconds per run and step. The limit is"
        f" {LIMIT:.0f}.", "",
        _beyond(ratios), "",
    ]  # fmt: skip
    for policy, dtype in product(POLICIES, DTYPES):
        head = [f"k = {every}, {runs}" for every, runs in product(EVERY, counts)]
        rows = []
        for name in order:
            column = "us_per_run_and_step" if name == "uniform" else "times_uniform"
            values = [cells[column].loc[(dtype, policy, every, runs, name)] for every, runs in product(EVERY, counts)]
            rows.append((name, *(number(value) for value in values)))
        text += [f"## {policy.capitalize()} policies, {dtype}", "", table(("sampler", *head), rows), ""]
    return "\n".join([*text, machine(("gradlab", "torch", "numpy", "llvmlite"))]) + "\n"


def _beyond(ratios: pd.DataFrame) -> str:
    """Return a sentence that names the samplers beyond the limit."""
    worst = ratios.groupby("sampler")["times_uniform"].max()
    beyond = worst[worst > LIMIT]
    inside = worst[worst <= LIMIT]
    words = f"The slowest sampler within it takes {inside.max():.2f} times uniform's time ({inside.idxmax()})."
    named = ", ".join(f"{name} ({value:.1f})" for name, value in beyond.items())
    return f"{words} Beyond it: {named or 'none'}."


if __name__ == "__main__":
    tyro.cli(bench)
