"""Preference rates with Wilson's interval, and how far raters agree, from a frame of answers.

A frame of answers has a row per answer, with the columns ``rater``, ``item`` and ``score``: 1 where the second of two
systems is preferred, 0 where the first is, ½ for a tie, NaN for a skip.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import pandas as pd

from gradlab.arrays import check_columns
from gradlab.checks import between, count

LEVEL = 0.95
_COLUMNS = ("rater", "item", "score")
ALL = "all raters"  # the last row of the rates; no rater's name


@dataclass(frozen=True)
class Agreement:
    """A measure of how often raters answer alike where two or more have rated an item; skips are no answers."""

    items: int
    """Items that two or more have rated."""
    raw: float
    """Share of equal answers in all pairs of answers to one item."""
    alpha: float
    """Krippendorff's α for the nominal answers A, B and tie: 1 is perfect, 0 is chance. NaN where no answer differs."""


def preference_rates(answers: pd.DataFrame) -> pd.DataFrame:
    """Return how often B is preferred to A: a row per rater, by name, then ``all raters`` where there are several.

    Columns: ``rater``; ``items`` rated, without skips; ``a``, ``b``, ``tie``, ``skip`` (numbers of answers); ``rate``,
    the mean over items of the item's mean score, in which a tie counts ½; ``low`` and ``high``, its 95% Wilson interval
    with the number of items as the number of trials. With ties, and with several raters of an item, an item varies
    less than a coin does: the interval is then rather too wide than too narrow.
    """
    check_columns("answers", answers, _COLUMNS)
    groups = [(str(rater), part) for rater, part in answers.groupby("rater")]
    groups += [(ALL, answers)] if len(groups) > 1 else []
    rows = [{"rater": rater, **_rate(part)} for rater, part in groups]
    return pd.DataFrame(rows, columns=["rater", "items", "a", "b", "tie", "skip", "rate", "low", "high"])


def wilson_interval(rate: float, number: int) -> tuple[float, float]:
    """Return Wilson's 95% interval of a share, ``rate`` in ``number`` trials; NaN without any. Source: Wilson 1927.

    With z = 1.96 its ends are (rate + z²/2n ± z √(rate (1 − rate)/n + z²/4n²))/(1 + z²/n). ``rate`` · ``number`` need
    not be whole, since ties count ½.
    """
    if count("number", number) == 0:
        return (math.nan, math.nan)
    between("rate", rate, 0, 1)
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    spread = z * math.sqrt(rate * (1 - rate) / number + z**2 / (4 * number**2))
    centre, scale = rate + z**2 / (2 * number), 1 + z**2 / number
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def agreement(answers: pd.DataFrame) -> Agreement:
    """Return raw agreement and Krippendorff's α over the items that two or more raters have answered.

    ValueError where a rater has answered an item twice.
    """
    check_columns("answers", answers, _COLUMNS)
    twice = answers[answers.duplicated(["rater", "item"])]
    if len(twice):
        rater, item = twice.iloc[0][["rater", "item"]]
        raise ValueError(f"answers must have one row per rater and item, got two of {rater!r} to {item!r}")
    counts = answers.groupby(["item", "score"]).size().unstack(fill_value=0)  # (items, scores): how many gave it
    counts = counts[counts.sum(axis=1) > 1]
    answered = counts.sum(axis=1)
    pairs, equal = (answered * (answered - 1)).sum(), (counts * (counts - 1)).to_numpy().sum()
    alpha = krippendorff_alpha(answers.pivot(index="rater", columns="item", values="score"))
    return Agreement(len(counts), float(equal / pairs) if pairs else math.nan, alpha)


def krippendorff_alpha(ratings: pd.DataFrame) -> float:
    """Return Krippendorff's nominal α of ``ratings``, (raters, items) with NaN where there is none.

    NaN where no item has two ratings, or where all ratings of such items are equal, so that chance cannot be told from
    agreement. Needs the extra ``lab``. Source: Krippendorff 2011, *Computing Krippendorff's Alpha-Reliability*.
    """
    shared = ratings.loc[:, ratings.notna().sum() > 1]
    if pd.Series(shared.to_numpy().ravel()).nunique() < 2:
        return math.nan
    import evalica  # half a second, which a rater alone need not wait for

    return float(evalica.alpha(shared).alpha)


def _rate(answers: pd.DataFrame) -> dict[str, float]:
    """Return one row of ``preference_rates``, without the rater."""
    score = answers["score"]
    by_item = answers.groupby("item")["score"].mean().dropna()
    rate = float(by_item.mean()) if len(by_item) else math.nan
    low, high = wilson_interval(rate, len(by_item))
    counts = {name: int((score == value).sum()) for name, value in (("a", 0.0), ("b", 1.0), ("tie", 0.5))}
    return {
        "items": len(by_item), **counts, "skip": int(score.isna().sum()), "rate": rate, "low": low, "high": high,
    }  # fmt: skip
