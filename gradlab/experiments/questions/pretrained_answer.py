"""The part of runs on a pretrained model in the answers on larger models and on lengths, in words from their frames."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from gradlab.experiments.questions import pretrained_predictions
from gradlab.experiments.questions.language_models_weights import length_explains, weighed
from gradlab.experiments.questions.pretrained import JUDGED, MEASUREMENT, Value, corrected_shares
from gradlab.experiments.questions.pretrained_levels import PARTNERS, over_shared_kl
from gradlab.experiments.questions.pretrained_runs import CORE, HALF, LENGTH, REFERENCE, SHORT, SIZE, TASKS, Runs
from gradlab.stats.equivalence import mean_of


def in_words(folder: Path) -> str:
    """Return what the committed frames say, in words, each task once its core is there; else how many runs there are.

    folder  that of the figures.
    """
    runs = Runs(MEASUREMENT.load(folder))
    said = [_of_task(runs, task) for task in TASKS]
    said.append(pretrained_predictions.in_words(runs))
    return f"A pretrained model of {SIZE} parameters. {' '.join(filter(None, said))}"


def _of_task(runs: Runs, task: str) -> str:
    where = SHORT[task].capitalize()
    if lacking := runs.lacking(task, (REFERENCE, *CORE)):
        return f"{where}: not run, {lacking} are there."
    weights = weighed(runs.pairs[(runs.pairs["task"] == task) & (runs.pairs["method"] == REFERENCE)])
    shares = corrected_shares(task)(runs)
    explained = length_explains(weights)["r2"].mean()
    corrected = shares.loc[shares["method"] == REFERENCE, "share"].mean()
    value = JUDGED[task]
    looks = runs.looks[(runs.looks["task"] == task) & runs.looks["method"].isin([REFERENCE, *CORE])]
    ends = runs.ends()
    ends = ends[ends["task"] == task]
    gain, half, length = (_gap(ends, value.column, "bdpo", name) for name in ("dpo", HALF, LENGTH))
    equal = {name: _at_equal_kl(looks, value, name) for name in PARTNERS}
    unit = value.unit

    def size(number: Iterable[float]) -> str:
        effect, low, high = number
        return f"{unit.signed(effect)} [{unit.signed(low)}, {unit.signed(high)}]".replace("-", "−")

    return (
        f"{where}: under the reference the share of tokens explains {explained:.0%} of the variance of λ, and in the "
        f"median held-out pair bDPO corrects {corrected:.1%} of the imbalance. In {unit.words}, bDPO differs by "
        f"{size(gain)} from DPO at one β, by {size(half)} from DPO at β/2 and by {size(length)} from length-weighted "
        f"DPO; over the KL in which both were looked at by {size(equal['dpo'])} from DPO of equal effective β and by "
        f"{size(equal[LENGTH])} from length-weighted DPO (95% intervals over three seeds)."
    )


def _gap(frame: pd.DataFrame, column: str, method: str, baseline: str) -> tuple[float, float, float]:
    """Return the mean over seeds of a difference, with its 95% t interval."""
    ours, theirs = (frame[frame["method"] == name].groupby("seed")[column].mean() for name in (method, baseline))
    return _interval(ours - theirs)


def _at_equal_kl(looks: pd.DataFrame, value: Value, baseline: str) -> tuple[float, float, float]:
    """Return the difference of bDPO over the KL that it shares with a control, NaN where they share none."""
    shared = over_shared_kl(looks, value.column, baseline, value.power)
    nothing = float("nan")
    return _gap(shared, value.column, "bdpo", baseline) if len(shared) else (nothing, nothing, nothing)


def _interval(differences: pd.Series) -> tuple[float, float, float]:
    mean = mean_of(differences.to_numpy(float))
    low, high = mean.interval()
    return float(mean.effect), float(low), float(high)
