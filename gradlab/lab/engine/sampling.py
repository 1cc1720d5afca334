"""A sampler inside the kernel: densities of single responses, from which the weight of each pair follows.

Every so many steps the densities and their factors are written anew from the current policy; every step weighs its
pairs by products of densities. A sampler is not written a second time: its ``terms`` say which densities these are.
Only laws that are no such sum have code here, and ``examine`` compares that with the sampler.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Literal

from gradlab.lab.engine.functions import clamp, exp, maximum
from gradlab.lab.engine.trace import NotFusable
from gradlab.lab.engine.vectors import Array, Kind, Value
from gradlab.lab.samplers import WPO, BestWorst, Importance, Sampler, Side, TopK, sampler_of

# The further arguments of a kernel whose pairs or reference follow the policy.
ARGUMENTS: dict[str, Kind] = {
    "sampler_every": "integer",
    "reference_every": "integer",
    "law": "scalars",  # numbers of the sampler, as ``rule_of`` returns them
    "utility": "rows",  # u
    "comparable": "rows",  # pairs: 1 for a pair that can be in data, else 0
    "density": "rows",  # densities × responses; kept from call to call
    "chance": "rows",  # pairs: weights of best against worst, in place of densities; the same
    "factor": "rows",  # of each term; the same
}

# Exponents of densities are cut at ± this, so that every product of two keeps its full precision.
_REACH = {"float64": 340.0, "float32": 34.0}
# Where the data have less than this share of the pairs that the sampler would draw, such a cut might matter; or the
# chances of best against worst, which know no cut, might be too small for their full precision.
_LEAST = {"float64": 1e-70, "float32": 1e-7}
_LEAST_CHANCE = {"float64": 1e-250, "float32": 1e-30}

Masses = tuple[Value, Value, Value, Value]

_TOTALS: dict[str, Literal["data", "mean", "limited mean"]] = {
    "self-normalised": "data", "plain": "mean", "clipped": "limited mean",
}  # fmt: skip


@dataclass(frozen=True)
class Rule:
    """All that the code of a sampler depends on, except its numbers.

    terms  of a sampler that is a sum: which of log π, log π_ref and u its sides read, one side where both are alike,
           and none where all responses are; and whether it has a share of the whole.
    top    True if only the most probable responses are seen.
    draws  of best against worst; else 0.
    total  what weights are divided by: their sum over the data; 1; (Σ π²)², as in WPO; or their mean over all
           comparable pairs, and then perhaps limited.
    """

    terms: tuple[tuple[tuple[tuple[bool, ...], ...], bool], ...] = ()
    top: bool = False
    draws: int = 0
    total: Literal["data", "one", "aligned", "mean", "limited mean"] = "data"

    @property
    def densities(self) -> int:
        """The numbers per response that are kept."""
        return sum(len(sides) for sides, _ in self.terms)

    @property
    def factors(self) -> int:
        """The numbers per column that are kept."""
        return max(len(self.terms), 1)

    @property
    def mean(self) -> bool:
        """True where comparable pairs that are not in the data count, too."""
        return self.total in ("mean", "limited mean")


def rule_of(sampler: Sampler) -> tuple[Rule, tuple[float, ...]]:
    """Return a sampler's rule and its numbers, in the order in which the code reads them.

    Raises NotFusable for a sampler that is no sum of ``terms``, unless its law has code here.
    """
    kind = type(sampler)
    if type(sampler) is Importance:
        rule, numbers = rule_of(sampler_of(sampler.sampler))
        rule = replace(rule, total=_TOTALS[sampler.how])
        return rule, (sampler.clip, *numbers) if rule.total == "limited mean" else numbers
    if type(sampler) is BestWorst:
        return Rule(draws=sampler.draws), ()
    if kind is WPO:
        return Rule((((_read_by(Side(1.0)),), False),), total="aligned"), (1.0,)
    top = (float(sampler.k),) if type(sampler) is TopK else ()
    known = kind.pairs is Sampler.pairs and kind.reweighted is Sampler.reweighted and (top or kind.cut is Sampler.cut)
    if not known or sampler.terms is None:
        raise NotFusable(f"the engine does not know the law of its sampler, {sampler}")
    terms, numbers = [], []
    for first, second, share in sampler.terms:
        sides = [] if not any(first + second) else [first] if first == second else [first, second]
        terms.append((tuple(map(_read_by, sides)), share is not None))
        numbers += [number for side in sides for number in side if number] + ([] if share is None else [share])
    return Rule(tuple(terms), bool(top), total="data" if sampler.normalised else "one"), (*numbers, *top)


def _read_by(side: Side) -> tuple[bool, ...]:
    return tuple(number != 0 for number in side)


# --- every so many steps ---


def refresh(at: SimpleNamespace) -> None:
    """Write densities and factors from ``logp``, ``prob``, ``reference`` and ``utility``."""
    rule: Rule = at.plan.rule
    if rule.draws:
        _write_best_worst(at, rule.draws)
    else:
        _write_terms(at, rule)
    if rule.total == "aligned":
        squares = at.cell(0.0)
        with at.loop(at.responses) as response:
            squares[0] = at.prob[response].times_plus(at.prob[response], squares[0])
        at.factor[0] = at.factor[0] * 0.5 / (squares[0] * squares[0])  # both orders are in the factor
    if rule.mean:
        _divide_by_mean(at, rule)


def _write_terms(at: SimpleNamespace, rule: Rule) -> None:
    """Write the densities of all terms, each on a scale of its own, and the factors that make up for these."""
    numbers = (at.law[place] for place in itertools.count(int(rule.total == "limited mean")))
    peaks: dict[int, Value] = {}  # of terms without a share: the largest exponent of a pair
    for number, columns in enumerate(_columns(at, rule)):
        sides, shared = rule.terms[number]
        given = [[next(numbers) if read else None for read in side] for side in sides]
        share, most = (next(numbers) if has else None for has in (shared, rule.top))
        centres, fits = _write_exponents(at, given, columns, most)
        total = _exponentiate(at, columns, centres, rule.top)
        orders = 1.0 if len(columns) == 2 else 2.0  # of unequal sides, both orders are added up
        at.factor[number] = fits * orders if share is None else fits * share / total
        if share is None:
            peaks[number] = centres[0] + centres[-1]
    scale_matters = rule.total in ("one", "aligned")
    for number, peak in peaks.items():
        above = peak if scale_matters else peak - functools.reduce(maximum, peaks.values())
        at.factor[number] = at.factor[number] * exp(above)


def _columns(at: SimpleNamespace, rule: Rule) -> Iterator[list[Array]]:
    """Yield the densities of each term, one row per response and side."""
    place = 0
    for sides, _ in rule.terms:
        yield [at.density.begin(at.responses * (place + side)) for side in range(len(sides))]
        place += len(sides)


def _write_exponents(
    at: SimpleNamespace, sides: Sequence[Sequence[Value | None]], columns: Sequence[Array], most: Value | None
) -> tuple[list[Value], Value]:
    """Write the log-densities of a term, −∞ for a response out of the ``most`` probable ones.

    Return what to subtract from each side's, so that the likeliest pair has 0, and 1, or NaN where that is too much:
    where one response is far ahead of all others on both sides.
    """
    nothing = at.cell(0.0)[0]
    if not columns:
        return [nothing], nothing + 1.0
    largest, pair = [at.cell(-math.inf) for _ in columns], at.cell(-math.inf)
    with at.loop(at.responses) as response:
        read = at.logp[response], at.reference[response], at.utility[response]
        for side, column in zip(sides, columns, strict=True):
            products = [number * value for number, value in zip(side, read, strict=True) if number is not None]
            value = functools.reduce(lambda one, other: one + other, products, nothing)
            column[response] = value if most is None else (_rank(at, response) < most).where(value, -math.inf)
        values = [column[response] for column in columns]
        partners = [values[0] + largest[-1][0], values[-1] + largest[0][0]][: len(columns)]
        pair[0] = functools.reduce(maximum, partners, pair[0])
        for value, reached in zip(values, largest, strict=True):
            reached[0] = maximum(reached[0], value)
    beyond = largest[0][0] + largest[-1][0] - pair[0]
    centre = largest[0][0] - beyond * 0.5
    return [centre, pair[0] - centre][: len(columns)], (beyond < _REACH[at.plan.dtype] / 2).where(1.0, math.nan)


def _rank(at: SimpleNamespace, response: Value) -> Value:
    """Return how many responses are more probable than this one."""
    rank = at.cell(0.0)
    with at.loop(at.responses) as other:
        rank[0] = rank[0] + (at.logp[other] > at.logp[response]).where(1.0, 0.0)
    return rank[0]


def _exponentiate(at: SimpleNamespace, columns: Sequence[Array], centres: Sequence[Value], cut: bool) -> Value:
    """Turn log-densities into densities; return the sum of the products of both sides over all pairs of responses.

    Only positive numbers are added up, which loses no digits.
    """
    reach, total = _REACH[at.plan.dtype], at.cell(0.0)
    before = [at.cell(0.0) for _ in columns or centres]
    with at.loop(at.responses) as response:
        for column, centre in zip(columns, centres, strict=False):
            exponent = column[response]
            density = exp(clamp(exponent - centre, -reach, reach))
            column[response] = (exponent > -math.inf).where(density, 0.0) if cut else density
        values = [column[response] for column in columns] or [at.cell(1.0)[0]]
        for value, others in list(zip(values, before[::-1], strict=True)):
            total[0] = value.times_plus(others[0], total[0])
        for value, reached in zip(values, before, strict=True):
            reached[0] = reached[0] + value
    return total[0]


def _divide_by_mean(at: SimpleNamespace, rule: Rule) -> None:
    """Divide all factors by the mean weight of comparable pairs."""
    total, count = at.cell(0.0), at.cell(0.0)
    with at.loop(at.responses) as first:
        weight = _weigher(at, first)
        with at.loop(at.partners[first + 1], start=at.partners[first]) as pair:
            present = at.comparable[pair]
            total[0] = present.times_plus(weight(at.partner[pair], pair), total[0])
            count[0] = count[0] + present
    for number in range(rule.factors):
        at.factor[number] = at.factor[number] * count[0] / total[0]


# --- every step ---


class Seen:
    """The weights of all pairs in one step, as code, and their sum over the data."""

    def __init__(self, at: SimpleNamespace) -> None:
        self._at, self._total = at, at.cell(0.0)

    def weigher(self, first: Value) -> Callable[[Value, Value], tuple[Value, Value]]:
        """Return a function of another response and the pair's number to the weights of both orders in this step."""
        at, rule, weigh = self._at, self._at.plan.rule, _weigher(self._at, first)

        def weigh_data(other: Value, pair: Value) -> tuple[Value, Value]:
            weight = weigh(other, pair)
            if rule.total == "limited mean":
                weight = clamp(weight, most=at.law[0])
            won, lost = (weight * at.weight[pair * 2 + order] for order in range(2))
            self._total[0] = self._total[0] + (won if at.plan.antisymmetric else won + lost)
            return won, lost

        return weigh_data

    def scale(self) -> Value:
        """Return by what the slopes of the pairs are to be multiplied; NaN where no pair has any weight."""
        total, rule = self._total[0], self._at.plan.rule
        divided = rule.total == "data"
        least = (_LEAST_CHANCE if rule.draws else _LEAST)[self._at.plan.dtype] if divided else 0.0
        return (total > least).where(1.0 / total if divided else 1.0, math.nan)


def _weigher(at: SimpleNamespace, first: Value) -> Callable[[Value, Value], Value]:
    """Return a function of another response and the pair's number to the weight of the pair, before any total."""
    rule: Rule = at.plan.rule
    if rule.draws:
        return lambda other, pair: at.factor[0] * at.chance[pair]
    even, products = [], []
    for number, columns in enumerate(_columns(at, rule)):
        factor = at.factor[number]
        even += [] if columns else [factor]
        products += [(factor * own[first], other) for own, other in zip(columns, columns[::-1], strict=True)]

    def weight(other: Value, pair: Value) -> Value:
        start = functools.reduce(lambda one, more: one + more, even, at.cell(0.0)[0])
        return functools.reduce(lambda total, part: part[0].times_plus(part[1][other], total), products, start)

    return weight


# --- best against worst ---


def _write_best_worst(at: SimpleNamespace, draws: int) -> None:
    """Write the chance of each pair; all pairs are listed, and responses are in the order of utility.

    All draws are of the two responses and of those between. Their number is doubled, and one added, without any
    difference of two numbers.
    """
    at.factor[0] = at.cell(1.0)[0]
    with at.loop(at.responses) as first:
        better, between = at.prob[first], at.cell(0.0)
        with at.loop(at.partners[first + 1], start=at.partners[first]) as pair:
            worse, inside = at.prob[at.partner[pair]], between[0]
            # The masses of one draw: both responses occur, one without the other, neither.
            masses = None, better, worse, inside
            for digit in f"{draws:b}"[1:]:
                masses = _doubled(*masses)
                masses = _and_one(masses, better, worse, inside) if digit == "1" else masses
            at.chance[pair] = masses[0]
            between[0] = inside + worse


def _and_one(masses: Masses, better: Value, worse: Value, inside: Value) -> Masses:
    """Return the masses of one more draw."""
    both, one, two, none = masses
    return (
        (better + worse + inside) * both + (worse * one + better * two),
        (better + inside) * one + better * none,
        (worse + inside) * two + worse * none,
        none * inside,
    )


def _doubled(both: Value | None, one: Value, two: Value, none: Value) -> Masses:
    """Return the masses of twice as many draws: both responses occur, one without the other, neither."""
    products = one * two * 2.0
    if both is not None:
        products = products + both * (both + (one + two + none) * 2.0)
    return products, one * (one + none * 2.0), two * (two + none * 2.0), none * none
