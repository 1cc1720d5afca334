"""The power of a comparison of two methods over paired seeds, by the noncentral t distribution; no data are seen.

A seed's difference of two shares spreads for two reasons: seeds differ, and each share is that of finitely many
prompts. Source: the noncentral t distribution (Johnson & Welch 1940); the split of the spread is ours.
"""

from __future__ import annotations

import math

from scipy.special import nctdtr, stdtrit

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


def power(effect: float, spread: float, seeds: int, *, bound: float = 0.0, alpha: float = ALPHA) -> float:
    """Return how likely the lower end of the (1 − alpha) t interval of a mean over paired seeds lies above ``bound``.

    effect  the true mean. spread: the standard deviation of one seed's difference, > 0.
    alpha   two-sided; with k co-primaries, alpha/k is Holm's first step.

    P(T > t(1 − alpha/2; n − 1)) for T noncentral with n − 1 degrees of freedom and (effect − bound) √n/spread.
    """
    positive("spread", spread)
    freedom = count("seeds", seeds, 2) - 1
    between("alpha", alpha, 0, 1, open_low=True, open_high=True)
    needed = -float(stdtrit(freedom, alpha / 2))
    return float(1 - nctdtr(freedom, (effect - bound) * math.sqrt(seeds) / spread, needed))


def seeds_for_power(
    effect: float, spread: float, wanted: float = 0.8, *, bound: float = 0.0, alpha: float = ALPHA
) -> int:
    """Return the fewest seeds that reach a power. ValueError where 10,000 seeds do not, or ``effect`` ≤ ``bound``."""
    between("wanted", wanted, 0, 1, open_low=True, open_high=True)
    if effect <= bound:
        raise ValueError(f"effect must lie above bound = {bound:g}, got {effect:g}")

    def reached(seeds: int) -> bool:
        return power(effect, spread, seeds, bound=bound, alpha=alpha) >= wanted

    seeds = next((number for number in range(2, 200) if reached(number)), None)
    seeds = seeds or next((number for number in range(200, MOST + 1, 50) if reached(number)), None)
    if seeds is None:
        raise ValueError(f"effect must be within reach of {MOST:,} seeds, got {effect:g} at a spread of {spread:g}")
    return seeds
