"""Shares of runs in which something happens: the interval of a difference, by counting outcomes, not by drawing."""

import math

import numpy as np
import pytest
from scipy import stats

from gradlab.stats.counts import Count, difference_of_shares, runs_to_decide

GRID = np.linspace(0, 1, 51)


def every_interval(runs):
    """Intervals of each pair of hits, (runs + 1, runs + 1, 2)."""
    return np.array([
        [difference_of_shares(Count(ours, runs), Count(theirs, runs)) for theirs in range(runs + 1)]
        for ours in range(runs + 1)
    ])  # fmt: skip


def chances(runs):
    """The probability of each number of hits, (shares of GRID, runs + 1)."""
    return stats.binom.pmf(np.arange(runs + 1), runs, GRID[:, None])


def test_the_limits_of_a_share_are_exact():
    for hits, runs in ((0, 6), (1, 6), (6, 6), (3, 40)):
        low, high = Count(hits, runs).interval()
        assert low == (pytest.approx(stats.beta.ppf(0.025, hits, runs - hits + 1)) if hits else 0)
        assert high == (pytest.approx(stats.beta.ppf(0.975, hits + 1, runs - hits)) if hits < runs else 1)


@pytest.mark.parametrize("runs", [3, 6, 12, pytest.param(24, marks=pytest.mark.slow)])
def test_equal_shares_seldom_differ_and_the_interval_covers(runs):
    intervals, chance = every_interval(runs), chances(runs)
    without_0 = (intervals[..., 0] > 0) | (intervals[..., 1] < 0)
    assert np.einsum("pa,pb,ab->p", chance, chance, without_0).max() <= 0.04
    truth = GRID[:, None, None, None] - GRID[:, None, None]  # (ours, theirs, 1, 1)
    covers = (intervals[..., 0] <= truth + 1e-12) & (truth - 1e-12 <= intervals[..., 1])
    covered = np.einsum("pa,qb,pqab->pq", chance, chance, covers)
    assert covered.mean() >= 0.95
    assert covered.min() >= 0.92


def test_runs_that_share_a_seed_and_are_alike_make_it_wider_than_it_need_be():
    """Half of the runs' spikes come from their common seed."""
    runs, chance = 6, np.zeros((7, 7))
    for share in (0.2, 0.5):
        chance[:] = 0
        both = share * (0.5 + 0.5 * share)  # of a pair of runs: both, only ours, only theirs, none
        cells = [both, share - both, share - both, 1 - 2 * share + both]
        for a in range(runs + 1):
            for b in range(runs + 1 - a):
                for c in range(runs + 1 - a - b):
                    counts = [a, b, c, runs - a - b - c]
                    chance[a + b, a + c] += stats.multinomial.pmf(counts, runs, cells)
        assert chance.sum() == pytest.approx(1)
        intervals = every_interval(runs)
        assert chance[(intervals[..., 0] <= 0) & (intervals[..., 1] >= 0)].sum() >= 0.98


def test_nothing_and_equally_much_have_a_width_and_signs_mirror():
    for hits in range(7):
        low, high = difference_of_shares(Count(hits, 6), Count(hits, 6))
        assert low == pytest.approx(-high)
        assert high > 0.4
    low, high = difference_of_shares(Count(5, 6), Count(1, 8))
    assert difference_of_shares(Count(1, 8), Count(5, 6)) == pytest.approx((-high, -low))


def test_with_six_runs_each_four_against_none_are_shown_and_three_are_not():
    assert difference_of_shares(Count(4, 6), Count(0, 6))[0] > 0
    assert difference_of_shares(Count(3, 6), Count(0, 6))[0] < 0


@pytest.mark.parametrize(("ours", "theirs"), [((1, 6), (1, 6)), ((0, 6), (0, 6)), ((3, 6), (1, 6))])
def test_so_many_runs_narrow_the_interval_to_the_target(ours, theirs):
    one, other = Count(*ours), Count(*theirs)
    runs = runs_to_decide(one, other, 0.05)
    assert runs == runs_to_decide(other, one, 0.05)  # it sees no sign
    later = [Count(round(max(0.5 / 6, first.share) * runs), runs) for first in (one, other)]
    low, high = difference_of_shares(*later)
    assert (high - low) / 2 == pytest.approx(0.05, rel=0.1)
    assert runs_to_decide(Count(300, 900), Count(300, 900), 0.5) == 900


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Count(7, 6), "hits must be a whole number ≥ 0 and ≤ 6, got 7"),
        (lambda: Count(0, 0), "runs must be a whole number ≥ 1, got 0"),
        (lambda: runs_to_decide(Count(1, 6), Count(1, 6), 0.0), "target must be finite and > 0, got 0.0"),
        (lambda: runs_to_decide(Count(1, 6), Count(1, 6), 1e-9), "target must be within reach of a billion runs"),
        (lambda: runs_to_decide(Count(1, 6), Count(1, 6), math.inf), "target must be finite"),
    ],
)
def test_doors(call, words):
    with pytest.raises(ValueError, match="must") as error:
        call()
    assert words in str(error.value)
