"""The plan's rules that leave out a rater's answers; the report has the result with and without them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
import pandas as pd

from gradlab.study.answers import Answers

_FEWEST_DECIDED = 10  # answers for one side or the other, below which a leaning to a side is not judged


@dataclass(frozen=True)
class Conduct:
    """The raters' conduct, and whom the plan's rules leave out.

    frame  a row per rater: ``items`` answered (skips too), ``skipped``, ``attention`` (share of checks passed, see
           ``passed``), ``self_agreement`` (share of repeats answered as before), ``left`` (share of decided answers for
           the left side), ``seconds`` (median per task, over all its goals), ``left_out`` (the rule, or ""). NaN where
           there is nothing to count.
    """

    frame: pd.DataFrame

    @property
    def out(self) -> list[str]:
        """Return the raters who are left out."""
        return list(self.frame.loc[self.frame["left_out"] != "", "rater"])


def conduct(answers: Answers) -> Conduct:
    """Return the conduct of each rater of the plan; judges that are models are not among them."""
    work = {rater: _Work() for rater in answers.study.plan.raters}
    names = ("rater", "place", "kind", "item", "choice", "score", "seconds")
    for rater, *answer in zip(*(answers.frame[name] for name in names), strict=True):
        if rater in work:
            work[rater].take(*answer)
    for rater, same in alike(answers):
        if rater in work:
            work[rater].again.append(same)
    rows: list[dict[str, Any]] = [{"rater": rater, **of.row()} for rater, of in work.items()]
    return Conduct(pd.DataFrame([{**row, "left_out": _reason(answers, row)} for row in rows]))


def alike(answers: Answers) -> list[tuple[str, bool]]:
    """Return for each repeat and goal its rater, and whether it was answered as before; skips are left out."""
    names = ("rater", "item", "goal", "kind", "score")
    first: dict[tuple[str, str, str], float] = {}
    again: dict[tuple[str, str, str], float] = {}
    for rater, item, goal, kind, score in zip(*(answers.frame[name] for name in names), strict=True):
        if kind != "attention" and not math.isnan(score):
            (first if kind == "item" else again)[rater, item, goal] = score
    return [(key[0], score == first[key]) for key, score in again.items() if key in first]


def passed(scores: np.ndarray) -> np.ndarray:
    """Return whether attention checks (…, goals) are passed: a goal prefers the good answer, and none the bad one.

    scores  1 for the good answer, 0 for the bad one, ½ for a tie, NaN for a skip. A tie is honest by a goal that the
            check does not touch: nonsense does no harm.
    """
    return (scores == 1).any(-1) & (scores != 0).all(-1)


@dataclass
class _Work:
    """The work of one rater, in plain lists: pandas is slow for many small groups, and a validation reads thousands."""

    items: set[str] = field(default_factory=set)
    skipped: int = 0
    checks: dict[int, list[float]] = field(default_factory=dict)
    """By place: the scores of an attention check, one per goal that was answered."""
    for_left: list[bool] = field(default_factory=list)
    again: list[bool] = field(default_factory=list)
    seconds: dict[int, float] = field(default_factory=dict)
    """By place: a task's texts are read before its first question, and the clock starts anew at each."""

    def take(self, place: int, kind: str, item: str, choice: str, score: float, seconds: float) -> None:
        """Count one answer."""
        if not math.isnan(seconds):
            self.seconds[place] = self.seconds.get(place, 0.0) + seconds
        if kind == "attention":
            self.checks.setdefault(place, []).append(score)
        elif choice in ("left", "right"):
            self.for_left.append(choice == "left")
        if kind == "item":
            self.items.add(item)
            self.skipped += choice == "skip"

    def row(self) -> dict[str, float]:
        """Return the columns of ``Conduct.frame`` but the rater and the rule."""
        checks = [bool(passed(np.array(scores))) for scores in self.checks.values()]
        return {
            "items": len(self.items), "skipped": self.skipped, "attention": _share(checks),
            "self_agreement": _share(self.again),
            "left": _share(self.for_left) if len(self.for_left) >= _FEWEST_DECIDED else math.nan,
            "seconds": float(median(self.seconds.values())) if self.seconds else math.nan,
        }  # fmt: skip


def _share(told: Sequence[bool]) -> float:
    return sum(told) / len(told) if told else math.nan


def _reason(answers: Answers, row: Mapping[str, Any]) -> str:
    """Return the first of the plan's rules that leaves a rater out, in words; "" where none does."""
    rules = answers.study.plan.exclusions
    number = {name: float(value) for name, value in row.items() if name != "rater"}
    side = max(number["left"], 1 - number["left"])
    if number["items"] < rules.items:
        return f"answered {number['items']:.0f} items, fewer than {rules.items}"
    if number["attention"] < rules.attention:
        return f"passed {number['attention']:.0%} of the attention checks, less than {rules.attention:.0%}"
    if number["self_agreement"] < rules.self_agreement:
        return f"answered {number['self_agreement']:.0%} of the repeats alike, less than {rules.self_agreement:.0%}"
    if side > rules.one_side:
        return f"chose one side in {side:.0%} of the decided answers, more than {rules.one_side:.0%}"
    if number["seconds"] < rules.seconds:
        return f"took {number['seconds']:.1f} s per task, less than {rules.seconds:.1f} s"
    return ""
