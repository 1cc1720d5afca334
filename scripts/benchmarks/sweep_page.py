"""The page of the benchmark of sweeps on a GPU: its table, and how far both devices agree."""

from __future__ import annotations

import os
from collections.abc import Mapping

import pandas as pd

from scripts.benchmarks.page_parts import heading
from scripts.benchmarks.page_parts import table as markdown
from scripts.benchmarks.timing import machine

ONE_THREAD, ALL_CORES, GPU = "fit, one thread", "fit, all cores", "fit, GPU"
LOOP, GPU_LOOP = "loop", "loop, GPU"  # of one run at a time, so measured on one run alone


def page(table: pd.DataFrame, differences: Mapping[str, float], *, loss: str, device: str, quick: bool) -> str:
    """Return the page: what was measured, on what, and how to read it."""
    rows = [
        (row["dtype"], str(row["runs"]), row["way"], *(f"{row[name]:.3g}" for name in (
            "seconds", "ms_per_run_and_step", "times_one_thread", "times_loop"
        ))) for row in table.to_dict("records")
    ]  # fmt: skip
    gaps = ", ".join(f"{gap:.1e} in {name}" for name, gap in differences.items())
    lines = [
        heading("Tabular sweeps on a GPU", quick), "",
        f"A run is 20 prompts × 20 responses, all ordered pairs, Adam, `{loss}`. `{ONE_THREAD}` is the engine",
        f"on one thread, `{ALL_CORES}` the same with the runs shared among {os.cpu_count()} threads; `{GPU}` is `fit`",
        f"on the GPU, step by step in PyTorch. `{LOOP}` is autograd as one would write it by hand, one run at a time.",
        "Medians, all ways of a sweep by turns. The last columns say how many times as fast a way is as one thread",
        "of the engine (median of ratios in the same round), and as the loop on the CPU (per run and step).", "",
        markdown(("dtype", "runs", "way", "seconds", "ms per run and step", "× one thread", "× loop"), rows),
        "", f"The largest difference of a final probability between GPU and CPU is {gaps}.", "",
        machine(("gradlab", "torch", "numpy"), device=device),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"
