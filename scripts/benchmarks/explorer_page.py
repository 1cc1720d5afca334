"""The page of the explorers' benchmark, with the targets beside the results."""

from __future__ import annotations

import math

import pandas as pd

from scripts.benchmarks.page_parts import heading, number
from scripts.benchmarks.page_parts import table as markdown
from scripts.benchmarks.timing import machine

FIRST_PICTURE = 4.0  # seconds, the target


def page(frame: pd.DataFrame, presses: int) -> str:
    """Return the results as a page; ``presses`` is how often each slider was pressed."""
    head = ("", "presses with a new picture", "median (ms)", "95% (ms)", "target (ms)", "frames/s in a drag",
            "first picture (s)", "former explorers (ms)", "ratio")  # fmt: skip
    rows = [
        (row["what"], str(row["presses"]), f"{row['median_ms']:.0f}", f"{row['p95_ms']:.0f}", str(row["target_ms"]),
         f"{row['frames_per_second']:.1f}", f"{row['first_picture_s']:.1f}", number(former, ".0f"),
         number(row["median_ms"] / former, ".2f"))
        for row in frame.to_dict("records")
        for former in (row.get("former_ms", math.nan),)
    ]  # fmt: skip
    lines = [
        heading("How fast the explorers answer", quick=False), "",
        "From the key press on a slider to the last, exact picture on the screen of a real Chromium, with JupyterLab "
        "and kernel on the same machine; nothing is approximated on the way, and both losses really train 500 steps. "
        f"Median and 95th percentile of {presses} single presses; frames per second while the mouse drags for 3 s; and "
        "the time from *run all*, in a kernel just started, to the first picture. The former explorers are those of "
        "another checkout, whose pictures the kernel painted, measured in the same run by their own benchmark.", "",
        markdown(head, rows), "",
        f"First picture: the target is {FIRST_PICTURE:g} s, imports of torch and matplotlib included.", "",
        machine(("llvmlite", "numpy", "pandas", "scipy", "torch")), "",
        "Again with: `make bench`.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"
