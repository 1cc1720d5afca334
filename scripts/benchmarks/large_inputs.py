"""Time and memory of what grows with a user's files: ratings, training logs, pairs, sweeps; also of another checkout.

Writes ``large-inputs.csv`` and ``large-inputs.md`` into figures/benchmarks, and prints the page. Each case runs in a
process of its own, whose time and peak memory the system counts. ``make bench`` runs it.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import tyro

from scripts.benchmarks.page_parts import heading, number
from scripts.benchmarks.page_parts import table as markdown
from scripts.benchmarks.timing import RESULTS, ROOT, machine, write_results

RATE = """
import time
from gradlab.widgets.rating_explorer import RatingExplorer
explorer = RatingExplorer(samples="samples.jsonl", rater="rater 0")
begun = time.perf_counter()
for _ in range(3):
    explorer.answer("left")
assert explorer.error is None, explorer.status
print((time.perf_counter() - begun) / 3)
"""
OPEN_LOG = """
import time
from gradlab.widgets.training_log_explorer import TrainingLogExplorer
begun = time.perf_counter()
explorer = TrainingLogExplorer(log_a="log.jsonl")
explorer.png()
assert explorer.error is None, explorer.status
print(time.perf_counter() - begun)
"""
COMMAND = "from gradlab.cli import main; assert main({arguments!r}) in (0, 3)"  # 3: the doctor found something


@dataclass(frozen=True)
class Extent:
    """The sizes of all inputs."""

    items: int
    raters: int
    steps: int
    pair_bytes: int
    runs: int


FULL = Extent(items=5_000, raters=20, steps=200_000, pair_bytes=200_000_000, runs=100_000)
QUICK = Extent(items=20, raters=2, steps=200, pair_bytes=20_000, runs=20)


@dataclass(frozen=True)
class Case:
    """A frozen record of something that is measured.

    does     what it does, in the page's words.
    prepare  writes its files into a folder.
    code     Python that runs in that folder; a number that it prints last is the time that counts, else all of it.
    """

    does: str
    prepare: Callable[[Path], None]
    code: str


def bench(folder: Path = RESULTS, quick: bool = False, before: Path | None = None) -> None:
    """Measure, print and save.

    Args:
        folder: Where large-inputs.csv and large-inputs.md go.
        quick: Tiny files: shows that it works, and nothing about time or memory.
        before: Another checkout of gradlab, which does the same on the same files: how it was before a change.
    """
    table = pd.DataFrame(
        measure(QUICK if quick else FULL, {"before": before, "now": ROOT} if before else {"now": ROOT})
    )
    text = page(table, quick)
    write_results(folder, "large-inputs", table, text)
    print(text)


def cases(extent: Extent) -> list[Case]:
    """Return what is measured."""
    inspect = ["inspect", "model", "pairs.jsonl", "--max-length", "64"]
    return [
        Case(f"one answer in the rating explorer: {extent.items:,} items, {extent.raters} raters",
             lambda folder: write_ratings(folder, extent.items, extent.raters), RATE),
        Case(f"a training log of {extent.steps:,} steps, opened in its explorer",
             lambda folder: write_log(folder, extent.steps), OPEN_LOG),
        Case(f"`gradlab doctor` on a training log of {extent.steps:,} steps",
             lambda folder: write_log(folder, extent.steps), COMMAND.format(arguments=["doctor", "log.jsonl"])),
        Case(f"`gradlab inspect` on {extent.pair_bytes / 1e6:,.3g} MB of pairs, a tiny model",
             lambda folder: write_pairs(folder, extent.pair_bytes), COMMAND.format(arguments=inspect)),
        Case(f"`gradlab sweep` of {extent.runs:,} runs, 2 prompts × 3 responses, 20 steps",
             lambda folder: write_sweep(folder, extent.runs), COMMAND.format(arguments=["sweep", "sweep.toml"])),
    ]  # fmt: skip


def measure(extent: Extent, checkouts: Mapping[str, Path]) -> Iterator[dict[str, Any]]:
    """Yield a row per case and checkout: seconds, and the peak memory in MB of its largest process."""
    for case in cases(extent):
        for name, checkout in checkouts.items():
            with tempfile.TemporaryDirectory() as place:
                case.prepare(Path(place))
                seconds, peak = run(case.code, Path(place), checkout)
            yield {"case": case.does, "checkout": name, "seconds": seconds, "peak_mb": peak}


def run(code: str, folder: Path, checkout: Path) -> tuple[float, float]:
    """Run code of a checkout in a folder; return its seconds, and the peak memory in MB of its largest process."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "TQDM_DISABLE": "1"}
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{_PEAK}"], cwd=folder, env=environment,
        stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    taken = time.perf_counter() - begun
    *printed, peak = done.stdout.splitlines() or [""]
    if not peak.startswith("peak "):
        raise RuntimeError(f"the case ended with status {done.returncode}, and without its last line")
    with contextlib.suppress(IndexError, ValueError):  # where it prints something else, all of it counts
        taken = float(printed[-1])
    return taken, float(peak.removeprefix("peak "))


# The kernel's count of this process, since getrusage's starts at its parent's size; and getrusage's of its children.
_PEAK = """
import resource
status = open("/proc/self/status").read()
here = float(status.split("VmHWM:")[1].split()[0])
print("peak", max(here, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1024)
"""


# --- files ---


def write_ratings(folder: Path, items: int, raters: int) -> None:
    """Write samples of two systems, and the answers of all raters; the first rater has ten items left."""
    from gradlab.store.ratings import read_comparison, sides

    rows = [
        {
            "prompt": f"prompt {number} {'x' * 150}",
            "samples": {"a": f"{number} {'y' * 300}", "b": f"{number} {'z' * 300}"},
        }
        for number in range(items)
    ]
    samples = folder / "samples.jsonl"
    samples.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    comparison, draw = read_comparison(samples), random.Random(0)
    with samples.with_suffix(".ratings.jsonl").open("w", encoding="utf-8") as answers:
        for rater in (f"rater {number}" for number in range(raters)):
            for item in comparison.items[: items - 10 if rater == "rater 0" else items]:
                left, right = (comparison.systems[side] for side in sides(comparison, item, rater))
                answer = {"rater": rater, "item": item.key, "left": left, "right": right}
                answers.write(json.dumps({**answer, "choice": draw.choice(("left", "right", "tie"))}) + "\n")


def write_log(folder: Path, steps: int) -> None:
    """Write a log with the columns of gradlab's own."""
    draw = random.Random(0)
    columns = (
        "loss", "accuracy", "reward_margin", "logp_win", "logp_lose", "win_weight", "slope_win", "slope_lose",
        "grad_norm", "learning_rate", "log_prob_ratio", "seconds",
    )  # fmt: skip
    with (folder / "log.jsonl").open("w", encoding="utf-8") as log:
        for step in range(1, steps + 1):
            log.write(json.dumps({"step": step, **{name: draw.random() for name in columns}}) + "\n")


def write_pairs(folder: Path, size: int) -> None:
    """Write pairs of random words, and a tiny language model."""
    from gradlab.llm.model.loading import save_folder, small_llama, train_bpe

    draw = random.Random(0)
    words = ("policy", "loss", "winner", "loser", "reward", "length", "over", "many", "long", "answers", "differ", "by")

    def text(number: int) -> str:
        return " ".join(draw.choice(words) for _ in range(number))

    written = 0
    with (folder / "pairs.jsonl").open("w", encoding="utf-8") as pairs:
        while written < size:
            written += pairs.write(json.dumps({
                "prompt": text(60), "chosen": text(draw.randrange(20, 260)), "rejected": text(draw.randrange(20, 260)),
            }) + "\n")  # fmt: skip
    tokenizer = train_bpe([text(1_000)], 300)
    model = small_llama(len(tokenizer), width=16, layers=1, heads=2, longest=64, seed=0)
    save_folder(folder / "model", model, tokenizer)


def write_sweep(folder: Path, runs: int) -> None:
    """Write the settings of a sweep of tiny runs by two losses."""
    text = f'prompts = 2\nresponses = 3\nsteps = 20\nloss = ["dpo", "bdpo"]\nseeds = {runs // 2}\n'
    (folder / "sweep.toml").write_text(text, "utf-8")


# --- the page ---


def page(table: pd.DataFrame, quick: bool) -> str:
    """Return the page: a row per case, with how it was before where that was measured."""
    ways = list(dict.fromkeys(table["checkout"]))
    head = ["", *(f"{unit}, {way}" if len(ways) > 1 else unit for unit in ("seconds", "peak MB") for way in ways)]
    rows = [
        (str(case), *(number(row[unit]) for unit in ("seconds", "peak_mb") for row in part.to_dict("records")))
        for case, part in table.groupby("case", sort=False)
    ]
    lines = [
        heading("Large inputs: time and memory", quick), "",
        "Each case runs once, in a process of its own. Seconds by the clock, of the act alone in the explorers and of",
        "the whole command else; the memory is that of the largest process at its peak, with Python and its libraries.",
        "", markdown(head, rows), "",
        f"Measured {machine(('torch', 'pandas', 'pyarrow', 'transformers'))}", "",
        "Again with: `make bench`.", "",
    ]  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    tyro.cli(bench)
