"""Speed of tabular sweeps on a GPU: ``fit`` on CUDA, the same sweep on the CPU, and the loop written by hand.

Writes ``sweeps.csv`` and ``sweeps.md`` into figures/benchmarks/cuda, and prints the page. ``make bench`` runs it; where
there is no CUDA device it says so and measures nothing.
"""

from __future__ import annotations

import datetime
import functools
import os
import platform
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
from gradlab.store.artifacts import write_whole
from gradlab.store.provenance import commit, versions
from scripts.benchmarks.lab_speed import LEARNING_RATE, ROOT, hand_written_loop
from scripts.benchmarks.overhead_cost import in_turn

DTYPES = ("float64", "float32")
LOSS = "bdpo"
ONE_THREAD, ALL_CORES, GPU = "fit, one thread", "fit, all cores", "fit, GPU"
LOOP, GPU_LOOP = "loop", "loop, GPU"  # of one run at a time, so measured on one run alone


@dataclass(frozen=True)
class Extent:
    """How much is measured: steps by the runs of a sweep, and how often each way takes its turn."""

    sweeps: Mapping[int, int]
    rounds: int


FULL = Extent({1: 500, 60: 500, 600: 100, 2400: 100}, rounds=3)
QUICK = Extent({1: 5, 2: 5}, rounds=2)


def bench(folder: Path = ROOT / "figures/benchmarks/cuda", quick: bool = False) -> None:
    """Measure, print and save.

    Args:
        folder: Where sweeps.csv and sweeps.md go.
        quick: Tiny sweeps, where there is no GPU on the CPU: shows that it works, and nothing about speed.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not quick:
        print("Sweeps on a GPU: there is no CUDA device here, so nothing was measured.")
        return
    torch.set_num_threads(1)
    extent = QUICK if quick else FULL
    table = summarise(pd.DataFrame(measure(extent, device)))
    text = page(table, disagreement(extent, device), device, quick)
    csv = table.to_csv(index=False, float_format="%.6g")
    write_whole({folder / "sweeps.csv": csv, folder / "sweeps.md": text})
    print(text)


def measure(extent: Extent, device: str) -> Iterator[dict[str, Any]]:
    """A row a measurement of a whole sweep, all its ways in turn."""
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
            for turn, way, seconds in in_turn(ways, device, extent.rounds, f"{runs} runs, {name}", warm=1):
                yield {"dtype": name, "runs": runs, "steps": steps, "round": turn, "way": way, "seconds": seconds}


def _at_once(train: functools.partial[Any], shares: Sequence[Any]) -> None:
    with ThreadPoolExecutor(len(shares)) as pool:  # the engine lets go of the interpreter
        list(pool.map(train, shares))


def disagreement(extent: Extent, device: str) -> dict[str, float]:
    """The largest difference of a final probability between GPU and CPU, by dtype, over a few runs."""
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
    """One row a dtype, size of sweep and way: medians, how many times as fast as one thread and, a run, as the loop."""
    frame = frame.assign(ms=frame["seconds"] / (frame["runs"] * frame["steps"]) * 1e3)
    loops = frame[frame["way"] == LOOP].groupby("dtype")["ms"].median()
    rows = []
    for _, case in frame.groupby(["dtype", "runs"], sort=False):
        dtype, runs = case["dtype"].iloc[0], case["runs"].iloc[0]
        by_round = case.pivot(index="round", columns="way", values="seconds")
        for way, own in case.groupby("way", sort=False):
            rows.append({
                "dtype": dtype, "runs": runs, "steps": own["steps"].iloc[0], "way": way, "measurements": len(own),
                "seconds": own["seconds"].median(), "ms_per_run_and_step": own["ms"].median(),
                "times_one_thread": (by_round[ONE_THREAD] / by_round[way]).median(),
                "times_loop": loops[dtype] / own["ms"].median(),
            })  # fmt: skip
    return pd.DataFrame(rows)


def page(table: pd.DataFrame, differences: Mapping[str, float], device: str, quick: bool) -> str:
    """The page: what was measured, on what, and how to read it."""
    named = torch.cuda.get_device_name() if device == "cuda" else "no GPU"
    libraries = ", ".join(f"{name} {version}" for name, version in versions(("gradlab", "torch", "numpy")).items())
    lines = [
        "# Tabular sweeps on a GPU" + (" (quick: these numbers say nothing)" if quick else ""), "",
        f"A run is 20 prompts × 20 responses, all ordered pairs, Adam, `{LOSS}`. `{ONE_THREAD}` is the engine",
        f"on one thread, `{ALL_CORES}` the same with the runs shared among {os.cpu_count()} threads; `{GPU}` is `fit`",
        f"on the GPU, step by step in PyTorch. `{LOOP}` is autograd as one would write it by hand, one run at a time.",
        "Medians, all ways of a sweep by turns. The last columns say how many times as fast a way is as one thread",
        "of the engine (median of ratios in the same round), and as the loop on the CPU (a run and step).", "",
        "| dtype | runs | way | seconds | ms a run and step | × one thread | × loop |",
        "|---|---:|---|---:|---:|---:|---:|",
    ]  # fmt: skip
    for row in table.to_dict("records"):
        numbers = (row[name] for name in ("seconds", "ms_per_run_and_step", "times_one_thread", "times_loop"))
        cells = (row["dtype"], str(row["runs"]), row["way"], *(f"{number:.3g}" for number in numbers))
        lines.append(f"| {' | '.join(cells)} |")
    gaps = ", ".join(f"{gap:.1e} in {name}" for name, gap in differences.items())
    lines += [
        "", f"The largest difference of a final probability between GPU and CPU is {gaps}.", "",
        f"{datetime.date.today()}, commit {commit() or 'unknown'}, {named}, {os.cpu_count()} cores "
        f"({platform.machine()}), Python {platform.python_version()}, {libraries}.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    tyro.cli(bench)
