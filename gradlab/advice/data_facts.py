"""Facts of preference pairs that need no model: how many there are, how often labels disagree, lengths, likeness."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np

from gradlab.stats.agreement import wilson_interval

ALIKE = 0.8  # two responses are nearly alike where so many of their words, counted once, are common. Ours.
REPEATS = 20  # comparisons of one question by two labels from which the disagreement is estimated. Ours.


class TextPair(Protocol):
    """A pair as texts, such as ``gradlab.llm.data.pairs.Pair``."""

    @property
    def prompt(self) -> object: ...  # noqa: D102

    @property
    def chosen(self) -> str: ...  # noqa: D102

    @property
    def rejected(self) -> str: ...  # noqa: D102


class Share(NamedTuple):
    """A share with its 95% Wilson interval."""

    share: float
    low: float
    high: float

    @classmethod
    def of(cls, count: float, number: int) -> Share:
        """Return the share ``count`` of ``number`` ≥ 1."""
        return cls(count / number, *wilson_interval(count / number, number))

    def __str__(self) -> str:
        return f"{self.share:.1%} [{self.low:.1%}, {self.high:.1%}]"


@dataclass(frozen=True)
class DataFacts:
    """The facts of a data set.

    pairs, prompts  how many pairs, and how many different prompts.
    repeated        how many comparisons there are of two labels of one question: the same prompt and two responses.
    disagreement    the share of these in which the two labels disagree; None with fewer than ``REPEATS``.
    shorter         the share of pairs whose winner is the shorter response in characters, ties ½.
    length_spread   the standard deviation of log L_w/L_l in characters.
    alike           the share of pairs whose responses are nearly alike, see ``ALIKE``.
    """

    pairs: int
    prompts: int
    repeated: int
    disagreement: Share | None
    shorter: Share
    length_spread: float
    alike: Share

    @property
    def per_prompt(self) -> float:
        """Return the mean number of pairs per prompt."""
        return self.pairs / self.prompts


def facts_of_pairs(pairs: Sequence[TextPair]) -> DataFacts:
    """Return the facts of these pairs; ValueError for none."""
    if not pairs:
        raise ValueError("pairs must hold one pair or more, got none")
    questions: dict[tuple[str, frozenset[str]], list[str]] = defaultdict(list)
    for pair in pairs:
        questions[str(pair.prompt), frozenset((pair.chosen, pair.rejected))].append(pair.chosen)
    repeated, disagreed = _disagreements(questions.values())
    lengths = np.array([(max(len(pair.chosen), 1), max(len(pair.rejected), 1)) for pair in pairs], float)
    win, lose = lengths.T
    return DataFacts(
        pairs=len(pairs),
        prompts=len({str(pair.prompt) for pair in pairs}),
        repeated=repeated,
        disagreement=Share.of(disagreed, repeated) if repeated >= REPEATS else None,
        shorter=Share.of(float(((win < lose) + 0.5 * (win == lose)).sum()), len(pairs)),
        length_spread=float(np.log(win / lose).std()),
        alike=Share.of(sum(_likeness(pair.chosen, pair.rejected) >= ALIKE for pair in pairs), len(pairs)),
    )


def _disagreements(questions: Iterable[Sequence[str]]) -> tuple[int, int]:
    """Return how many comparisons of two labels of one question there are, and in how many the labels disagree.

    The labels of a question are compared one after the other, so that each label counts in two comparisons at most.
    """
    number = disagreed = 0
    for labels in questions:
        number += len(labels) - 1
        disagreed += sum(label != following for label, following in pairwise(labels))
    return number, disagreed


def _likeness(text: str, other: str) -> float:
    """Return the share of common words among all words of two texts, each counted once; 1 for two empty texts."""
    first, second = set(text.split()), set(other.split())
    return len(first & second) / len(first | second) if first | second else 1.0


def flip_rate(disagreement: float) -> float:
    """Return ε if labels are flipped independently with probability ε: two disagree in 2ε(1 − ε) of the cases."""
    return 0.5 * (1 - math.sqrt(max(1 - 2 * disagreement, 0.0)))
