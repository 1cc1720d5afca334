"""Wilson's interval is scipy's where both are defined; Krippendorff's α is the published one."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from gradlab.stats.agreement import agreement, krippendorff_alpha, wilson_interval


@pytest.mark.parametrize(("won", "number"), [(0, 1), (0, 12), (3, 12), (6, 12), (12, 12), (70, 100)])
def test_wilson_is_scipys(won, number):
    interval = binomtest(won, number).proportion_ci(method="wilson")
    assert wilson_interval(won / number, number) == pytest.approx((interval.low, interval.high))
    assert all(math.isnan(end) for end in wilson_interval(math.nan, 0))


def test_wilson_takes_half_points_which_lie_between_whole_ones():
    low, high = wilson_interval(3.5 / 12, 12)
    assert wilson_interval(3 / 12, 12)[0] < low < wilson_interval(4 / 12, 12)[0]
    assert wilson_interval(3 / 12, 12)[1] < high < wilson_interval(4 / 12, 12)[1]


def table(*units):
    """A frame of ratings, (raters, items), from each item's ratings as text."""
    return pd.concat([pd.Series(list(map(float, unit))) for unit in units], axis=1)


def test_alpha_is_krippendorffs():
    # Krippendorff 2011, example C: four observers, twelve units, some values missing; α = 0.743
    units = ["111", "2232", "3333", "3333", "2222", "1234", "4444", "1121", "2222", "555", "11", "3"]
    assert krippendorff_alpha(table(*units)) == pytest.approx(0.743, abs=5e-4)
    # by hand: two raters, 00, 11, 01, 10: o_unequal = 4 of 8, by chance 2·4·4/(8·7): 1 − (1/2)/(4/7) = 1/8
    assert krippendorff_alpha(table("00", "11", "01", "10")) == pytest.approx(1 / 8)
    assert krippendorff_alpha(table("00", "11")) == 1
    for nothing_to_tell in (table("00", "00"), table("00", "00", "1"), table("0", "1"), pd.DataFrame()):
        assert math.isnan(krippendorff_alpha(nothing_to_tell))


def test_alpha_follows_its_definition_on_random_tables_with_gaps():
    rng = np.random.default_rng(0)
    for _ in range(50):
        raters, items = rng.integers(2, 6), rng.integers(2, 20)
        ratings = rng.choice([0.0, 0.5, 1.0, np.nan], (raters, items), p=[0.35, 0.1, 0.35, 0.2])
        units = [column[~np.isnan(column)] for column in ratings.T]
        units = [unit for unit in units if len(unit) > 1]
        values = np.concatenate(units) if units else np.zeros(0)
        if len(set(values)) < 2:
            continue
        # 1 − D_o/D_e: unequal ordered pairs within items, each weighing 1/(m − 1), against those among all ratings
        observed = sum((unit[:, None] != unit).sum() / (len(unit) - 1) for unit in units) / len(values)
        by_chance = (values[:, None] != values).sum() / (len(values) * (len(values) - 1))
        assert krippendorff_alpha(pd.DataFrame(ratings)) == pytest.approx(1 - observed / by_chance, abs=1e-12)


def test_two_answers_of_one_rater_to_one_item_are_refused():
    answers = pd.DataFrame({"rater": ["ann", "ann", "bob"], "item": ["x", "x", "x"], "score": [1.0, 0.0, 1.0]})
    with pytest.raises(ValueError, match=r"^answers must have one row per rater and item, got two of 'ann' to 'x'$"):
        agreement(answers)
    assert agreement(answers[1:]).raw == 0
