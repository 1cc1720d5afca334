"""Memory and time as the tables of scripts/README.md compute them, beside every size that was measured.

``python -m scripts.benchmarks.computed_and_measured`` prints the table that scripts/README.md holds. It measures
nothing: it reads the frames that ``pretrained_speed.py`` and ``llm_speed.py`` left under figures/benchmarks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tyro

from gradlab.llm.model.step_time import H200, Rates
from gradlab.store.artifacts import load_frame
from scripts.benchmarks import expected
from scripts.benchmarks.llm_cases import EXTENTS, Size, drawn_pairs
from scripts.benchmarks.llm_page import SIDES as WITH_SIDES
from scripts.benchmarks.page_parts import number, table
from scripts.benchmarks.pretrained_page import FORMER, NEW, PARTS
from scripts.benchmarks.pretrained_worker import PACKED, RANKS, SIDES
from scripts.benchmarks.timing import RESULTS


@dataclass(frozen=True)
class Beside:
    """A row of the table: seconds of a step and bytes at its peak, computed and measured; nan where one is missing.

    ``once`` is false where the code of that day read a prompt once per response.
    """

    device: str
    what: str
    once: bool
    seconds: float = np.nan
    measured_seconds: float = np.nan
    bytes: float = np.nan
    measured_bytes: float = np.nan


def table_rows(folder: Path = RESULTS) -> list[Beside]:
    """Return one row per size and way that was measured, from the frames in a folder."""
    return [
        *_pretrained(*load_frame(folder / "llm-pretrained.parquet")),
        *_drawn("cpu", *load_frame(folder / "llm.parquet")),
        *_drawn("cuda", *load_frame(folder / "cuda/llm.parquet")),
    ]


def _pretrained(frame: pd.DataFrame, settings: Mapping[str, Any]) -> Iterator[Beside]:
    """Give the rows of the pretrained model; what a process held before it had the model is no part of its peak."""
    config, rates = settings["config"], Rates(**settings["rates"])
    weights = re.sub(r" \(.*?\)", "", settings["model_weights"] or "")  # without their formats
    named = ", ".join(filter(None, (settings["model"], weights)))
    ways = [
        (f"{NEW}: dpo", "once", False), (f"{NEW}: {PACKED}", "packed", False), (f"{NEW}: {SIDES}", "once", True),
        (f"{FORMER}: dpo", "apart", False),
    ]  # fmt: skip
    for part, words in PARTS.items():
        steps, peaks = (frame[frame["part"] == name].groupby("method") for name in (part, f"{part}, memory"))
        taken, held = steps["cpu_seconds"].median(), peaks["peak_mb"].median() - peaks["before_mb"].median()
        for method, way, sides in ways:
            tokens = settings["tokens"][way]
            how: dict[str, Any] = {"lora_rank": RANKS[part], "checkpointing": 0, "precision": "fp32"}
            here = way != "apart"  # the former code's memory is not what the table is about
            yield Beside(
                "CPU, one thread", f"{named}: {words}{_words(method)}", tokens["once"],
                np.nan if sides else expected.seconds(config, rates, tokens, **how), taken[method],
                expected.peak(config, tokens, sides=sides, **how) if here else np.nan,
                held[method] * 2**20 if here else np.nan,
            )  # fmt: skip


def _words(method: str) -> str:
    return {PACKED: ", packed by tokens", SIDES: ", a step that compares the sides"}.get(method.split(": ")[1], "")


def _drawn(device: str, frame: pd.DataFrame, settings: Mapping[str, Any]) -> Iterator[Beside]:
    """Give the rows of models with random weights.

    All losses of a size do the same work, so the median over them counts. The GPU's frame has no measured rates yet.
    """
    rates = Rates(**settings["rates"]) if "rates" in settings else H200
    once = settings.get("prompts_once", False)  # code that does not say so read a prompt once per response
    cuda = device == "cuda"
    for name, size in EXTENTS[device]().sizes.items():
        rows = frame[(frame["size"] == name) & (frame["part"] == size.part) & (frame["method"] != WITH_SIDES)]
        rows = rows[rows["seconds"].notna()]
        if rows.empty:  # the size was left out
            continue
        steps = expected.batches(drawn_pairs(size), size.pairs, int(rows["round"].max()) + 2)
        tokens = expected.tokens(steps, once=once, micro=size.micro, peaks=len(steps))
        how: dict[str, Any] = {
            "lora_rank": size.lora, "checkpointing": float(size.checkpointing), "precision": size.precision,
        }  # fmt: skip
        config, seconds = _config(size), rows["seconds"].median()
        yield Beside(
            settings["device"] if cuda else "CPU, one thread", name, once,
            expected.seconds(config, rates, tokens, **how), seconds,
            expected.peak(config, tokens, sides=False, **how) if cuda else np.nan,
            rows["peak_mb"].max() * 2**20 if cuda else np.nan,
        )  # fmt: skip


def _config(size: Size) -> Mapping[str, Any]:
    return size.model("cpu").config.to_dict() if "width" in size.shape else size.shape


def computed_markdown(folder: Path = RESULTS) -> str:
    """Return the rows as a Markdown table: seconds, GB (10⁹ bytes), and what was measured over what was computed."""
    head = ["device", "model", "prompt read", "step, s", "measured", "over computed", "peak, GB", "measured",
            "over computed"]  # fmt: skip
    return table(head, map(_cells, table_rows(folder))) + "\n"


def _cells(beside: Beside) -> list[str]:
    gigabytes = beside.bytes / 1e9, beside.measured_bytes / 1e9
    return [
        beside.device, beside.what, "once per pair" if beside.once else "per response",
        *_with_ratio(beside.seconds, beside.measured_seconds), *_with_ratio(*gigabytes),
    ]  # fmt: skip


def _with_ratio(computed: float, measured: float) -> list[str]:
    return [number(computed, ".3g"), number(measured, ".3g"), number(measured / computed, ".2f")]


if __name__ == "__main__":
    print(tyro.cli(computed_markdown))
