"""Predictions that were written down before the first run, and the rule that marks each: held, failed or undecided."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import pandas as pd

Word = Literal["held", "failed", "undecided"]
WORDS: tuple[Word, ...] = get_args(Word)


@dataclass(frozen=True)
class Outcome:
    """How a prediction came out.

    word     ``held``, ``failed`` or ``undecided``.
    because  the numbers that say so, in words.
    """

    word: Word
    because: str

    def __post_init__(self) -> None:
        """Raise ValueError for another word."""
        if self.word not in WORDS:
            raise ValueError(f"word must be one of {', '.join(WORDS)}, got {self.word!r}")


@dataclass(frozen=True)
class Prediction:
    """A sentence on an experiment's frame that can turn out to be false.

    text   the sentence, as it was written down before the first run.
    check  marks it, given the experiment's whole frame.
    added  empty, or when and why the sentence or its rule was added or changed after the first results.
    """

    text: str
    check: Callable[[pd.DataFrame], Outcome]
    added: str = ""


def by_interval(
    low: float, high: float, because: str, *, least: float = -math.inf, most: float = math.inf
) -> Outcome:  # fmt: skip
    """Mark a prediction that a number lies between ``least`` and ``most``, ends included, by its interval.

    low, high  the ends of the number's interval; of a number without noise, the number twice.
    because    the number with its interval, in words.

    It has held where the whole interval lies there, and failed where no part of it does. Otherwise, and where an end is
    NaN, it is undecided.
    """
    if least <= low <= high <= most:
        return Outcome("held", because)
    return Outcome("failed" if low > most or high < least else "undecided", because)
