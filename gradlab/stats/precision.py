"""Precision by design: how many seeds or worlds a question needs. Nothing here sees an effect or its sign."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from gradlab.arrays import real_array
from gradlab.checks import count, keep_plain, positive
from gradlab.stats.agreement import wilson_interval
from gradlab.stats.equivalence import ALPHA, LEVEL, Array

MOST = 10**9  # seeds or worlds: more are no answer


@dataclass(frozen=True)
class Design:
    """A design of precision: how precise each primary cell must be, and how its seeds are added.

    margin        differences within ± margin do not matter; > 0, in units of the endpoint.
    co_primaries  endpoints over which Holm corrects.
    first         seeds with which each cell begins. A cell stops rather where its spread looks small, so its interval
                  covers the truth a little less often than 95%: at worst 94% from 12 seeds on, 93% from 6 on.
    block         seeds that are then added at a time.
    cap           seeds beyond which no cell goes.
    """

    margin: float
    co_primaries: int = 1
    first: int = 12
    block: int = 6
    cap: int = 96

    def __post_init__(self) -> None:
        keep_plain(
            self, margin=positive("margin", self.margin),
            co_primaries=count("co_primaries", self.co_primaries, least=1), block=count("block", self.block, least=1),
            cap=count("cap", self.cap, least=2), first=count("first", self.first, least=2),
        )  # fmt: skip
        if self.cap < self.first:
            raise ValueError(f"cap must be at least first = {self.first}, got {self.cap}")

    @property
    def target(self) -> float:
        """Return the half-width of a 95% interval at which a cell is precise: ``factor`` × margin."""
        return factor(self.co_primaries) * self.margin


def factor(co_primaries: int = 1) -> float:
    """Return how wide half an interval may be, as a share of the margin: ½, .46 or .43 with 1, 2 or 3 co-primaries.

    With z at Holm's first step, 1/(z(α/2k) + z(α/k)) · z(α/2), rounded down, and at most ½: the average is then either
    different from 0 or equivalent to 0 within the margin, whatever it is. ½ gives both one-sided tests 98% power where
    the truth is 0. Normal quantiles; those of t decide sooner.
    """
    k, quantile = count("co_primaries", co_primaries, least=1), NormalDist().inv_cdf
    bound = quantile(1 - ALPHA / 2) / (quantile(1 - ALPHA / (2 * k)) + quantile(1 - ALPHA / k))
    return min(0.5, math.floor(100 * bound) / 100)


def seeds_to_add(half_widths: ArrayLike, seeds: ArrayLike, design: Design) -> Array:
    """Return how many seeds each cell gets next, (cells,): 0 where it is precise enough, or at the cap.

    half_widths  of the 95% intervals, (cells,); NaN where a cell has fewer than two seeds.
    seeds        how many each cell has, (cells,).

    The rule is given widths alone, so it cannot stop at a welcome sign. ValueError for a negative or infinite width.
    """
    half_widths, seeds = _widths(half_widths, seeds)
    wide = ~(half_widths <= design.target)  # NaN is wide
    wanted = np.where(seeds < design.first, design.first, np.where(wide, seeds + design.block, seeds))
    return np.maximum(np.minimum(wanted, design.cap) - seeds, 0)


def at_the_cap(half_widths: ArrayLike, seeds: ArrayLike, design: Design) -> Array:
    """Return which cells, (cells,) bool, have reached the cap without being precise enough."""
    half_widths, seeds = _widths(half_widths, seeds)
    return ~(half_widths <= design.target) & (seeds >= design.cap)


def replicates_for(half_width: float, replicates: int, target: float) -> int:
    """Return how many seeds (or worlds) will narrow an interval to ``target``, if they spread as those so far do.

    half_width  of the 95% t interval at ``replicates`` ≥ 2 seeds (or worlds). At least ``replicates``; ValueError where
    it would be more than a billion.
    """
    positive("target", target)
    replicates = count("replicates", replicates, least=2)
    if not 0 <= half_width < math.inf:
        raise ValueError(f"half_width must be finite and ≥ 0, got {half_width!r}")

    def quantile(number: int) -> float:
        return -float(stdtrit(number - 1, (1 - LEVEL) / 2))

    spread = half_width * math.sqrt(replicates) / quantile(replicates)

    def enough(number: int) -> bool:
        return quantile(number) * spread / math.sqrt(number) <= target

    few, many = replicates, replicates
    while not enough(many):
        few, many = many, 2 * many
        if many > MOST:
            raise ValueError(f"target must be within reach of a billion replicates, got {target!r}")
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if enough(middle) else (middle, many)
    return many


def worlds_for_share(share: float, observed: float = 1.0) -> int:
    """Return how many worlds show a share: the lower end of Wilson's 95% interval of ``observed`` reaches ``share``.

    73 worlds show "at least 95%", where all of them are beyond the margin. ValueError where ``observed`` is no more.
    """
    if not 0 < share < observed <= 1:
        raise ValueError(f"observed must lie in ({share}, 1] to show a share in (0, 1), got {observed!r}")
    few, many = 0, 1
    while wilson_interval(observed, many)[0] < share:
        few, many = many, 2 * many
        if many > MOST:
            raise ValueError(f"observed must differ from {share} by more than a billion worlds can show")
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if wilson_interval(observed, middle)[0] >= share else (middle, many)
    return many


def _widths(half_widths: ArrayLike, seeds: ArrayLike) -> tuple[Array, Array]:
    widths, number = real_array("half_widths", half_widths), np.asarray(seeds)
    if (widths < 0).any() or np.isinf(widths).any():
        raise ValueError(f"half_widths must be finite and ≥ 0, or NaN below two seeds, got {widths.min()}")
    if not np.issubdtype(number.dtype, np.integer) or number.shape != widths.shape or (number < 0).any():
        raise ValueError(f"seeds must be whole numbers ≥ 0, shape {widths.shape}, got {number.dtype} {number.shape}")
    return widths, number
