"""Where an effect lies beyond its margin: a condition chosen on one half of the worlds, confirmed on the other half."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from gradlab.arrays import real_array
from gradlab.stats.equivalence import ALPHA, Array, mean_of
from gradlab.stats.population import Units, judge_units

Term = tuple[str, str, object]
FEWEST = 3  # worlds on each side, and within a condition, below which none is chosen or confirmed


@dataclass(frozen=True)
class Condition:
    """A condition on worlds' factors, such as "mask ≥ 0.2 and policy is free": one or two terms that must all hold.

    terms  (factor, relation, value); the relations are ≥ and ≤ for numbers, "is" and "is not" for names.
    """

    terms: tuple[Term, ...]

    @property
    def words(self) -> str:
        """Return the condition in words."""
        return " and ".join(
            f"{factor} {relation} {value:.3g}" if isinstance(value, float) else f"{factor} {relation} {value}"
            for factor, relation, value in self.terms
        )

    def holds(self, factors: pd.DataFrame) -> Array:
        """Return in which worlds the condition holds, (worlds,) bool; nowhere where a factor is missing."""
        return np.logical_and.reduce([_holds(term, factors[term[0]]) for term in self.terms])


@dataclass(frozen=True)
class Search:
    """A condition with what it was chosen for and what became of it.

    condition   the chosen one; None where no condition separates the worlds.
    searched    how many conditions were tried; 0 where fewer than three worlds of the choosing half are ``for``, or
                fewer than three reversed.
    confirmed   in the other half the worlds within the condition lie beyond the margin on average (one-sided t test
                over worlds at 5%), and none of them is reversed.
    effect, low, high  the average of those worlds with its 95% t interval over worlds; NaN without two of them.
    worlds      how many they are.
    undecided   numbers of the choosing half's rows that are neither ``for`` nor reversed: they did not influence the
                choice.
    """

    condition: Condition | None
    searched: int
    confirmed: bool
    effect: float
    low: float
    high: float
    worlds: int
    undecided: tuple[int, ...]


def halves(seeds: ArrayLike) -> tuple[Array, Array]:
    """Return which worlds choose and which confirm, (worlds,) bool each: every other one in the order of their seeds.

    seeds  the number that drew each world, (worlds,), each once. Worlds are halved and not the seeds within a world:
           else a condition that fits the worlds at hand by luck would meet the same luck again.
    """
    seeds = np.asarray(seeds)
    if seeds.ndim != 1 or len(np.unique(seeds)) != len(seeds):
        raise ValueError(f"seeds must be one per world, each once, got shape {seeds.shape} with "
                         f"{len(np.unique(seeds))} different")  # fmt: skip
    chooses = np.zeros(len(seeds), bool)
    chooses[np.argsort(seeds)[::2]] = True
    return chooses, ~chooses


def search_condition(
    differences: ArrayLike, factors: pd.DataFrame, seeds: ArrayLike, margin: float, names: Sequence[str]
) -> Search:
    """Search the condition under which effects lie beyond the margin; choose it on one half, confirm it on the other.

    differences  (worlds, seeds), as in ``population``.
    factors      a row per world, with the columns ``names``.
    seeds        the number that drew each world, (worlds,).

    Vocabulary. A condition is one term, or two terms on different factors that must both hold. The terms on a factor
    are made of its values in the choosing half. Of a number with at most ten values: ≥ each value but the least, and ≤
    each but the greatest. Of a number with more: the same for its deciles and both ends instead of its values (NumPy's
    ``quantile`` with the method "nearest"), so at most 20 terms. Of a name with two values: "is" each of them; with
    more, "is not" each as well. All terms and all such pairs are tried; ``searched`` is their number.

    Choice. Only two kinds of worlds of the choosing half take part: those that are ``for``, and those that are
    ``reversed``, at least three of each. Worlds that are undecided, or within the margin, and not reversed have no
    influence on the choice. A condition qualifies if it holds in no reversed world, and in at least half of the worlds
    that are ``for``, three or more. A qualified term wins over any pair of terms; then the one that holds in most
    worlds that are ``for``; then the first in the order of the names, ≥ before ≤ and from the least value up.
    """
    values = real_array("differences", differences)
    missing = [name for name in names if name not in factors]
    if missing or len(factors) != len(values) or len(np.asarray(seeds)) != len(values):
        raise ValueError(f"factors and seeds must have a row per world, {len(values)}, got {len(factors)} and "
                         f"{len(np.asarray(seeds))}{', without ' + ', '.join(missing) if missing else ''}")  # fmt: skip
    chooses, confirms = halves(seeds)
    units = judge_units(values[chooses], margin)
    undecided = np.flatnonzero(chooses)[(units.state != "for") & ~units.reversed]
    condition, searched = _choose(units, factors[chooses], names)
    inside = np.zeros(0, int) if condition is None else np.flatnonzero(confirms)[condition.holds(factors[confirms])]
    if condition is None or len(inside) < FEWEST:
        return Search(condition, searched, False, np.nan, np.nan, np.nan, len(inside), tuple(map(int, undecided)))
    mean = mean_of(mean_of(values[inside]).effect)
    beyond = bool(mean.p_above(margin) <= ALPHA) and not judge_units(values[inside], margin).reversed.any()
    effect, low, high = (float(number) for number in (mean.effect, *mean.interval()))
    return Search(condition, searched, beyond, effect, low, high, len(inside), tuple(map(int, undecided)))


def _choose(units: Units, factors: pd.DataFrame, names: Sequence[str]) -> tuple[Condition | None, int]:
    """Return the condition that separates worlds beyond the margin from reversed ones, and how many were tried.

    Conditions of one term come first, then pairs of terms on different factors, in the order of the names.
    """
    terms = [term for name in names for term in _terms(factors[name])]
    inside = np.array([_holds(term, factors[term[0]]) for term in terms], bool).reshape(len(terms), len(factors))
    first, second = np.triu_indices(len(terms), 1)
    apart = np.array([terms[one][0] != terms[other][0] for one, other in zip(first, second, strict=True)], bool)
    first, second = first[apart], second[apart]
    searched = len(terms) + len(first)
    beyond = units.state == "for"
    if min(beyond.sum(), units.reversed.sum()) < FEWEST:
        return None, 0
    least = max(FEWEST, int(np.ceil(beyond.sum() / 2)))
    for conditions, holds in (
        ([(one,) for one in range(len(terms))], inside),
        (list(zip(first, second, strict=True)), inside[first] & inside[second]),
    ):
        held = np.where((holds & units.reversed).any(1), 0, (holds & beyond).sum(1))
        if len(held) and held.max() >= least:
            return Condition(tuple(terms[term] for term in conditions[int(held.argmax())])), searched
    return None, searched


def _holds(term: Term, column: pd.Series) -> Array:
    """Return in which worlds a term holds, (worlds,) bool; nowhere where the factor is missing."""
    _, relation, value = term
    if relation in ("≥", "≤"):
        numbers = column.to_numpy(float, na_value=np.nan)
        return numbers >= value if relation == "≥" else numbers <= value
    return column.notna().to_numpy() & ((column.to_numpy() == value) == (relation == "is"))


def _terms(column: pd.Series) -> Sequence[Term]:
    """Return the terms on one factor: ≥ and ≤ at most ten values of a number, is and is not each value of a name."""
    name, values = str(column.name), np.unique(column.dropna().to_numpy())
    if len(values) < 2:
        return []
    if pd.api.types.is_numeric_dtype(column):
        if len(values) > 10:  # where a factor is drawn, its deciles
            values = np.unique(np.quantile(column.dropna(), np.linspace(0, 1, 11), method="nearest"))
        above = [(name, "≥", float(value)) for value in values[1:]]
        return above + [(name, "≤", float(value)) for value in values[:-1]]
    terms = [(name, "is", value) for value in values]
    return terms + ([(name, "is not", value) for value in values] if len(values) > 2 else [])
