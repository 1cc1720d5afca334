"""The page of the language models' benchmark, with the summary and the steps to a fixed accuracy behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from gradlab.llm.train.section_settings import LogSettings
from scripts.benchmarks.page_parts import heading, number
from scripts.benchmarks.page_parts import table as markdown
from scripts.benchmarks.timing import compared, machine

SIDES, TRL, OURS = "dpo + sides", "trl", "gradlab"
BASES = {"steps": "dpo", "log-probs": "full log_softmax", "trainers": TRL}  # what the others of a part are held against
REACHED = 0.60  # held-out accuracy on the task of tokens that counts as reached: fixed, and by no result
TASK = "tokens"


def summarise(frame: pd.DataFrame, peaks: Mapping[str, float]) -> pd.DataFrame:
    """Return one row per part, size and method: medians, and the ratio to the part's base in the same round.

    peaks  the most operations a second, by size: mfu is the share of them that a step needs and gets.
    """
    held = frame.groupby(["part", "size", "method"])["peak_mb"].median()  # of a CPU in rows of their own, untimed
    rows = []
    for method, own, rounds in compared(frame.dropna(subset=["seconds"]), ["part", "size"], "method"):
        part, size = (str(own[name].iloc[0]) for name in ("part", "size"))
        low, middle, high = (rounds[method] / rounds[BASES[part]]).quantile([0.25, 0.5, 0.75])
        more = own.drop(columns=["round", "seconds", "tokens", "flops", "peak_mb"]).median(numeric_only=True)
        rows.append({
            "part": part, "size": size, "method": method, "measurements": len(own),
            "seconds": own["seconds"].median(), "ratio": middle, "ratio_low": low, "ratio_high": high,
            "peak_mb": held[part, size, method],
            "peak_ratio": held[part, size, method] / held[part, size, BASES[part]],
            "tokens": own["tokens"].mean(), "tokens_per_second": (own["tokens"] / own["seconds"]).median(),
            "mfu": (own["flops"] / own["seconds"]).median() / peaks[size], **more.dropna(),
        })  # fmt: skip
    return pd.DataFrame(rows)


def to_accuracy(logs: pd.DataFrame, summary: pd.DataFrame) -> pd.DataFrame:
    """Return steps, tokens and seconds to the accuracy ``REACHED``, one row per size and loss of the laptop run.

    Median, least and most over seeds, one that never gets there counting as endless. The steps are the logs'; tokens
    and seconds a step are this benchmark's, for the laptop run was not alone on its machine.
    """
    steps = summary[summary["part"] == "steps"]
    looked = logs[(logs["task"] == TASK) & logs["method"].isin(steps["method"])].dropna(subset=["validation_accuracy"])
    rows = []
    for (size, method), runs in looked.groupby(["size", "method"], sort=False):
        each = [
            (run.loc[run["validation_accuracy"] >= REACHED, "step"] - 1).min() for _, run in runs.groupby("seed")
        ]  # validation comes before the step that it stands beside
        found = np.array(each, float)
        endless = np.where(np.isnan(found), np.inf, found)
        own = steps[(steps["size"] == f"{size}, {TASK}") & (steps["method"] == method)]
        row = {"size": size, "method": method, "seeds": len(found), "reached": int(np.isfinite(endless).sum())}
        for name, value in zip(("median", "least", "most"), _spread(endless), strict=True):
            row[f"steps_{name}"] = value
            for unit in ("tokens", "seconds"):
                row[f"{unit}_{name}"] = value * own[unit].iloc[0] if len(own) else np.nan
        rows.append(row)
    return pd.DataFrame(rows)


def _spread(values: np.ndarray) -> tuple[float, float, float]:
    ordered = np.sort(values)
    half = len(ordered) // 2
    middle = ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
    return float(middle), float(ordered[0]), float(ordered[-1])


def page(summary: pd.DataFrame, reached: pd.DataFrame | None, settings: Mapping[str, Any]) -> str:
    """Return the page: what was measured, on what, and how to read it."""
    cuda = settings["device"] != "cpu"
    lines = [
        heading("Training language models: speed and memory", settings["quick"]), "",
        f"Measured on {'one ' + settings['device'] if cuda else 'one thread of a CPU'}. All methods of a table take",
        "turns on the same batches; times are medians, and a ratio is to the first row's step of the same round:",
        "median [quartiles]. Models have random weights, pairs are random tokens of many lengths, the reference is",
        "scored before, and the learning rate is so small that all steps see the same weights. Peak memory is",
        "all that PyTorch holds of the GPU." if cuda else
        "what a process of its own holds at most in three steps, beyond what it held before.",
        "", *_losses(summary, settings, cuda), "", *_log_probs(summary), "", *_trainers(summary), "",
        f"## To a held-out accuracy of {REACHED:.2f}", "", *_reached(reached), "",
        machine(("gradlab", "torch", "transformers", "peft", "trl"), device="cuda" if cuda else "cpu"),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _losses(summary: pd.DataFrame, settings: Mapping[str, Any], cuda: bool) -> Iterator[str]:
    peaks = "; ".join(f"{precision} {rate:.3g} ({source})" for precision, (rate, source) in settings["peak"].items())
    yield from (
        "## Losses", "",
        "A step of gradlab's trainer: forward, backward, the log's numbers of all pairs, norm, AdamW. Tokens are",
        "counted as the step reads them: without padding, a prompt once per pair. MFU is the share of the peak that",
        "the operations take that a step needs: 6 a parameter and token (4 where LoRA freezes them), causal attention,",
        "the output layer for responses alone; what is computed again for the gradient counts once. The peak, in",
        "operations a second:",
        f"{peaks}.",
        f"`{SIDES}` is a step that also finds ‖g_w‖, ‖g_l‖ and the realised change of log π; by default one of",
        f"{LogSettings.sides_every} steps does.",
    )  # fmt: skip
    if cuda:
        yield "*predicted* is what `gradlab.llm.model.memory` computes from the config."
    head = ["method", "ms a step", "ratio", "peak, MB", "ratio of peaks", "tokens/s", "MFU"]
    for size, rows in _of(summary, "steps"):
        cells = [
            [*_common(row), f"{row['tokens_per_second']:,.0f}", f"{row['mfu']:.1%}",
             *([f"{row['predicted_mb']:,.0f}"] if cuda else [])] for row in rows
        ]  # fmt: skip
        yield from ("", f"**{size}**", "", markdown([*head, *(["predicted, MB"] if cuda else [])], cells))
    yield from (f"\n**{name}** is left out: {why}." for name, why in settings["left_out"].items())


def _log_probs(summary: pd.DataFrame) -> Iterator[str]:
    yield from (
        "## Ways to get log π", "",
        "From hidden states through the output layer to log π of each target, forward and backward. `chunks of N` is",
        "gradlab's, with a gradient of its own: the logits of N tokens exist at a time, and all but the last are",
        "computed again for it. Differences are to the first row: of log π the largest (nats), of its gradients the",
        "relative norm.",
    )  # fmt: skip
    head = ("method", "ms", "ratio", "peak, MB", "ratio of peaks", "MFU", "difference of log π", "of the gradient")
    for size, rows in _of(summary, "log-probs"):
        cells = [
            (*_common(row), f"{row['mfu']:.1%}", f"{row['logp_error']:.1g}", f"{row['gradient_error']:.1g}")
            for row in rows
        ]
        yield from ("", f"**{size}**, {rows[0]['tokens']:,.0f} tokens", "", markdown(head, cells))


def _trainers(summary: pd.DataFrame) -> Iterator[str]:
    yield from ("## Beside TRL's DPOTrainer", "")
    cases = _of(summary, "trainers")
    if not cases:
        yield "TRL is not installed here (`pip install 'gradlab[trl]'`), so this was not measured."
        return
    yield from (
        "Equal models, pairs, batches and micro-batches, nothing truncated, the reference computed before in both,",
        "DPO; TRL's other settings are its defaults. A step of each in turn. Both give the same log π in every step,",
        "or nothing is reported. Tokens and operations are TRL's in both rows: a prompt counts on both sides, though",
        "gradlab reads it once.",
    )
    for size, rows in cases:
        cells = [(*_common(row)[:3], f"{row['tokens_per_second']:,.0f}", f"{row['mfu']:.1%}") for row in rows]
        yield from ("", f"**{size}**", "", markdown(("trainer", "ms a step", "ratio", "tokens/s", "MFU"), cells))


def _of(summary: pd.DataFrame, part: str) -> list[tuple[str, list[dict[Any, Any]]]]:
    """Return the rows of each size of a part."""
    sizes = summary[summary["part"] == part].groupby("size", sort=False)
    return [(str(size), own.to_dict("records")) for size, own in sizes]


def _common(row: Mapping[Any, Any]) -> tuple[str, ...]:
    ratio = f"{row['ratio']:.3f} [{row['ratio_low']:.3f}, {row['ratio_high']:.3f}]"
    peaks = number(row["peak_mb"], ",.0f"), number(row["peak_ratio"], ".3f")
    return f"`{row['method']}`", f"{row['seconds'] * 1e3:,.1f}", ratio, *peaks


def _reached(reached: pd.DataFrame | None) -> list[str]:
    if reached is None or reached.empty:
        return ["The laptop run's logs (`make llm-demo`, kept in figures/llm) are not here, so this was not read."]

    def told(row: Mapping[Any, Any], unit: str, form: str) -> str:
        values = [row[f"{unit}_{name}"] for name in ("median", "least", "most")]
        words = ["never" if one == np.inf else "–" if one != one else format(one, form) for one in values]
        return f"{words[0]} [{words[1]}, {words[2]}]"

    rows = [
        (row["size"], f"`{row['method']}`", f"{row['reached']} of {row['seeds']}", told(row, "steps", ",.0f"),
         told(row, "tokens", ",.0f"), told(row, "seconds", ",.1f")) for row in reached.to_dict("records")
    ]  # fmt: skip
    head = ("model", "loss", "seeds that reach it", "steps", "tokens", "seconds")
    return [
        "On the laptop run's task of tokens, at the first look that finds it: median [least, most] over seeds; one",
        "that does not get there counts as never. Steps are the run's; tokens and seconds are those steps at the pace",
        "of the tables above, without looks at held-out pairs and sides. Pairs were held out one by one, so that",
        "nearly all prompts are trained on too, with other responses.", "", markdown(head, rows),
    ]  # fmt: skip
