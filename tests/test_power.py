"""Power by the noncentral t distribution, against simulated studies."""

import numpy as np
import pytest

from gradlab.stats.equivalence import mean_of
from gradlab.stats.power import power, seeds_for_power, spread_of_difference


@pytest.mark.parametrize(("effect", "seeds", "bound"), [(0.18, 3, 0.02), (0.05, 5, 0.0), (0.0, 4, 0.0)])
def test_power_is_the_share_of_simulated_studies_that_show_the_effect(effect, seeds, bound):
    spread, studies = 0.05, 20_000
    differences = np.random.default_rng(1).normal(effect, spread, (studies, seeds))
    low, _ = mean_of(differences).interval()
    found = float((low > bound).mean())
    expected = power(effect, spread, seeds, bound=bound)
    assert found == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / studies) + 1e-4)


def test_the_spread_of_a_difference_is_that_of_simulated_prompts_and_seeds():
    rng, ours, theirs, prompts, between = np.random.default_rng(2), 0.6, 0.42, 500, 0.03
    gaps = rng.normal(0, between, 20_000)
    found = rng.binomial(prompts, ours + gaps) / prompts - rng.binomial(prompts, theirs, len(gaps)) / prompts
    assert found.std() == pytest.approx(spread_of_difference(ours, theirs, prompts, between), rel=0.02)


def test_seeds_for_power_are_the_fewest():
    seeds = seeds_for_power(0.04, 0.05, 0.8)
    assert power(0.04, 0.05, seeds) >= 0.8 > power(0.04, 0.05, seeds - 1)
    assert seeds_for_power(0.18, 0.05) <= 4


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: power(0.1, 0.0, 3), "spread must be"),
        (lambda: power(0.1, 0.1, 1), "seeds must be"),
        (lambda: seeds_for_power(0.02, 0.1, bound=0.02), "effect must lie above bound = 0.02, got 0.02"),
        (lambda: seeds_for_power(1e-6, 1.0), "effect must be within reach of 10,000 seeds"),
        (lambda: spread_of_difference(1.2, 0.5, 100, 0.0), "ours must be"),
    ],
)
def test_bad_input_is_refused_in_one_line(call, words):
    with pytest.raises(ValueError, match=words):
        call()
