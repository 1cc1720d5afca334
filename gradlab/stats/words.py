"""The word of evidence on a population, by rule: from numbers, never from the name of what is judged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from gradlab.checks import one_of
from gradlab.stats.agreement import wilson_interval
from gradlab.stats.equivalence import ALPHA, holm
from gradlab.stats.population import Average, Transport, Units

WORDS = ("proved", "refuted", "mixed", "no practical difference", "holds throughout", "holds on average", "reversed",
         "undecided", "not run")  # fmt: skip
MIXED = 0.10  # of the population each way
THROUGHOUT = 0.95  # of the population beyond the margin
_WEAKEST_FIRST = ("not run", "refuted", "reversed", "undecided", "mixed", "no practical difference",
                  "holds on average", "holds throughout", "proved")  # fmt: skip


@dataclass(frozen=True)
class Evidence:
    """A record of what was proved or measured of one endpoint in one population.

    algebra       ``proved`` or ``refuted`` by a proof; None: a matter of measurement.
    effect        the population's mean effect; NaN where nothing was measured.
    p_differs     p-value of the two-sided t test of the mean against 0; corrected where there are co-primaries.
    p_equivalent  p-value of the mean's equivalence to 0 within the margin; corrected likewise.
    units         how many cells or worlds were measured.
    above, below  how many of them are decided to be beyond + margin, and beyond − margin.
    reversed      how many of them lie below 0 after Benjamini and Hochberg's correction.
    sampled       True: the units are worlds, a sample of the population. False: they are all of it.
    """

    algebra: Literal["proved", "refuted"] | None = None
    effect: float = np.nan
    p_differs: float = np.nan
    p_equivalent: float = np.nan
    units: int = 0
    above: int = 0
    below: int = 0
    reversed: int = 0
    sampled: bool = False


def evidence_of_cells(average: Average, units: Units) -> Evidence:
    """Return the evidence of fixed cells."""
    return _evidence(average, units, sampled=False)


def evidence_of_worlds(transport: Transport) -> Evidence:
    """Return the evidence of a sample of worlds."""
    return _evidence(transport.average, transport.units, sampled=True)


def corrected(family: Sequence[Evidence]) -> tuple[Evidence, ...]:
    """Return the evidence of a claim's co-primaries with Holm's correction over them, of each question for itself.

    There are two questions: does an effect differ from 0, and is it equivalent to 0? The two one-sided tests come
    first: an endpoint's p-value of equivalence is the larger one of both. Then Holm corrects these p-values over the
    endpoints, and those of differences likewise. Each question so errs in at most 5% of claims. Both together may err
    in up to 10%, where one endpoint's effect is 0 and another's lies at the margin. With a single endpoint only one of
    the two answers can be wrong, since one effect is not both 0 and at the margin: both together err in at most 5%.
    """
    measured = [index for index, evidence in enumerate(family) if evidence.algebra is None and evidence.units]
    differs = holm(np.array([family[index].p_differs for index in measured]))
    equivalent = holm(np.array([family[index].p_equivalent for index in measured]))
    result = list(family)
    for index, p_differs, p_equivalent in zip(measured, differs, equivalent, strict=True):
        result[index] = replace(family[index], p_differs=float(p_differs), p_equivalent=float(p_equivalent))
    return tuple(result)


def word_of(evidence: Evidence) -> str:
    """Return the word on one endpoint in one population: the first of ``WORDS`` whose rule is met.

    ``mixed`` and ``holds throughout`` speak of shares. Units that are not decided count as not beyond the margin, so a
    share is what has been shown. Of fixed cells it is the share itself that must reach the bound, of worlds the lower
    end of its 95% Wilson interval: a word about all worlds is said only where the sample shows it. Both are consistent:
    more seeds decide units, more worlds narrow the interval; until then the words are weaker, not other ones.

    proved, refuted          ``algebra``.
    mixed                    shares beyond + margin and beyond − margin of at least 10% each.
    no practical difference  p_equivalent ≤ 5%: the average is equivalent to 0 within the margin.
    holds throughout         p_differs ≤ 5% and an effect above 0; a share beyond + margin of at least 95%, and no unit
                             reversed. See ``Units``, whose intervals no co-primary corrects: so the average must.
    holds on average         p_differs ≤ 5% and an effect above 0: the interval of the average lies above 0.
    reversed                 p_differs ≤ 5% and an effect below 0.
    undecided                none of these: too few seeds or worlds, see ``precision``.
    not run                  nothing was measured.
    """
    if evidence.algebra is not None:
        return one_of("algebra", evidence.algebra, ("proved", "refuted"))
    if evidence.units == 0:
        return "not run"
    if max(evidence.above + evidence.below, evidence.reversed) > evidence.units:
        raise ValueError(f"units must be at least those above and below, got {evidence}")
    above, below = (_shown(number, evidence) for number in (evidence.above, evidence.below))
    if min(above, below) >= MIXED:
        return "mixed"
    if evidence.p_equivalent <= ALPHA:
        return "no practical difference"
    if not evidence.p_differs <= ALPHA:
        return "undecided"
    if evidence.effect <= 0:
        return "reversed"
    return "holds throughout" if above >= THROUGHOUT and not evidence.reversed else "holds on average"


def word_of_cases(above: int, none: int, below: int) -> str:
    """Return the word on declared cases without chance, of which so many are above, within and below the margin.

    mixed                    at least 10% above and at least 10% below.
    no practical difference  at least 95% within.
    holds throughout         at least 95% above, and none below.
    holds on average, reversed  more above than below, or fewer; undecided where as many.
    """
    total = above + none + below
    if total == 0:
        return "not run"
    if min(above, below) >= MIXED * total:
        return "mixed"
    if none >= THROUGHOUT * total:
        return "no practical difference"
    if above >= THROUGHOUT * total and not below:
        return "holds throughout"
    return "undecided" if above == below else "holds on average" if above > below else "reversed"


def weakest_word(words: Iterable[str]) -> str:
    """Return the weakest of some words: not run, refuted, reversed, undecided, mixed, no practical difference, ….

    Of controls that could explain an effect away, the weakest word decides: one that does as well explains it. Controls
    that were not run are removed before.
    """
    said = [one_of("word", word, WORDS) for word in words]
    if not said:
        raise ValueError("words must be at least one, got none")
    return min(said, key=_WEAKEST_FIRST.index)


def joint_word(words: Iterable[str]) -> str:
    """Return the word on co-primaries together: a claim holds only as far as each of them does.

    ``mixed`` where one holds and another is reversed; else the weakest. From weak to strong: not run, refuted,
    reversed, undecided, mixed, no practical difference, holds on average, holds throughout, proved.
    """
    said = [one_of("word", word, WORDS) for word in words]
    if not said:
        raise ValueError("words must be at least one, got none")
    if "reversed" in said and any(word.startswith("holds") for word in said) and "not run" not in said:
        return "mixed"
    return weakest_word(said)


def word_of_no_difference(words: Iterable[str], p_beyond: Iterable[float]) -> str:
    """Return the word on a claim that there is no difference, from its co-primaries.

    words     of the co-primaries, each by ``word_of``.
    p_beyond  p-values of a mean beyond the margin, either way, corrected by Holm over the co-primaries.

    not run                  a co-primary was not run.
    no practical difference  every one has this word: the claim is confirmed.
    mixed                    one is mixed: its cells lie beyond the margin on both sides.
    reversed                 p_beyond ≤ 5% of one: a difference beyond the margin, whatever its sign.
    undecided                else: a mean may differ from 0 and matter or not.
    """
    said = [one_of("word", word, WORDS) for word in words]
    if not said:
        raise ValueError("words must be at least one, got none")
    if "not run" in said:
        return "not run"
    if set(said) == {"no practical difference"}:
        return "no practical difference"
    if "mixed" in said:
        return "mixed"
    return "reversed" if any(p <= ALPHA for p in p_beyond) else "undecided"


def _evidence(average: Average, units: Units, *, sampled: bool) -> Evidence:
    return Evidence(
        effect=average.effect, p_differs=average.p_differs, p_equivalent=average.p_equivalent,
        units=len(units.state), above=units.number("for"), below=units.number("against"),
        reversed=int(units.reversed.sum()), sampled=sampled,
    )  # fmt: skip


def _shown(number: int, evidence: Evidence) -> float:
    """Return the share of the population that ``number`` of the units show."""
    share = number / evidence.units
    return wilson_interval(share, evidence.units)[0] if evidence.sampled else share
