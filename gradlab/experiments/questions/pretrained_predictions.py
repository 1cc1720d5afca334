"""Predictions on each task with a pretrained model, from before any training that is judged, and how each is marked.

Before those on the openings were written, one run had been looked at: DPO on a seed below 1000, for the learning rate.
Those on real pairs were written when the openings' runs had been judged, while the first trainings on real pairs ran:
nothing of these had been looked at. Every number is a mean over the seeds with its 95% t interval: of the
last look of each run (``pretrained_runs.looks_of``), of the reference's weights, or of a run's logged steps
(``pretrained_sides.side_steps``). Margins are those of the verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd

from gradlab.experiments.predictions import Outcome, Prediction, by_interval
from gradlab.experiments.questions.language_models_weights import length_explains, weighed
from gradlab.experiments.questions.pretrained_comparisons import REWARD, RIGHT, Value
from gradlab.experiments.questions.pretrained_runs import CORE, HALF, LENGTH, REFERENCE, SHORT, Runs, of_task
from gradlab.experiments.questions.pretrained_sides import LARGER, side_steps
from gradlab.stats.equivalence import mean_of


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


_WRITTEN = {
    "known": "written before the first run that is judged",
    "hh": "written while the first trainings ran, before any of them was looked at",
}


def _level(column: str, method: str, **bounds: float) -> Callable[[pd.DataFrame], Outcome]:
    """Return the mark of a prediction on one method's number."""

    def check(ends: pd.DataFrame) -> Outcome:
        values = _by_seed(ends, column, method)
        return by_interval(*_interval(values), _said([(_NAMES.get(column, column), values)]), **bounds)

    return check


def _near(value: Value, size: str, where: str = "") -> tuple[Prediction, Prediction]:
    """Return the predictions that bDPO ends within the margin of two controls; ``size`` is the margin in words."""
    bounds = {"least": -value.margin, "most": value.margin}
    return (
        Prediction(f"bDPO ends within {size} of DPO at β/2{where}.", _difference(value.column, "bdpo", HALF, **bounds)),
        Prediction(
            f"It ends within {size} of length-weighted DPO.", _difference(value.column, "bdpo", LENGTH, **bounds)
        ),
    )


_NAMES = {"r2": "R²", "controlled": "accuracy", "larger": "log(‖g_l‖/‖g_w‖)", "inside": "share of steps"}
_BOTH_FALL = (
    Prediction(
        "Under every pair loss the probability of both responses of a held-out pair together falls: it goes elsewhere.",
        _every("elsewhere", least=0.0),
    ),
    Prediction("Under every pair loss held-out winners become less probable, too.", _every("win_moved", most=0.0)),
)
PREDICTIONS: dict[str, tuple[Prediction, ...]] = {
    "known": (
        Prediction(
            "Every pair loss raises the true reward above the reference's.", _every("reward", since=True, least=0.0)
        ),
        Prediction(
            "At one learning rate DPO moves farther from the reference at β/2 than at 2β.",
            _difference("kl", HALF, "dpo-double", least=0.0),
        ),
        *_near(REWARD, f"{REWARD.margin:g} points of true reward"),
        *_BOTH_FALL,
        Prediction(
            "Under the reference the share of tokens explains between half and nine tenths of the variance of λ.",
            _level("r2", REFERENCE, least=0.5, most=0.9),
        ),
    ),
    "hh": (
        Prediction("DPO's length-controlled accuracy is above ½.", _level("controlled", "dpo", least=0.5)),
        *_near(RIGHT, f"{RIGHT.margin:.0%} of pairs", " in length-controlled accuracy"),
        *_BOTH_FALL,
        Prediction(
            "In DPO's batches the losers' parameter gradient is as large as the winners', within a fifth.",
            _level("larger", "dpo", least=-LARGER, most=LARGER),
        ),
        Prediction("At least nine tenths of DPO's steps lie in the band.", _level("inside", "dpo", least=0.9)),
        Prediction(
            "Under the reference the share of tokens explains at least three quarters of the variance of λ.",
            _level("r2", REFERENCE, least=0.75),
        ),
    ),
}  # fmt: skip


def marked(runs: Runs, task: str) -> list[tuple[Prediction, Outcome]]:
    """Return a task's predictions with their marks; [] until all runs of its core are there."""
    if runs.lacking(task, (REFERENCE, *CORE)):
        return []
    weights = weighed(of_task(runs.pairs[runs.pairs["method"] == REFERENCE], task))
    logs = of_task(runs.logs, task)
    ends = of_task(runs.ends, task).merge(length_explains(weights)[["method", "seed", "r2"]], "left")
    ends = ends.merge(side_steps(logs[logs["method"] == "dpo"]), "left")
    return [(prediction, prediction.check(ends)) for prediction in PREDICTIONS[task]]


def in_words(runs: Runs) -> str:
    """Return the marks in words, a sentence per task; empty until all runs of a core are there."""
    return " ".join(filter(None, (_in_words(task, marked(runs, task)) for task in PREDICTIONS)))


def _in_words(task: str, marks: Sequence[tuple[Prediction, Outcome]]) -> str:
    if not marks:
        return ""
    counts = {word: sum(outcome.word == word for _, outcome in marks) for word in ("held", "failed", "undecided")}
    said = " ".join(f"“{prediction.text}” {outcome.word} ({outcome.because})." for prediction, outcome in marks)
    return (
        f"Of {len(marks)} predictions on {SHORT[task]}, {_WRITTEN[task]}, {counts['held']} have held, "
        f"{counts['failed']} have failed and "
        f"{counts['undecided']} are undecided: {said}"
    )
