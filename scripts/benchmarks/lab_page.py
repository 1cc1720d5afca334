"""The page of the lab's benchmark: its table, and whether its targets are met."""

from __future__ import annotations

import pandas as pd

from gradlab.lab.world import gaussian_world
from gradlab.store.artifacts import between_markers
from scripts.benchmarks.page_parts import heading, number
from scripts.benchmarks.page_parts import table as markdown
from scripts.benchmarks.timing import machine

LOOP, ONE = "loop", "fit 1"
TARGETS = {ONE: 1.0, "fit 60": 0.25, "fit 600": 0.25}  # of the loop's time, per run


def page(table: pd.DataFrame, steps: int, quick: bool) -> str:
    """Return the page: what was measured, on what, the table, and whether the targets are met."""
    world = gaussian_world()
    rows = [
        (row["loss"], row["case"], f"{row['seconds_per_run'] * 1e3:.1f}", f"{row['ns_per_pair_and_step']:.1f}",
         f"{row['ratio_to_loop']:.2f}", number(row["peak_mb"], ".0f"))
        for row in table.to_dict("records")
    ]  # fmt: skip
    head = ("loss", "case", "ms per run", "ns per pair and step", "ratio to loop", "peak memory, MB")
    lines = [
        heading("Speed of the tabular lab", quick),
        "",
        f"One run is {world.prompts} prompts × {world.responses} responses, all ordered pairs, Adam, {steps} steps, "
        "float64.",
        "`loop` is PyTorch autograd as one would write it by hand; `fit N` trains N runs in one call, and is given",
        "per run, with the history that it records. Both use one thread. Medians of interleaved measurements; the",
        "ratio is to the loop in the same round. A pair is one of the 8,000 ordered slots of a run. Memory is the peak",
        f"of a process of its own, beyond the {table['imports_mb'].max():.0f} MB that the imports take.",
        "",
        markdown(head, rows),
        "",
        *([] if quick else targets(table)),
        "",
        machine(("gradlab", "torch", "numpy")),
    ]
    return "\n".join(lines) + "\n"


def targets(table: pd.DataFrame) -> list[str]:
    """Return one line per target: whether every loss meets it."""
    lines = []
    for case, limit in TARGETS.items():
        ratios = table.loc[table["case"] == case].set_index("loss")["ratio_to_loop"].to_dict()
        if ratios:
            missed = [f"{name} at {ratio:.2f}" for name, ratio in ratios.items() if ratio > limit]
            verdict = f"missed by {', '.join(missed)}" if missed else "met"
            lines.append(f"- Target for `{case}`, at most {limit:g} of the loop's time per run: {verdict}.")
    return lines


def with_table(readme: str, page: str) -> str:
    """Return the README with the table of the benchmark's page between its markers."""
    return between_markers(readme, "benchmark", "\n".join(line for line in page.splitlines() if line.startswith("|")))
