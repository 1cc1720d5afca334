"""Predictions on the openings of known reward, from before any of their judged runs, and the rule that marks each.

Before they were written, one run had been looked at: DPO on a seed below 1000, for the learning rate. Every number is a
mean over the seeds with its 95% t interval, of the last look of each run (``pretrained_runs.looks_of``). Margins are
those of the verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd

from gradlab.experiments.predictions import Outcome, Prediction, by_interval
from gradlab.experiments.questions.language_models_weights import length_explains, weighed
from gradlab.experiments.questions.pretrained import REWARD
from gradlab.experiments.questions.pretrained_runs import CORE, HALF, LENGTH, REFERENCE, Runs
from gradlab.stats.equivalence import mean_of

TASK = "known"


def _by_seed(ends: pd.DataFrame, column: str, method: str) -> pd.Series:
    return ends[ends["method"] == method].set_index("seed")[column].sort_index()


def _difference(column: str, method: str, baseline: str, **bounds: float) -> Callable[[pd.DataFrame], Outcome]:
    """Return the mark of a prediction on how much one method's number is above another's."""

    def check(ends: pd.DataFrame) -> Outcome:
        gap = _by_seed(ends, column, method) - _by_seed(ends, column, baseline)
        return by_interval(*_interval(gap), _said([(f"{method} − {baseline}", gap)]), **bounds)

    return check


def _every(column: str, *, since: bool = False, **bounds: float) -> Callable[[pd.DataFrame], Outcome]:
    """Return the mark of a prediction on the number of each core method, or on its change since the reference.

    It has held where all of them have, and failed where one of them has.
    """

    def check(ends: pd.DataFrame) -> Outcome:
        start = _by_seed(ends, column, REFERENCE) if since else 0.0
        values = [(method, _by_seed(ends, column, method) - start) for method in CORE]
        marks = {by_interval(*_interval(value), "", **bounds).word for _, value in values}
        word = "failed" if "failed" in marks else "undecided" if "undecided" in marks else "held"
        return Outcome(word, _said(values))

    return check


def _interval(values: pd.Series) -> tuple[float, float]:
    low, high = mean_of(values.to_numpy(float)).interval()
    return float(low), float(high)


def _said(values: Sequence[tuple[str, pd.Series]]) -> str:
    parts = [(name, value.mean(), *_interval(value)) for name, value in values]
    return "; ".join(f"{name}: {mean:+.3f} [{low:+.3f}, {high:+.3f}]" for name, mean, low, high in parts)


def _explained(ends: pd.DataFrame) -> Outcome:
    return by_interval(*_interval(of := _by_seed(ends, "r2", REFERENCE)), _said([("R²", of)]), least=0.5, most=0.9)


PREDICTIONS: tuple[Prediction, ...] = (
    Prediction(
        "Every pair loss raises the true reward above the reference's.", _every("reward", since=True, least=0.0)
    ),
    Prediction(
        "At one learning rate DPO moves farther from the reference at β/2 than at 2β.",
        _difference("kl", HALF, "dpo-double", least=0.0),
    ),
    Prediction(
        f"bDPO ends within {REWARD.margin:g} points of true reward of DPO at β/2.",
        _difference("reward", "bdpo", HALF, least=-REWARD.margin, most=REWARD.margin),
    ),
    Prediction(
        f"It ends within {REWARD.margin:g} points of true reward of length-weighted DPO.",
        _difference("reward", "bdpo", LENGTH, least=-REWARD.margin, most=REWARD.margin),
    ),
    Prediction(
        "Under every pair loss the probability of both responses of a held-out pair together falls: it goes elsewhere.",
        _every("elsewhere", least=0.0),
    ),
    Prediction("Under every pair loss held-out winners become less probable, too.", _every("win_moved", most=0.0)),
    Prediction(
        "Under the reference the share of tokens explains between half and nine tenths of the variance of λ.",
        _explained,
    ),
)  # fmt: skip


def marked(runs: Runs) -> list[tuple[Prediction, Outcome]]:
    """Return the predictions with their marks; [] until all runs of the core are there."""
    if runs.lacking(TASK, (REFERENCE, *CORE)):
        return []
    ends = runs.ends()
    weights = weighed(runs.pairs[(runs.pairs["task"] == TASK) & (runs.pairs["method"] == REFERENCE)])
    ends = ends[ends["task"] == TASK].merge(length_explains(weights)[["method", "seed", "r2"]], "left")
    return [(prediction, prediction.check(ends)) for prediction in PREDICTIONS]


def in_words(runs: Runs) -> str:
    """Return the marks in one sentence; empty until all runs of the core are there."""
    marks = marked(runs)
    if not marks:
        return ""
    counts = {word: sum(outcome.word == word for _, outcome in marks) for word in ("held", "failed", "undecided")}
    said = " ".join(f"“{prediction.text}” {outcome.word} ({outcome.because})." for prediction, outcome in marks)
    return (
        f"Of {len(marks)} predictions on known reward, {counts['held']} have held, {counts['failed']} have failed and "
        f"{counts['undecided']} are undecided: {said}"
    )
