"""The part of runs on a pretrained model in the answers on larger models and on lengths, in words from their frames."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from gradlab.experiments.questions import pretrained_predictions
from gradlab.experiments.questions.language_models_weights import length_explains, weighed
from gradlab.experiments.questions.pretrained import MEASUREMENT
from gradlab.experiments.questions.pretrained_comparisons import JUDGED, Value
from gradlab.experiments.questions.pretrained_levels import CONTROLS, over_shared_kl
from gradlab.experiments.questions.pretrained_runs import (
    CORE,
    HALF,
    LENGTH,
    REFERENCE,
    SHORT,
    SIZE,
    TASKS,
    Runs,
    of_task,
)
from gradlab.experiments.questions.pretrained_sides import corrected_shares, side_steps
from gradlab.stats.equivalence import mean_of

MODEL = f"A pretrained model of {SIZE} parameters, SmolLM2-135M-Instruct, whose 4-bit weights were made whole"


def in_words(folder: Path) -> str:
    """Return what the committed frames say, in words, each task once its core is there; else how many runs there are.

    folder  that of the figures.
    """
    runs = Runs(MEASUREMENT.load(folder))
    said = [task_in_words(runs, task) for task in TASKS]
    said.append(pretrained_predictions.in_words(runs))
    return f"{MODEL}. {' '.join(filter(None, said))}"


def task_in_words(runs: Runs, task: str) -> str:
    """Return what a task's runs say in words, or how many of them are there."""
    where = SHORT[task].capitalize()
    if lacking := runs.lacking(task, (REFERENCE, *CORE)):
        return f"{where}: not run, {lacking} are there."
    weights = weighed(of_task(runs.pairs[runs.pairs["method"] == REFERENCE], task))
    shares = corrected_shares(task)(runs)
    explained = length_explains(weights)["r2"].mean()
    corrected = shares.loc[shares["method"] == REFERENCE, "share"].mean()
    value = JUDGED[task]
    looks = of_task(runs.looks[runs.looks["method"].isin([REFERENCE, *CORE])], task)
    ends = of_task(runs.ends, task)
    gain, half, length = (_gap(ends, value.column, "bdpo", name) for name in ("dpo", HALF, LENGTH))
    equal = {name: _at_equal_kl(looks, value, name) for name in CONTROLS}
    unit = value.unit

    def size(number: Sequence[float]) -> str:
        effect, low, high = map(unit.signed, number)
        return f"{effect} [{low}, {high}]".replace("-", "−")

    def beside(name: str, number: Sequence[float] | None) -> str:
        if number is None:
            return f"nothing of {name}, with which no KL is shared in every seed"
        return f"{size(number)} from {name}"

    return (
        f"{where}: under the reference the share of tokens explains {explained:.0%} of the variance of λ, and in the "
        f"median held-out pair bDPO corrects {corrected:.1%} of the imbalance. In {unit.words}, bDPO differs by "
        f"{size(gain)} from DPO at one β, by {size(half)} from DPO at β/2 and by {size(length)} from length-weighted "
        f"DPO; over the KL in which both were looked at: {beside('DPO of equal effective β', equal['dpo'])}, "
        f"{beside('length-weighted DPO', equal[LENGTH])} (95% intervals over three seeds)."
        f"{_beside_length(ends, unit.signed) if task == 'hh' else ''} {_sides(runs, task)} {_minutes(runs, task)}"
    )


def _sides(runs: Runs, task: str) -> str:
    """Return what the gradients of both sides of a batch say, beside what becomes of held-out winners."""
    logs, ends = of_task(runs.logs, task), of_task(runs.ends, task)
    steps = side_steps(logs[logs["method"].isin(["dpo", "bdpo"])])
    larger, low, high = _interval(steps.loc[steps["method"] == "dpo", "larger"])
    changed, down, up = _gap(steps, "larger", "bdpo", "dpo")
    inside = steps.loc[steps["method"] == "dpo", "inside"].mean()
    moved = ends.loc[ends["method"] == "dpo", "win_moved"].mean()
    return (
        f"The losers' parameter gradient in DPO's batches is {math.exp(larger):.2f} [{math.exp(low):.2f}, "
        f"{math.exp(high):.2f}] times the winners', and under bDPO {math.exp(changed):.2f} [{math.exp(down):.2f}, "
        f"{math.exp(up):.2f}] times that. {inside:.0%} of DPO's steps lie in the band, where a plain gradient step "
        "would raise their own winners (the trainings used Adam); held-out winners have moved by "
        f"{f'{moved:+.2f}'.replace('-', '−')} nats at the end."
    )


def _minutes(runs: Runs, task: str) -> str:
    """Return how long the core's trainings took, in words."""
    taken = of_task(runs.seconds, task)
    every = taken.loc[taken["method"].isin(CORE), "seconds"].to_numpy() / 60
    minutes = every[every >= np.median(every) / 4]  # a run alone on an idle core takes about half of the median
    resumed = len(every) - len(minutes)
    without = f", without {resumed} of {len(every)}, of which only the last process was timed" if resumed else ""
    return (
        f"A training took {minutes.min():.0f} to {minutes.max():.0f} minutes of one core, {np.median(minutes):.0f} in "
        f"the median, beside others on the same machine{without}."
    )


def _beside_length(ends: pd.DataFrame, signed: Callable[[float], str]) -> str:
    """Return how often DPO and bDPO are right on held-out pairs, beside what length tells, and whether DPO is above it.

    signed  a difference of accuracies in words.
    """
    means = ends.groupby("method")[["accuracy", "controlled", "shorter"]].mean().to_dict("index")
    parts = [
        f"{name} {means[method]['accuracy']:.1%}, at equal weight of lengths {means[method]['controlled']:.1%}"
        for method, name in (("dpo", "DPO"), ("bdpo", "bDPO"))
    ]
    said = f" Right on held-out pairs: {'; '.join(parts)}; to prefer the shorter one {means['dpo']['shorter']:.1%}."
    above = _interval(ends.loc[ends["method"] == "dpo", "controlled"] - 0.5)
    if above[1] > 0:
        return said
    low, high = (signed(end).replace("-", "−") for end in above[1:])
    return f"{said} That DPO itself is above ½ is not shown ([{low}, {high}] points), so that little can be said here."


def _gap(frame: pd.DataFrame, column: str, method: str, baseline: str) -> tuple[float, float, float]:
    """Return the mean over seeds of a difference, with its 95% t interval."""
    ours, theirs = (frame[frame["method"] == name].groupby("seed")[column].mean() for name in (method, baseline))
    return _interval(ours - theirs)


def _at_equal_kl(looks: pd.DataFrame, value: Value, baseline: str) -> tuple[float, float, float] | None:
    """Return the difference of bDPO over the KL that it shares with a control, None where a seed shares none."""
    shared = over_shared_kl(looks, value.column, "bdpo", baseline, value.power)
    return _gap(shared, value.column, "bdpo", baseline) if len(shared) else None


def _interval(differences: pd.Series) -> tuple[float, float, float]:
    mean = mean_of(differences.to_numpy(float))
    low, high = mean.interval()
    return float(mean.effect), float(low), float(high)
