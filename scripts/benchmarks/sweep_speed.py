"""Speed of tabular sweeps on a GPU: ``fit`` on CUDA, the same sweep on the CPU, and the loop written by hand.

Writes ``sweeps.csv`` and ``sweeps.md`` into figures/benchmarks/cuda, and prints the page. ``make bench`` runs it; where
there is no CUDA device it says so and measures nothing.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import tyro

from gradlab.lab.fit import fit
from gradlab.lab.world import gaussian_world
from gradlab.losses import pair_loss
from scripts.benchmarks.lab_speed import LEARNING_RATE, hand_written_loop
from scripts.benchmarks.sweep_page import ALL_CORES, GPU, GPU_LOOP, LOOP, ONE_THREAD, page
from scripts.benchmarks.timing import RESULTS, compared, in_turn, one_thread, write_results

DTYPES = ("float64", "float32")
LOSS = "bdpo"


@dataclass(frozen=True)
class Extent:
    """How much is measured: steps by the runs of a sweep, and how often each way takes its turn."""

    sweeps: Mapping[int, int]
    rounds: int


FULL = Extent({1: 500, 60: 500, 600: 100, 2400: 100}, rounds=3)
QUICK = Extent({1: 5, 2: 5}, rounds=2)


def bench(folder: Path = RESULTS / "cuda", quick: bool = False) -> None:
    """Measure, print and save.

    Args:
        folder: Where sweeps.csv and sweeps.md go.
        quick: Tiny sweeps, where there is no GPU on the CPU: shows that it works, and nothing about speed.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not quick:
        print("Sweeps on a GPU: there is no CUDA device here, so nothing was measured.")
        return
    extent = QUICK if quick else FULL
    with one_thread():
        table = summarise(pd.DataFrame(measure(extent, device)))
        differences = disagreement(extent, device)
    text = page(table, differences, loss=LOSS, device=device, quick=quick)
    write_results(folder, "sweeps", table, text)
    print(text)


def measure(extent: Extent, device: str) -> Iterator[dict[str, Any]]:
    """Give one row per measurement of a whole sweep, all its ways in turn."""
    loss = pair_loss(LOSS)
    for runs, steps in extent.sweeps.items():
        worlds = [gaussian_world(seed=seed) for seed in range(runs)]
        for name in DTYPES:
            dtype = getattr(torch, name)
            train = functools.partial(fit, loss=loss, steps=steps, learning_rate=LEARNING_RATE, dtype=dtype)
            shares = [worlds[start :: os.cpu_count() or 1] for start in range(min(runs, os.cpu_count() or 1))]
            ways: dict[str, Callable[[], Any]] = {
                ONE_THREAD: functools.partial(train, worlds), GPU: functools.partial(train, worlds, device=device),
            }  # fmt: skip
            if runs > 1:
                ways[ALL_CORES] = functools.partial(_at_once, train, shares)
            else:
                ways[LOOP] = functools.partial(hand_written_loop, worlds[0], loss, steps, dtype)
                ways[GPU_LOOP] = functools.partial(hand_written_loop, worlds[0], loss, steps, dtype, device)
            for one in in_turn(ways, extent.rounds, f"{runs} runs, {name}", device=device, warm=1):
                yield {"dtype": name, "runs": runs, "steps": steps, "round": one.round, "way": one.way,
                       "seconds": one.seconds}  # fmt: skip


def _at_once(train: functools.partial[Any], shares: Sequence[Any]) -> None:
    with ThreadPoolExecutor(len(shares)) as pool:  # the engine lets go of the interpreter
        list(pool.map(train, shares))


def disagreement(extent: Extent, device: str) -> dict[str, float]:
    """Return the largest difference of a final probability between GPU and CPU, by dtype, over a few runs."""
    worlds = [gaussian_world(seed=seed) for seed in range(min(20, max(extent.sweeps)))]
    found = {}
    for name in DTYPES:
        both = [
            fit(worlds, pair_loss(LOSS), steps=max(extent.sweeps.values()), learning_rate=LEARNING_RATE, device=where,
                dtype=getattr(torch, name)).logp.exp().double().cpu() for where in ("cpu", device)
        ]  # fmt: skip
        found[name] = float((both[0] - both[1]).abs().max())
    return found


def summarise(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row per dtype, runs and way: medians, and how many times as fast as one thread and the loop."""
    frame = frame.assign(ms=frame["seconds"] / (frame["runs"] * frame["steps"]) * 1e3)
    loops = frame[frame["way"] == LOOP].groupby("dtype")["ms"].median()
    rows = []
    for way, own, rounds in compared(frame, ["dtype", "runs", "steps"], "way"):
        dtype, ms = own["dtype"].iloc[0], own["ms"].median()
        rows.append({
            "dtype": dtype, "runs": own["runs"].iloc[0], "steps": own["steps"].iloc[0], "way": way,
            "measurements": len(own), "seconds": own["seconds"].median(), "ms_per_run_and_step": ms,
            "times_one_thread": (rounds[ONE_THREAD] / rounds[way]).median(), "times_loop": loops[dtype] / ms,
        })  # fmt: skip
    return pd.DataFrame(rows)


if __name__ == "__main__":
    tyro.cli(bench)
