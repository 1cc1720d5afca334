"""Speed of every registered loss on the engine: a step beside DPO's, and from a new loss to its first training.

Writes ``losses.md`` and ``losses.csv`` into figures/benchmarks, and prints the page. ``make bench`` runs it. All losses
take turns in one run, on one thread.
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import tyro

from gradlab.lab.descent import recorded_steps
from gradlab.lab.engine import fused, fusion
from gradlab.lab.engine.trace import SIGMOID_OF_BOTH, derivative
from gradlab.lab.fit import fit
from gradlab.lab.problem import PairProblem
from gradlab.lab.runs import Runs
from gradlab.lab.training import Training
from gradlab.lab.world import World, exact_pairs, gaussian_world
from gradlab.losses import BATCH_LOSSES, PAIR_LOSSES, family_of, named_loss, pair_loss
from scripts.benchmarks.loss_page import page
from scripts.benchmarks.timing import RESULTS, Step, compared, in_turn, one_thread, timed, write_results

DTYPES = ("float64", "float32")
# The functions that cost more than arithmetic. Those of one set share their dear part where their arguments differ in
# sign alone.
DEAR = (
    {"sigmoid"}, {"exp"}, {"expm1"}, {"log"}, {"log1p", "log_sigmoid_forward"}, {"tanh"}, {"atan"}, {"logaddexp"},
    {"softplus"}, {"softplus_backward"}, {"silu"}, {"silu_backward"},
    {SIGMOID_OF_BOTH, "log_sigmoid_forward", "log_sigmoid_backward"},
)  # fmt: skip


@dataclass(frozen=True)
class Extent:
    """How much is measured: so many steps of some runs of the paper's grid, or of one run by a loss of batches."""

    steps: int
    runs: int
    batch_steps: int
    rounds: int
    responses: int = 20


FULL, QUICK = Extent(500, 5, 20, rounds=5), Extent(3, 1, 2, rounds=2, responses=4)


def bench(folder: Path = RESULTS, quick: bool = False) -> None:
    """Measure, print and save.

    Args:
        folder: Where losses.csv and losses.md go.
        quick: Tiny trainings: shows that it works, and nothing about speed.
    """
    extent = QUICK if quick else FULL
    with one_thread():
        firsts = {name: first_training(name, extent) for name in PAIR_LOSSES}
        table = summarise(pd.DataFrame(measure(extent)), firsts)
    text = page(table, quick=quick)
    write_results(folder, "losses", table, text)
    print(text)


def first_training(name: str, extent: Extent) -> float:
    """Return the seconds of a loss's first training in a process that has none of its kernels, compilation included."""
    world, loss = gaussian_world(20, extent.responses), named_loss(name)
    known, kept = dict(fusion._KERNELS), os.environ.get("GRADLAB_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GRADLAB_CACHE"] = folder
        fusion._KERNELS.clear()
        try:
            return timed(functools.partial(fit, world, loss, steps=extent.steps, record=24))[0]
        finally:
            fusion._KERNELS.update(known)
            os.environ.pop("GRADLAB_CACHE")
            if kept is not None:
                os.environ["GRADLAB_CACHE"] = kept


def measure(extent: Extent) -> Iterator[dict[str, Any]]:
    """Give one row per measurement of a training."""
    worlds = [
        gaussian_world(20, extent.responses, length=100, length_spread=0.5, seed=seed) for seed in range(extent.runs)
    ]
    slots = int((exact_pairs(worlds[0]) > 0).sum())
    for dtype in DTYPES:
        ways = {name: _engine(worlds, name, extent, dtype) for name in PAIR_LOSSES}
        ways |= {
            name: functools.partial(fit, worlds[0], named_loss(name), steps=extent.batch_steps, record=1, dtype=dtype)
            for name in BATCH_LOSSES
        }
        for one in in_turn(ways, extent.rounds, dtype, warm=1):
            work = extent.batch_steps if one.way in BATCH_LOSSES else extent.steps * extent.runs
            yield {"dtype": dtype, "loss": one.way, "round": one.round, "seconds": one.cpu_seconds / (slots * work)}


def _engine(worlds: list[World], name: str, extent: Extent, dtype: str) -> Step:
    """Call the engine itself: arrays in, log π out."""
    runs = Runs.of(worlds, None, None, 0)
    problem = PairProblem(runs, pair_loss(name), runs.data(), runs.start(None))
    training = Training(steps=extent.steps, dtype=dtype)
    return functools.partial(fused, problem, training, recorded_steps(extent.steps, 1))


def functions_of(name: str) -> int | None:
    """Return how many functions dearer than arithmetic a loss's slopes take for both orders of a pair; None: eager."""
    if name in BATCH_LOSSES:
        return None
    loss = pair_loss(name)
    trace, _ = derivative(loss, torch.float64)
    steps = (trace if loss.antisymmetric else trace.in_both_orders()).needed_steps()
    signless = {f"%{number}": arguments[0] for number, (what, arguments) in steps.items() if what == "neg"}
    return len({
        (kind, signless.get(arguments[-1], arguments[-1]))
        for what, arguments in steps.values() for kind, names in enumerate(DEAR) if what in names
    })  # fmt: skip


def summarise(frame: pd.DataFrame, firsts: dict[str, float]) -> pd.DataFrame:
    """Return one row per dtype and loss: medians, and how many times DPO's time it takes, in the same round."""
    rows = []
    for name, own, rounds in compared(frame, ["dtype"], "loss"):
        rows.append({
            "dtype": own["dtype"].iloc[0], "loss": name, "family": family_of(named_loss(name)),
            "functions": functions_of(name), "measurements": len(own),
            "ns_per_slot_and_step": own["seconds"].median() * 1e9,
            "times_dpo": (rounds[name] / rounds["dpo"]).median(), "first_seconds": firsts.get(name),
        })  # fmt: skip
    return pd.DataFrame(rows)


if __name__ == "__main__":
    tyro.cli(bench)
