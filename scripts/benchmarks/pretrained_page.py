"""The page of the pretrained model's benchmark, with the ratios and the targets behind it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from gradlab.stats.equivalence import mean_of
from scripts.benchmarks.page_parts import heading, number, table
from scripts.benchmarks.pretrained_worker import PACKED, SIDES
from scripts.benchmarks.timing import machine

NAME = "llm-pretrained"
NEW, FORMER, TRL = "gradlab", "former", "trl"
ALIKE = 0.01  # two losses count as equally fast where their steps differ by less than this share
MOST_LOADING = 15.0  # seconds to read and tokenise 2,000 pairs
PARTS = {"full": "all weights", "LoRA": "a LoRA adapter of rank 16"}


@dataclass(frozen=True)
class Target:
    """A ratio that was to be reached: of the seconds, or of the peak memory, of two ways in a part."""

    words: str
    part: str
    over: str
    under: str
    most: float
    column: str = "cpu_seconds"


def _targets() -> Iterator[Target]:
    for part, what in PARTS.items():
        yield Target(f"step over the former commit's, {what}", part, f"{NEW}: dpo", f"{FORMER}: dpo", 0.65)
        yield Target(f"the same, packed by tokens, {what}", part, f"{NEW}: {PACKED}", f"{FORMER}: dpo", 0.65)
        yield Target(f"step over TRL's, {what}", part, f"{NEW}: dpo", f"{TRL}: dpo", 0.5)
        yield Target(f"step with sides over a plain one, {what}", part, f"{NEW}: {SIDES}", f"{NEW}: dpo", 2.2)
        memory = f"{part}, memory"
        yield Target(f"peak memory over the former commit's, {what}", memory, f"{NEW}: dpo", f"{FORMER}: dpo", 1.0,
                     "peak_mb")  # fmt: skip
        yield Target(f"the same, packed by tokens, peak memory, {what}", memory, f"{NEW}: {PACKED}", f"{FORMER}: dpo",
                     1.0, "peak_mb")  # fmt: skip
        yield Target(f"peak memory with sides over the former commit's, {what}", memory, f"{NEW}: {SIDES}",
                     f"{FORMER}: {SIDES}", 1.0, "peak_mb")  # fmt: skip


TARGETS = tuple(_targets())


def summarise(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row per ratio with a target, and one for the losses: estimate, 95% interval, and whether it is met.

    Ratios are within rounds; the estimate is their geometric mean, and the interval is that of a t test on logarithms.
    "bdpo over dpo" is met where the 90% interval, which is two one-sided tests at 5%, lies within ``ALIKE``.
    """
    rows = []
    for target in TARGETS:
        ratios = _ratios(frame[frame["part"] == target.part], target.over, target.under, target.column)
        middle, low, high = _interval(ratios, 0.95)
        rows.append({"what": target.words, "ratio": middle, "low": low, "high": high, "rounds": len(ratios),
                     "target": f"≤ {target.most:g}", "met": middle <= target.most})  # fmt: skip
    ratios = _ratios(frame[frame["part"] == "losses"], "bdpo", "dpo", "cpu_seconds")
    middle, low, high = _interval(ratios, 0.9)
    alike = low > 1 / (1 + ALIKE) and high < 1 + ALIKE
    rows.append({"what": "bdpo over dpo", "ratio": middle, "low": low, "high": high, "rounds": len(ratios),
                 "target": f"within {ALIKE:.0%}", "met": alike})  # fmt: skip
    return pd.DataFrame(rows)


def _ratios(part: pd.DataFrame, over: str, under: str, column: str) -> np.ndarray:
    """Return one ratio per round, of medians within it."""
    by_round = part.groupby(["round", "method"])[column].median().unstack("method")
    return (by_round[over] / by_round[under]).to_numpy(float)


def _interval(ratios: np.ndarray, level: float) -> tuple[float, float, float]:
    mean = mean_of(np.log(ratios))
    low, high = (float(np.exp(end)) for end in mean.interval(level))
    return math.exp(float(mean.effect)), low, high


def page(frame: pd.DataFrame, summary: pd.DataFrame, settings: Mapping[str, Any]) -> str:
    """Return the page: what was measured, on what, and how to read it."""
    lines = [
        heading("A pretrained model on real pairs: speed and memory", settings["quick"]), "",
        f"Steps of {settings['batch']} pairs, {settings['micro']} at a time, at most {settings['longest']} tokens per",
        f"prompt and response, in float32 on one thread of a CPU. `{FORMER}` is commit {settings['former']}. All ways",
        "see the same pairs and find the same log π and the same norm of the gradient, or nothing is reported. They",
        "take turns, each in a process of its own. A ratio is within a round: geometric mean with 95% interval (`bdpo",
        "over dpo`: 90%, as two one-sided tests at 5% need). Seconds are the processor's: on a machine that does",
        "nothing else they are those of the clock. Peak memory is of two steps in a fresh process, all that it holds.",
        _busy(settings), "", *_subject(settings), *_read(settings), "",
        "## Targets", "",
        table(("what", "ratio", "interval", "rounds", "target", "reached"), [
            (row["what"], f"{row['ratio']:.3f}", _ends(row), str(row["rounds"]), row["target"],
             _reached(row)) for row in summary.to_dict("records")
        ]), "", *_cold_start(frame, summary, settings), *_loading(frame), "", *_steps(frame), "",
        machine(("gradlab", "torch", "transformers", "peft", "trl")),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _subject(settings: Mapping[str, Any]) -> Iterator[str]:
    """Give the model and the data, as the run recorded them."""
    for what in ("model", "data"):
        if digest := settings.get(f"{what}_sha256"):
            origin = settings.get("model_weights") if what == "model" else None
            yield f"- {what}: {settings[what]}{f', {origin}' if origin else ''}, SHA-256 {digest[:16]}…"
        else:
            yield f"- {what}: {settings.get(what) or 'not recorded'}, no hash recorded"


def _read(settings: Mapping[str, Any]) -> Iterator[str]:
    """Give how many tokens a pair takes, where that was recorded."""
    if tokens := settings.get("tokens"):
        once, packed, apart = (tokens[way]["row"] for way in ("once", "packed", "apart"))
        yield (f"- tokens per pair, padding included: {once:.0f} with its prompt read once, {packed:.0f} packed, and "
               f"{2 * apart:.0f} with its prompt read per response, {2 * apart / once:.2f} times as many")  # fmt: skip


def _reached(row: Mapping[Any, Any]) -> str:
    """Return whether a target is reached, and whether the interval leaves that open."""
    word = "yes" if row["met"] else "**no**"
    most = next((target.most for target in TARGETS if target.words == row["what"]), math.nan)
    return f"{word}, but the interval crosses the target" if row["low"] <= most <= row["high"] else word


def _cold_start(frame: pd.DataFrame, summary: pd.DataFrame, settings: Mapping[str, Any]) -> list[str]:
    """Say which targets would read otherwise without the first round, where no whole round was made before it."""
    if settings.get("warm", 0) >= 2:
        return []
    again = summarise(frame[(frame["round"] > 0) | ~frame["part"].isin(PARTS)])
    pairs = zip(summary.to_dict("records"), again.to_dict("records"), strict=True)
    other = [
        f"{late['what']} {late['ratio']:.3f} {_ends(late)}, {'reached' if late['met'] else 'not reached'}"
        for row, late in pairs if row["met"] != late["met"]
    ]  # fmt: skip
    said = "; ".join(other) or "none"
    return [
        "The first round counts above, though a process first meets batches of full size in it. Without it these would "
        f"read otherwise: {said}.", "",
    ]  # fmt: skip


def _busy(settings: Mapping[str, Any]) -> str:
    return (
        f"Others used the machine meanwhile (load {settings['load']:.1f} over 15 minutes), so seconds are too long by "
        "some factor; ratios within a round suffer less."
        if settings["load"] > 1.5
        else "The machine did nothing else."
    )


def _ends(row: Mapping[Any, Any]) -> str:
    return f"[{row['low']:.3f}, {row['high']:.3f}]" if row["low"] == row["low"] else "–"


def _loading(frame: pd.DataFrame) -> list[str]:
    rows = frame[frame["part"] == "loading"]
    seconds = rows.groupby("method")["seconds"].median()
    met = "reached" if seconds[NEW] <= MOST_LOADING else "**not reached**"
    return [
        "## Loading", "",
        f"{rows['pairs'].iloc[0]:,.0f} pairs are read and tokenised in {seconds[NEW]:.1f} s, by the former commit in "
        f"{seconds[FORMER]:.1f} s (medians of {len(rows) // 2}; target {MOST_LOADING:.0f} s, {met}).",
    ]  # fmt: skip


def _steps(frame: pd.DataFrame) -> Iterator[str]:
    yield "## Steps"
    for part, what in PARTS.items():
        own = frame[frame["part"] == part].groupby("method", sort=False)[["seconds", "cpu_seconds"]].median()
        peak = frame[frame["part"] == f"{part}, memory"].set_index("method")["peak_mb"]
        rows = [
            (f"`{method}`", f"{seconds:.1f}", f"{cpu:.1f}", number(peak.get(method, np.nan), ",.0f"))
            for method, (seconds, cpu) in zip(own.index, own.to_numpy(), strict=True)
        ]
        yield from ("", f"**{what}**", "", table(("way", "seconds", "of the processor", "peak, MB"), rows))


__all__ = ["FORMER", "NAME", "NEW", "TARGETS", "TRL", "page", "summarise"]
