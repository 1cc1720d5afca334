"""The rules that turn paired differences into verdicts, each on cases whose answer is known."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from gradlab.stats import intervals


def frame_of(cells, seeds=12, spread=0.01, names=("mask", "scale")):
    """A frame in which method 'a' beats 'b' by ``cells[key]`` with noise over seeds."""
    rng = np.random.default_rng(0)
    rows = []
    for key, effect in cells.items():
        noise = rng.normal(0, spread, seeds)
        noise -= noise.mean()
        for seed in range(seeds):
            cell = {**dict(zip(names, key, strict=True)), "seed": seed}
            rows += [{**cell, "method": "a", "x": 1 + effect + noise[seed]}, {**cell, "method": "b", "x": 1.0}]
    return pd.DataFrame(rows)


def judged(cells, margin=0.02, **kind):
    by = ["mask", "scale"]
    differences = intervals.paired_differences(frame_of(cells, **kind), "x", "a", "b", by)
    return intervals.judge(differences, intervals.judge_cells(differences, by, margin), by)


def test_the_bootstrap_interval_covers_the_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    hits = [low < 0 < high for low, high in (intervals.bootstrap_interval(rng.normal(size=30)) for _ in range(300))]
    assert 0.90 < np.mean(hits) < 0.98


def test_the_bootstrap_interval_is_reproducible_and_needs_two_values():
    values = np.arange(5.0)
    assert intervals.bootstrap_interval(values) == intervals.bootstrap_interval(values)
    assert np.isnan(intervals.bootstrap_interval(np.ones(1))).all()


def test_holm_by_hand():
    # sorted .01 .02 .04 → ×3, ×2, ×1 → .03 .04 .04
    assert intervals.holm(np.array([0.04, 0.01, 0.02])) == pytest.approx([0.04, 0.03, 0.04])
    assert intervals.holm(np.array([0.5, np.nan])) == pytest.approx([1.0, 1.0])


def test_differences_are_paired_by_seed_and_not_by_order():
    frame = frame_of({(0.0, 1): 0.1}).sample(frac=1, random_state=0)
    found = intervals.paired_differences(frame, "x", "a", "b", ["mask", "scale"])
    assert found["difference"].mean() == pytest.approx(0.1)


def test_cells_whose_factor_is_missing_still_pair():
    frame = frame_of({(0.0, np.nan): 0.1, (0.2, np.nan): 0.3})
    found = intervals.judge_cells(
        intervals.paired_differences(frame, "x", "a", "b", ["mask", "scale"]), ["mask", "scale"], 0.02
    )
    assert list(found["effect"].round(6)) == [0.1, 0.3]


def test_incomplete_or_doubled_pairs_are_refused():
    frame = frame_of({(0.0, 1): 0.1})
    with pytest.raises(ValueError, match="'a' and 'b' must both have x"):
        intervals.paired_differences(frame.iloc[1:], "x", "a", "b", ["mask", "scale"])
    with pytest.raises(ValueError, match="must have one x"):
        intervals.paired_differences(pd.concat([frame, frame]), "x", "a", "b", ["mask", "scale"])
    with pytest.raises(ValueError, match="'a' and 'c'"):
        intervals.paired_differences(frame, "x", "a", "c", ["mask", "scale"])


def test_each_outcome_of_a_cell():
    assert judged({(0.0, 1): 0.1})["verdict"] == "holds"
    assert judged({(0.0, 1): -0.1})["verdict"] == "fails"
    assert judged({(0.0, 1): 0.0})["verdict"] == "no difference"
    assert judged({(0.0, 1): 0.0}, spread=0.2)["verdict"] == "inconclusive"


def test_a_significant_difference_within_the_margin_is_no_difference():
    assert judged({(0.0, 1): 0.015}, spread=0.001)["verdict"] == "no difference"


def test_the_p_value_is_the_paired_t_test_corrected_over_cells():
    frame = frame_of({(0.0, 1): 0.01, (0.0, 2): 0.5}, spread=0.02)
    by = ["mask", "scale"]
    differences = intervals.paired_differences(frame, "x", "a", "b", by)
    cells = intervals.judge_cells(differences, by, 0.001).set_index("scale")
    raw = stats.ttest_1samp(differences.query("scale == 1")["difference"], 0).pvalue
    assert cells.loc[1, "p"] == pytest.approx(raw)  # the larger of two p-values is multiplied by one


def test_a_difference_without_spread_is_decided_by_its_size():
    assert judged({(0.0, 1): 0.1}, spread=0.0)["verdict"] == "holds"
    assert judged({(0.0, 1): 0.0}, spread=0.0)["verdict"] == "no difference"


def test_the_condition_is_found_and_worded_by_rule():
    cells = {(mask, scale): 0.1 if mask >= 0.2 else -0.1 for mask in (0.0, 0.2, 0.4) for scale in (1, 2, 4)}
    assert judged(cells)["verdict"] == "holds when mask ≥ 0.2"


def test_a_condition_may_need_two_factors():
    cells = {
        (mask, scale): 0.1 if mask >= 0.2 and scale <= 2 else -0.1 for mask in (0.0, 0.2, 0.4) for scale in (1, 2, 4)
    }
    assert judged(cells)["verdict"] == "holds when mask ≥ 0.2 and scale ≤ 2"


def test_no_condition_is_invented_from_scattered_cells():
    cells = {
        (mask, scale): 0.1 if (scale + round(10 * mask)) % 2 else -0.1
        for mask in (0.0, 0.2, 0.5)
        for scale in (1, 2, 3, 4)
    }
    assert judged(cells)["verdict"] == "fails"


def test_mostly_no_difference_fails_a_claim_of_a_difference():
    cells = {(0.0, 1): 0.1, (0.0, 2): 0.0, (0.2, 1): 0.0, (0.2, 2): 0.0}
    assert judged(cells)["verdict"] == "fails"


def test_names_are_conditions_too():
    rows = pd.DataFrame(
        {"policy": ["free", "shared"] * 3, "mask": [0, 0, 1, 1, 2, 2], "verdict": ["holds", "fails"] * 3}
    )
    assert intervals.overall(rows, ["mask", "policy"]) == "holds when policy is free"


def test_the_tally_counts_every_cell():
    row = judged({(0.0, 1): 0.1, (0.0, 2): -0.1, (0.2, 1): 0.0})
    assert (row["holds"], row["fails"], row["no_difference"], row["inconclusive"]) == (1, 1, 1, 0)
    assert row["cells"] == 3
    assert row["effect"] == pytest.approx(0.0, abs=1e-12)


def test_the_interval_of_a_share_resamples_seeds_and_leaves_undrawn_cases_alone():
    held = pd.Series([True] * 8 + [False] * 2)
    nothing_drawn = intervals.share_interval(held, pd.Series([np.nan] * 10))
    assert np.isnan(nothing_drawn).all()
    low, high = intervals.share_interval(held, pd.Series([np.nan] * 6 + [0.0, 1.0, 2.0, 3.0]))
    assert (low, high) == pytest.approx((0.6, 1.0))  # six always hold, and of the drawn four none to all
    certain = intervals.share_interval(pd.Series([True] * 4), pd.Series([0, 0, 1, 1]))
    assert certain == (1.0, 1.0)
