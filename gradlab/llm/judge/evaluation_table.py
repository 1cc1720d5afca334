"""The table of an evaluation: means over runs with their intervals, as text, and the notes needed to read it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from gradlab.stats.intervals import bootstrap_interval

MEASURES = {
    "win_rate": "win-rate", "success": "success", "safe": "safe", "kl": "KL estimate", "accuracy": "accuracy",
    "margin": "margin", "reward": "reward", "length": "length",
}  # fmt: skip
SHARES = ("win_rate", "success", "safe", "accuracy")
BASELINE = "dpo"  # the method that others are paired with, unless another is named
CONTROLS = {"fixed-weight": "the halved β", "length-dpo": "the lengths"}  # what each shows beside bdpo
# A definition of success, which the paper's summary leaves open. Ours.
SUCCESS = (
    "success (ours): a response is safe where its cost is below 0, better where its reward exceeds that of the "
    "reference's response to the prompt (over all pairs of samples, ties ½), and a success where it is both"
)


def summary(frame: pd.DataFrame, baseline: str = BASELINE) -> pd.DataFrame:
    """Return the table of an ablation: one row per method, over the runs' folders in ``frame``.

    Each measure has its mean over folders, and the 95% bootstrap interval ``_low``, ``_high`` over folders; with a
    single folder, that folder's interval. ``…_gain`` is the paired difference from the baseline in the same folder,
    where all folders have the baseline. A few seeds make a rough interval.
    """
    outs = frame["out"].nunique()
    measures = [name for name in MEASURES if name in frame]
    paired = (frame["run"] == baseline).sum() == outs
    base = frame[frame["run"] == baseline].set_index("out")
    rows = []
    for run, own in frame.groupby("run", sort=False):
        row: dict[str, Any] = {"run": run, "runs": len(own)}
        for name in measures:
            row |= with_interval(name, own[name].to_numpy(float))
            if outs == 1 and f"{name}_low" in own:
                row |= {f"{name}_{end}": float(own[f"{name}_{end}"].iloc[0]) for end in ("low", "high")}
            if paired and outs > 1 and run != baseline:
                own_by_out = own.set_index("out")[name]
                row |= with_interval(f"{name}_gain", (own_by_out - base[name].loc[own_by_out.index]).to_numpy(float))
        rows.append(row)
    return pd.DataFrame(rows)


def table(frame: pd.DataFrame, baseline: str = BASELINE) -> str:
    """Return ``summary`` as text, with the intervals of shares and of differences, and the notes needed to read it."""
    return "\n".join([as_text(summary(frame, baseline), baseline), "", *notes(frame)])


def notes(frame: pd.DataFrame) -> list[str]:
    """Return notes on the numbers: intervals, the accuracy of the reward and of length, and definitions."""
    first, by_run = frame.iloc[0], frame.groupby("out", sort=False).first()
    lines = [
        f"{_intervals(frame)} Ties count ½. KL is an estimate from samples, in nats per response, and can be slightly "
        "below 0.",
        f"{first['pairs']} held-out pairs, on which 'prefer the shorter answer' scores "
        f"{by_run['shorter_accuracy'].mean():.3f}; {first['prompts']} prompts, {first['samples']} samples each.",
    ]
    seen = by_run["pairs_seen"] / by_run["pairs"] if "pairs_seen" in frame else pd.Series([0.0])
    if seen.max() > 0:
        lines[-1] += (
            f" Of these pairs {seen.mean():.0%} have prompts that were trained on too: on those, accuracy shows what "
            "is remembered."
        )
    if "win_rate" in frame:
        accuracy = f"accuracy {by_run['reward_accuracy'].mean():.3f} on the held-out pairs."
        lines.append(f"reward {' and '.join(by_run['reward_model'].unique())}: {accuracy}")
        if not by_run["reward_beats_length"].all():
            lines[-1] += " It is not above both chance and length there: win-rates by it decide nothing."
    runs = {*frame["run"]}
    missing = [name for name in CONTROLS if name not in runs]
    if "bdpo" in runs and missing:
        lines.append(
            f"Without a run of {' and of '.join(missing)} it stays open whether what bdpo does is balance, or "
            f"{' and '.join(CONTROLS[name] for name in missing)}."
        )
    if "success" in frame:
        lines.append(SUCCESS + ".")
    if "model_weights" in frame:
        lines.append(f"All models began as {' and '.join(frame['model_weights'].dropna().unique())}.")
    return lines


def _intervals(frame: pd.DataFrame) -> str:
    """Return a sentence on what the numbers are means of, and what the intervals are over."""
    runs = frame.groupby("run")["out"].nunique()
    if frame["out"].nunique() == 1:
        return "1 run; [low, high]: 95% bootstrap, of accuracy over held-out pairs, of all else over prompts."
    fewest, most = runs.min(), runs.max()
    number = f"{most}" if fewest == most else f"{fewest} to {most}"
    # With three runs, one resample in 27 holds only the smallest value, which is more than the 2.5% that are cut off.
    few = ", which over three or fewer is smallest to largest" if fewest <= 3 else ""
    return f"Means over {number} runs; [low, high]: 95% bootstrap over runs{few}."


def with_interval(name: str, values: np.ndarray) -> dict[str, float]:
    """Return the mean of values (N,) as the column ``name``, and its 95% bootstrap interval as ``_low``, ``_high``."""
    low, high = bootstrap_interval(values)
    return {name: float(np.mean(values)), f"{name}_low": low, f"{name}_high": high}


def as_text(rows: pd.DataFrame, baseline: str) -> str:
    """Return the rows of ``summary`` as aligned text."""
    columns = {name: title for name, title in MEASURES.items() if name in rows}
    compared = ("win_rate",) if "win_rate" in rows else ("accuracy", "margin")
    columns |= {f"{name}_gain": f"{MEASURES[name]} − {baseline}'s" for name in compared if f"{name}_gain" in rows}
    lines = [["method", *columns.values()]]
    for record in rows.to_dict("records"):
        row = {str(name): value for name, value in record.items()}
        lines.append([row["run"], *(_cell(row, name) for name in columns)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(line.rstrip() for line in padded)


def _cell(row: dict[str, Any], name: str) -> str:
    value, low, high = row[name], row[f"{name}_low"], row[f"{name}_high"]
    digits = 1 if name == "length" else 3
    if math.isnan(value):
        return "–"
    shown = (name in SHARES or name.endswith("_gain")) and not math.isnan(low)
    return f"{value:.{digits}f}" + (f" [{low:.{digits}f}, {high:.{digits}f}]" if shown else "")
