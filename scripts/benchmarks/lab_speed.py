"""Speed of the tabular lab: ``fit`` against the loop that one would write by hand, measured in one interleaved run.

Writes ``lab.md`` and ``lab.csv`` into figures/benchmarks and the table into README.md, and prints it. ``make bench``
runs it.
"""

from __future__ import annotations

import datetime
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import torch
import tyro
from torch import Tensor
from tqdm import tqdm

from gradlab.lab.fit import fit
from gradlab.lab.world import World, exact_pairs, gaussian_world
from gradlab.losses import PairLogps, PairLoss, pair_loss
from gradlab.store.artifacts import between_markers, write_whole
from gradlab.store.provenance import versions

ROOT = Path(__file__).resolve().parent.parent.parent
LOSSES = ("dpo", "bdpo", "nbdpo")
LOOP, ONE = "loop", "fit 1"
BATCHES = (60, 600)
TARGETS = {ONE: 1.0, "fit 60": 0.25, "fit 600": 0.25}  # of the loop's time, per run
STEPS, LEARNING_RATE = 500, 0.05
ROUNDS, REPEATS = 3, 3  # the two short cases are repeated within a round, before and after the long ones


def hand_written_loop(
    world: World, loss: PairLoss, steps: int, dtype: torch.dtype = torch.float64, device: str = "cpu"
) -> Tensor:
    """Train one policy as a researcher would: PyTorch autograd over all ordered pairs of all prompts; log π (X, Y)."""
    ref_logp = torch.tensor(world.ref_logp, dtype=dtype, device=device)
    weights = torch.tensor(exact_pairs(world), dtype=dtype, device=device)
    logits = ref_logp.clone().requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=LEARNING_RATE)
    for _ in range(steps):
        logp = torch.log_softmax(logits, -1)
        pairs = PairLogps(logp[:, :, None], logp[:, None, :], ref_logp[:, :, None], ref_logp[:, None, :])
        total = (weights * loss(pairs)).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    return torch.log_softmax(logits, -1).detach()


def bench(folder: Path = ROOT / "figures/benchmarks", readme: Path = ROOT / "README.md", quick: bool = False) -> None:
    """Measure, print and save.

    Args:
        folder: Where lab.md and lab.csv go.
        readme: The page that gets the table, between its benchmark markers; not with --quick.
        quick: Few steps, small batches, one loss: shows that it works, and nothing about speed.
    """
    losses, batches, steps, rounds = (LOSSES[:1], (2, 4), 10, 1) if quick else (LOSSES, BATCHES, STEPS, ROUNDS)
    times = measure_times(losses, batches, steps, rounds)
    peaks = measure_peaks(losses, [LOOP] if quick else [LOOP, ONE, *_fits(batches)], steps)
    table = summarise(times, peaks, steps)
    text = report(table, steps, quick)
    csv = table.to_csv(index=False, float_format="%.6g")
    write_whole({folder / "lab.csv": csv, folder / "lab.md": text})
    if not quick:
        write_whole({readme: with_table(readme.read_text(encoding="utf-8"), text)})
    print(text)


def measure_times(losses: Sequence[str], batches: Sequence[int], steps: int, rounds: int) -> pd.DataFrame:
    """Seconds a run of every case, a row a measurement; all cases take turns within a round."""
    rows = []
    for name in losses:  # the first call of anything pays for loading it
        run_case(LOOP, name, 2)
        run_case(ONE, name, 2)
    order = [LOOP, ONE] * REPEATS + _fits(batches) + [ONE, LOOP] * REPEATS
    turns = [(turn, name, case) for turn in range(rounds) for name in losses for case in order]
    for turn, name, case in tqdm(turns, desc="timing", disable=not sys.stderr.isatty()):
        rows.append({"round": turn, "loss": name, "case": case, "seconds": run_case(case, name, steps)})
    return pd.DataFrame(rows)


def run_case(case: str, loss_name: str, steps: int) -> float:
    """Train as ``case`` says, and return the seconds that it took per run; worlds are built before the clock starts."""
    loss = pair_loss(loss_name)
    runs = 1 if case == LOOP else int(case.split()[1])
    worlds = [gaussian_world(seed=seed) for seed in range(runs)]

    def loop() -> object:
        return hand_written_loop(worlds[0], loss, steps)

    def lab() -> object:
        return fit(worlds, loss, steps=steps, learning_rate=LEARNING_RATE, seed=range(runs)).history

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in fit: where cores are busy, two threads are slower, and would flatter the ratio
    try:
        return _seconds(loop if case == LOOP else lab) / runs
    finally:
        torch.set_num_threads(threads)


def measure_peaks(losses: Sequence[str], cases: Sequence[str], steps: int) -> pd.DataFrame:
    """Peak memory of every case in MB, each in a process of its own, beyond what the imports alone take."""
    turns = [(name, case) for name in losses for case in cases]
    rows = []
    for name, case in tqdm(turns, desc="memory", disable=not sys.stderr.isatty()):
        command = [sys.executable, "-m", __spec__.name, "--peak", case, name, str(steps)]
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        imports, peak = map(float, printed.split())
        rows.append({"loss": name, "case": case, "peak_mb": peak - imports, "imports_mb": imports})
    return pd.DataFrame(rows)


def summarise(times: pd.DataFrame, peaks: pd.DataFrame, steps: int) -> pd.DataFrame:
    """One row a loss and case: medians, the ratio to the loop of the same round, peak memory."""
    slots = gaussian_world().utility.size * gaussian_world().responses  # ordered pairs, the diagonal included
    by_round = times.groupby(["loss", "case", "round"], sort=False)["seconds"].median().unstack("round")
    rows = []
    for name, case in by_round.index:
        ratios = by_round.loc[(name, case)] / by_round.loc[(name, LOOP)]
        seconds = times.loc[(times["loss"] == name) & (times["case"] == case), "seconds"]
        rows.append(
            {
                "loss": name,
                "case": case,
                "measurements": len(seconds),
                "seconds_per_run": seconds.median(),
                "ns_per_pair_and_step": seconds.median() / (slots * steps) * 1e9,
                "ratio_to_loop": ratios.median(),
            }
        )
    return pd.DataFrame(rows).merge(peaks, how="left", on=["loss", "case"])


def report(table: pd.DataFrame, steps: int, quick: bool) -> str:
    """The table as Markdown, with what was measured, on what, and whether the targets are met."""
    libraries = ", ".join(f"{name} {version}" for name, version in versions(("gradlab", "torch", "numpy")).items())
    world = gaussian_world()
    lines = [
        "# Speed of the tabular lab" + (" (quick: these numbers say nothing)" if quick else ""),
        "",
        f"One run is {world.prompts} prompts × {world.responses} responses, all ordered pairs, Adam, {steps} steps, "
        "float64.",
        "`loop` is PyTorch autograd as one would write it by hand; `fit N` trains N runs in one call, and is given",
        "per run, with the history that it records. Both use one thread. Medians of interleaved measurements; the",
        "ratio is to the loop in the same round. A pair is one of the 8,000 ordered slots of a run. Memory is the peak",
        f"of a process of its own, beyond the {table['imports_mb'].max():.0f} MB that the imports take.",
        "",
        "| loss | case | ms per run | ns per pair and step | ratio to loop | peak memory, MB |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for row in table.to_dict("records"):
        cells = (
            f"{row['seconds_per_run'] * 1e3:.1f}",
            f"{row['ns_per_pair_and_step']:.1f}",
            f"{row['ratio_to_loop']:.2f}",
            f"{row['peak_mb']:.0f}" if row["peak_mb"] == row["peak_mb"] else "–",
        )
        lines.append(f"| {row['loss']} | {row['case']} | {' | '.join(cells)} |")
    lines += ["", *([] if quick else targets(table)), ""]
    lines.append(
        f"{datetime.date.today()}, {os.cpu_count()} cores ({platform.machine()}), "
        f"Python {platform.python_version()}, {libraries}."
    )
    return "\n".join(lines) + "\n"


def table_of(page: str) -> str:
    """The table of a Markdown page that has one."""
    return "\n".join(line for line in page.splitlines() if line.startswith("|"))


def with_table(readme: str, page: str) -> str:
    """The README with the table of the benchmark's page between its markers."""
    return between_markers(readme, "benchmark", table_of(page))


def targets(table: pd.DataFrame) -> list[str]:
    """One line a target: whether every loss meets it."""
    lines = []
    for case, limit in TARGETS.items():
        ratios = table.loc[table["case"] == case].set_index("loss")["ratio_to_loop"].to_dict()
        if ratios:
            missed = [f"{name} at {ratio:.2f}" for name, ratio in ratios.items() if ratio > limit]
            verdict = f"missed by {', '.join(missed)}" if missed else "met"
            lines.append(f"- Target for `{case}`, at most {limit:g} of the loop's time per run: {verdict}.")
    return lines


def _fits(batches: Sequence[int]) -> list[str]:
    return [f"fit {runs}" for runs in batches]


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _peak_mb() -> float:
    """Peak resident memory of this process, in MB."""
    # On Linux getrusage's peak starts at the parent's size at the fork, so the kernel's own count goes first.
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        if "VmHWM" in lines:
            return float(lines["VmHWM"].split()[0]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:  # in a process of its own: peak after the imports, and after the case
        imported = _peak_mb()
        run_case(sys.argv[2], sys.argv[3], int(sys.argv[4]))
        print(imported, _peak_mb())
    else:
        tyro.cli(bench)
