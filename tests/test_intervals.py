"""The bootstrap, Holm's correction and paired differences, each on cases whose answer is known."""

import numpy as np
import pandas as pd
import pytest

from gradlab.stats.equivalence import holm
from gradlab.stats.intervals import bootstrap_interval
from gradlab.stats.population import paired_differences


def frame_of(cells, seeds=12):
    """A frame in which method 'a' beats 'b' by ``cells[mask, scale]``, whatever the seed."""
    return pd.DataFrame([
        {"mask": mask, "scale": scale, "seed": seed, "method": method, "x": seed + (effect if method == "a" else 0.0)}
        for (mask, scale), effect in cells.items() for seed in range(seeds) for method in ("a", "b")
    ])  # fmt: skip


def test_the_bootstrap_interval_covers_the_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    hits = [low < 0 < high for low, high in (bootstrap_interval(rng.normal(size=30)) for _ in range(300))]
    assert 0.90 < np.mean(hits) < 0.98


def test_the_bootstrap_interval_is_reproducible_and_needs_two_values():
    values = np.arange(5.0)
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert np.isnan(bootstrap_interval(np.ones(1))).all()


def test_holm_by_hand():
    # sorted .01 .02 .04 → ×3, ×2, ×1 → .03 .04 .04
    assert holm(np.array([0.04, 0.01, 0.02])) == pytest.approx([0.04, 0.03, 0.04])
    assert holm(np.array([0.5, np.nan])) == pytest.approx([1.0, 1.0])


def test_differences_are_paired_by_seed_and_not_by_order():
    frame = frame_of({(0.0, 1): 0.1}).sample(frac=1, random_state=0)
    found = paired_differences(frame, "x", "a", "b", ["mask", "scale"])
    assert found["difference"].mean() == pytest.approx(0.1)


def test_cells_whose_factor_is_missing_still_pair():
    frame = frame_of({(0.0, np.nan): 0.1, (0.2, np.nan): 0.3})
    found = paired_differences(frame, "x", "a", "b", ["mask", "scale"])
    assert list(found.groupby("mask")["difference"].mean().round(6)) == [0.1, 0.3]


def test_incomplete_or_doubled_pairs_are_refused():
    frame = frame_of({(0.0, 1): 0.1})
    with pytest.raises(ValueError, match="'a' and 'b' must both have x"):
        paired_differences(frame.iloc[1:], "x", "a", "b", ["mask", "scale"])
    with pytest.raises(ValueError, match="must have one x"):
        paired_differences(pd.concat([frame, frame]), "x", "a", "b", ["mask", "scale"])
    with pytest.raises(ValueError, match="'a' and 'c'"):
        paired_differences(frame, "x", "a", "c", ["mask", "scale"])
