"""In how many runs something happens, and in how many more with one method than with another: few runs, exact limits.

A run counts once, however often it happens there: repeats within a run are no further evidence. Runs of two methods are
taken as independent; runs that share a seed are rather alike, which makes the interval too wide, not too narrow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gradlab.checks import count, positive
from gradlab.stats.equivalence import LEVEL
from gradlab.stats.precision import MOST


@dataclass(frozen=True)
class Count:
    """A number of ``hits`` among ``runs`` ≥ 1."""

    hits: int
    runs: int

    def __post_init__(self) -> None:
        count("hits", self.hits, most=count("runs", self.runs, least=1))

    @property
    def share(self) -> float:
        """Return the share of runs."""
        return self.hits / self.runs

    def interval(self) -> tuple[float, float]:
        """Return the 95% interval of the share. Source: Clopper & Pearson 1934."""
        from scipy.stats import binomtest  # seconds to import, for which a reader of other rules need not wait

        found = binomtest(self.hits, self.runs).proportion_ci(confidence_level=LEVEL, method="exact")
        return float(found.low), float(found.high)


def difference_of_shares(ours: Count, theirs: Count) -> tuple[float, float]:
    """Return the 95% interval of the share of ours minus that of theirs.

    Both shares' exact limits are squared and added, as Newcombe (1998, method 10) does with Wilson's limits: with
    l ≤ p ≤ u for each, low = p₁ − p₂ − √((p₁ − l₁)² + (u₂ − p₂)²), and high likewise. So the interval has a width where
    nothing has happened, or equally often. With exact limits 0 lies outside in at most 4% of equal pairs at 6 to 48
    runs each (with Wilson's in up to 7%), and 95% coverage holds on average over shares; at its worst it is 92%.
    """
    (low, high), (low_theirs, high_theirs) = ours.interval(), theirs.interval()
    difference = ours.share - theirs.share
    return (
        difference - math.hypot(ours.share - low, high_theirs - theirs.share),
        difference + math.hypot(high - ours.share, theirs.share - low_theirs),
    )


def runs_to_decide(ours: Count, theirs: Count, target: float) -> int:
    """Return how many runs of each method narrow the interval to ± ``target``, if shares stay as they are.

    A share is taken as at least half a run away from 0 and 1, as what has not happened in a few runs may in more. It
    sees no difference and no sign. At least as many as there are; ValueError where it would be more than a billion.
    """
    positive("target", target)
    fewest = min(ours.runs, theirs.runs)
    spread = sum(_inside(one) * (1 - _inside(one)) for one in (ours, theirs))
    wanted = math.ceil((1.96 / target) ** 2 * spread)
    if wanted > MOST:
        raise ValueError(f"target must be within reach of a billion runs, got {target!r}")
    return max(wanted, fewest)


def _inside(one: Count) -> float:
    return min(max(one.share, 0.5 / one.runs), 1 - 0.5 / one.runs)
