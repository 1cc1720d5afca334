"""The page of the benchmark of all losses: its table, and how to read it."""

from __future__ import annotations

import pandas as pd

from scripts.benchmarks.page_parts import heading, number
from scripts.benchmarks.page_parts import table as markdown
from scripts.benchmarks.timing import machine

LIMIT = 1.5  # times DPO's time, of a loss whose slopes take one such function for both orders of a pair


def page(table: pd.DataFrame, *, quick: bool) -> str:
    """Return the page: what was measured, on what, and how to read it."""
    dtypes = list(table["dtype"].unique())
    both = table.set_index(["loss", "dtype"])
    first = table[table["dtype"] == dtypes[0]].to_dict("records")
    rows = [
        (
            row["loss"], row["family"], number(row["functions"], ".0f"),
            *(number(both[column].loc[(row["loss"], dtype)])
              for dtype in dtypes for column in ("ns_per_slot_and_step", "times_dpo")),
            number(row["first_seconds"], ".2f"),
        )
        for row in first
    ]  # fmt: skip
    one = max(row["times_dpo"] for row in table.to_dict("records") if row["functions"] == 1)
    longest = max(row["first_seconds"] for row in first if row["first_seconds"] == row["first_seconds"])
    head = [f"{dtype}, {column}" for dtype in dtypes for column in ("ns", "× DPO")]
    lines = [
        heading("Every loss on the engine", quick), "",
        "Nanoseconds of processor time per ordered pair and step: exact data of the paper's grid, 20 prompts × 20",
        "responses, Adam, free logits, one thread, all losses by turns in one run; medians. × DPO is the median of",
        "ratios in the same round. Functions are the exponentials, logarithms and arc tangents that both orders of a",
        "pair take together. Losses of batches train eager, one run alone, and have none. The",
        "last column is the time of a first training of 500 steps in float64, with a kernel that has to be compiled.",
        "", f"The slowest loss of one function takes {one:.2f} times DPO's time; the limit is {LIMIT}. The slowest",
        f"first training takes {longest:.2f} s; the limit is 1 s.", "",
        markdown(("loss", "family", "functions", *head, "first, s"), rows), "",
        machine(("gradlab", "torch", "numpy", "llvmlite")),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"
