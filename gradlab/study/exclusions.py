"""Which raters' answers are left out, by the rules of the plan; the result with and without them is reported."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from gradlab.study.answers import Answers

_FEWEST_DECIDED = 10  # answers for one side or the other, below which a leaning to a side is not judged


@dataclass(frozen=True)
class Conduct:
    """How the raters worked, and whom the plan's rules leave out.

    frame  a row per rater: ``items`` answered (skips too), ``skipped``, ``attention`` (share of checks passed),
           ``self_agreement`` (share of repeats answered as before), ``left`` (share of decided answers for the left
           side), ``seconds`` (median per answer), ``left_out`` (the rule, or ""). NaN where there is nothing to count.
    """

    frame: pd.DataFrame

    @property
    def out(self) -> list[str]:
        """Return the raters who are left out."""
        return list(self.frame.loc[self.frame["left_out"] != "", "rater"])


def conduct(answers: Answers) -> Conduct:
    """Return how each rater of the plan worked; judges that are models are no raters here."""
    rows = [_row(answers, rater) for rater in answers.study.plan.raters]
    return Conduct(pd.DataFrame(rows))


def alike(answers: Answers, rater: str) -> pd.Series:
    """Return for each repeat of a rater and goal whether it was answered as before; skips are left out."""
    of_rater = answers.frame[answers.frame["rater"] == rater]
    first = of_rater[of_rater["kind"] == "item"].set_index(["item", "goal"])["score"]
    again = of_rater[of_rater["kind"] == "repeat"].set_index(["item", "goal"])["score"]
    both = pd.DataFrame({"first": first, "again": again}).dropna()
    return both["first"] == both["again"]


def _row(answers: Answers, rater: str) -> dict[str, object]:
    of_rater = answers.frame[answers.frame["rater"] == rater]
    items = of_rater[of_rater["kind"] == "item"]
    decided = of_rater[of_rater["choice"].isin(["left", "right"]) & (of_rater["kind"] != "attention")]
    checks = of_rater.loc[of_rater["kind"] == "attention", "score"]
    row: dict[str, object] = {
        "rater": rater,
        "items": items["item"].nunique(),
        "skipped": int((items["choice"] == "skip").sum()),
        "attention": float((checks == 1).mean()) if len(checks) else math.nan,
        "self_agreement": float(same.mean()) if len(same := alike(answers, rater)) else math.nan,
        "left": float((decided["choice"] == "left").mean()) if len(decided) >= _FEWEST_DECIDED else math.nan,
        "seconds": float(of_rater["seconds"].median()),
    }
    return {**row, "left_out": _reason(answers, row)}


def _reason(answers: Answers, row: dict[str, object]) -> str:
    """Return the first of the plan's rules that leaves a rater out, in words; "" where none does."""
    rules = answers.study.plan.exclusions
    number = {name: float(value) for name, value in row.items() if name != "rater"}  # type: ignore[arg-type]
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
        return f"took {number['seconds']:.1f} s per answer, less than {rules.seconds:.1f} s"
    return ""
