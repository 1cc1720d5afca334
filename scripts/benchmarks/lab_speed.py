"""Speed of the tabular lab: ``fit`` against the loop that one would write by hand, measured in one interleaved run.

Writes ``lab.md`` and ``lab.csv`` into figures/benchmarks and the table into README.md, and prints it. ``make bench``
runs it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
import tyro
from torch import Tensor
from tqdm import tqdm

from gradlab.lab.fit import fit
from gradlab.lab.world import World, exact_pairs, gaussian_world
from gradlab.losses import PairLogps, PairLoss, pair_loss
from gradlab.store.files import write_whole
from scripts.benchmarks.lab_page import LOOP, ONE, page, with_table
from scripts.benchmarks.timing import RESULTS, ROOT, Step, compared, in_turn, one_thread, peak_of, write_results

LOSSES = ("dpo", "bdpo", "nbdpo")
BATCHES = (60, 600)
STEPS, LEARNING_RATE = 500, 0.05
ROUNDS, REPEATS = 3, 3  # the two short cases are repeated within a round, before and after the long ones


def training_step(world: World, loss: PairLoss, dtype: torch.dtype, device: str) -> tuple[Tensor, Step]:
    """Return logits (X, Y), which start at the reference, and one step of Adam on all ordered pairs, by autograd."""
    ref_logp = torch.tensor(world.ref_logp, dtype=dtype, device=device)
    weights = torch.tensor(exact_pairs(world), dtype=dtype, device=device)
    logits = ref_logp.clone().requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=LEARNING_RATE)

    def step() -> None:
        logp = torch.log_softmax(logits, -1)
        pairs = PairLogps(logp[:, :, None], logp[:, None, :], ref_logp[:, :, None], ref_logp[:, None, :])
        total = (weights * loss(pairs)).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()

    return logits, step


def hand_written_loop(
    world: World, loss: PairLoss, steps: int, dtype: torch.dtype = torch.float64, device: str = "cpu"
) -> Tensor:
    """Train one policy as a researcher would, by ``training_step``, and return log π (X, Y)."""
    logits, step = training_step(world, loss, dtype, device)
    for _ in range(steps):
        step()
    return torch.log_softmax(logits, -1).detach()


def bench(folder: Path = RESULTS, readme: Path = ROOT / "README.md", quick: bool = False) -> None:
    """Measure, print and save.

    Args:
        folder: Where lab.md and lab.csv go.
        readme: The page that gets the table, between its benchmark markers; not with --quick.
        quick: Few steps, small batches, one loss: shows that it works, and nothing about speed.
    """
    losses, batches, steps, rounds = (LOSSES[:1], (2, 4), 10, 1) if quick else (LOSSES, BATCHES, STEPS, ROUNDS)
    with one_thread():  # as in fit: where cores are busy, two threads are slower, and would flatter the ratio
        times = measure_times(losses, batches, steps, rounds)
    peaks = measure_peaks(losses, [LOOP] if quick else [LOOP, ONE, *_fits(batches)], steps)
    table = summarise(times, peaks, steps)
    text = page(table, steps, quick)
    write_results(folder, "lab", table, text)
    if not quick:
        write_whole({readme: with_table(readme.read_text(encoding="utf-8"), text)})
    print(text)


def measure_times(losses: Sequence[str], batches: Sequence[int], steps: int, rounds: int) -> pd.DataFrame:
    """Measure seconds per run of every case, one row per measurement; all cases take turns within a round."""
    for name in losses:  # the first call of anything pays for loading it
        for case in (LOOP, ONE):
            training(case, name, 2)()
    around = [LOOP, ONE] * REPEATS
    cases = [*around, *_fits(batches), *reversed(around)]
    order = [(name, case) for name in losses for case in cases]
    works = {(name, case): training(case, name, steps) for name, case in order}
    return pd.DataFrame(
        {"round": one.round, "loss": one.way[0], "case": one.way[1], "seconds": one.seconds / runs_of(one.way[1])}
        for one in in_turn(works, rounds, "timing", order=order)
    )


def runs_of(case: str) -> int:
    """Return the number of runs that a case trains together."""
    return 1 if case == LOOP else int(case.split()[1])


def training(case: str, loss_name: str, steps: int) -> Step:
    """Return the training of a case, its worlds built beforehand."""
    loss, runs = pair_loss(loss_name), runs_of(case)
    worlds = [gaussian_world(seed=seed) for seed in range(runs)]

    def loop() -> object:
        return hand_written_loop(worlds[0], loss, steps)

    def lab() -> object:
        return fit(worlds, loss, steps=steps, learning_rate=LEARNING_RATE, seed=range(runs)).history

    return loop if case == LOOP else lab


def measure_peaks(losses: Sequence[str], cases: Sequence[str], steps: int) -> pd.DataFrame:
    """Measure the peak memory of every case in MB, each in a fresh process, beyond what the imports alone take."""
    turns = [(name, case) for name in losses for case in cases]
    rows = []
    for name, case in tqdm(turns, desc="memory", disable=not sys.stderr.isatty()):
        peak = peak_of(training, case, name, steps)
        rows.append({"loss": name, "case": case, "peak_mb": peak.end - peak.imports, "imports_mb": peak.imports})
    return pd.DataFrame(rows)


def summarise(times: pd.DataFrame, peaks: pd.DataFrame, steps: int) -> pd.DataFrame:
    """Return one row per loss and case: medians, the ratio to the loop of the same round, peak memory."""
    slots = gaussian_world().utility.size * gaussian_world().responses  # ordered pairs, the diagonal included
    rows = []
    for case, own, rounds in compared(times, ["loss"], "case"):
        seconds = own["seconds"].median()
        rows.append({
            "loss": own["loss"].iloc[0], "case": case, "measurements": len(own), "seconds_per_run": seconds,
            "ns_per_pair_and_step": seconds / (slots * steps) * 1e9,
            "ratio_to_loop": (rounds[case] / rounds[LOOP]).median(),
        })  # fmt: skip
    return pd.DataFrame(rows).merge(peaks, how="left", on=["loss", "case"])


def _fits(batches: Sequence[int]) -> list[str]:
    return [f"fit {runs}" for runs in batches]


if __name__ == "__main__":
    tyro.cli(bench)
