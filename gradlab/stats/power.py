"""The power of a comparison of two methods over paired seeds, by an integral over the standard error; no data are seen.

A seed's difference of two shares spreads for two reasons: seeds differ, and each share is that of finitely many
prompts. For normal differences the mean and its standard error are independent, so the power is exact: the mean's
probability at a given error, averaged over the error's χ distribution. The split of the spread is ours.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

from scipy.integrate import quad
from scipy.special import gammaln, ndtr, stdtrit

from gradlab.checks import between, count, positive
from gradlab.stats.equivalence import ALPHA

MOST = 10_000  # seeds that are tried


def spread_of_difference(ours: float, theirs: float, prompts: int, between_seeds: float) -> float:
    """Return the standard deviation of a seed's difference of two shares of successes, over as many prompts.

    ours, theirs   the shares that are expected, in [0, 1].
    between_seeds  the standard deviation of the true differences over seeds.

    √(between_seeds² + (p(1 − p) + q(1 − q))/prompts): one answer per prompt and method, taken as independent. Several
    answers per prompt, and prompts that are hard for both methods, make it smaller, so this is on the safe side.
    """
    shares = [between(name, value, 0, 1) for name, value in (("ours", ours), ("theirs", theirs))]
    between("between_seeds", between_seeds, 0)
    sampling = sum(share * (1 - share) for share in shares) / count("prompts", prompts, 1)
    return math.sqrt(between_seeds**2 + sampling)


def power(
    effect: float, spread: float, seeds: int, *, bound: float = 0.0, alpha: float = ALPHA, differs: float = 1.0
) -> float:
    """Return how likely a mean over paired seeds lies beyond ``bound`` ≥ 0 by its interval, and differs from 0.

    effect   the true mean. spread: the standard deviation of one seed's difference, > 0.
    alpha    of the t interval, two-sided: its lower end must lie above ``bound``.
    differs  the p-value of the two-sided t test against 0 must be at most this; 1 asks for the interval alone. With k
             co-primaries, 5%/k is Holm's first step, the one where the others show nothing.

    The average of P(mean > max(bound + t(1 − alpha/2) s, t(1 − differs/2) s)) over the standard error s.
    """
    freedom = count("seeds", seeds, 2) - 1
    between("bound", bound, 0)
    for name, value in (("alpha", alpha), ("differs", differs)):
        between(name, value, 0, 1, open_low=True)
    beyond, needed = (-float(stdtrit(freedom, value / 2)) for value in (alpha, differs))
    true = positive("spread", spread) / math.sqrt(seeds)

    def shown(error: float) -> float:
        return float(ndtr((effect - max(bound + beyond * error, needed * error)) / true))

    edge = bound / (needed - beyond) if needed > beyond else math.inf
    return _over_errors(shown, true, freedom, edge)


def power_of_equivalence(effect: float, spread: float, seeds: int, *, margin: float, alpha: float = ALPHA) -> float:
    """Return how likely both one-sided t tests show a mean over paired seeds to lie within ± ``margin``.

    effect, spread  as in ``power``; an effect of 0 is the best case.
    alpha           of each test; with k co-primaries, 5%/k is Holm's first step.

    The average of P(|mean| < margin − t(1 − alpha) s) over the standard error s. Source of the tests: Schuirmann 1987.
    """
    freedom = count("seeds", seeds, 2) - 1
    positive("margin", margin)
    between("alpha", alpha, 0, 0.5, open_low=True, open_high=True)
    needed = -float(stdtrit(freedom, alpha))
    true = positive("spread", spread) / math.sqrt(seeds)

    def shown(error: float) -> float:
        room = max(margin - needed * error, 0.0)
        return float(ndtr((room - effect) / true) - ndtr((-room - effect) / true))

    return _over_errors(shown, true, freedom, margin / needed)


def fewest_seeds(power_at: Callable[[int], float], wanted: float = 0.8) -> int | None:
    """Return the fewest seeds at which a power that grows with them reaches ``wanted``; None where 10,000 do not."""
    between("wanted", wanted, 0, 1, open_low=True, open_high=True)
    low, high = 1, 2  # ``low`` is too few
    while power_at(high) < wanted:
        if high == MOST:
            return None
        low, high = high, min(2 * high, MOST)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power_at(middle) >= wanted else (middle, high)
    return high


def _over_errors(shown: Callable[[float], float], true: float, freedom: int, edge: float) -> float:
    """Return the average of ``shown`` over the estimated standard error of a mean.

    true  the mean's standard deviation; the estimate is true χ/√freedom.
    edge  the standard error at which ``shown`` has a bend, where the integral is split.
    """
    scale, middle = true / math.sqrt(freedom), math.sqrt(freedom)
    constant = (1 - freedom / 2) * math.log(2) - float(gammaln(freedom / 2))

    def weighed(chi: float) -> float:
        density = math.exp(constant + (freedom - 1) * math.log(chi) - chi * chi / 2) if chi > 0 else 0.0
        return density * shown(scale * chi)

    low, high = max(middle - 9, 0.0), middle + 9  # more than twelve standard deviations of χ to each side
    ends = [low, min(max(edge / scale, low), high), high]
    parts = [quad(weighed, *part, limit=200)[0] for part in itertools.pairwise(ends) if part[0] < part[1]]
    return min(max(sum(parts), 0.0), 1.0)
