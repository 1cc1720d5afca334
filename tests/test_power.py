"""Power against simulated studies, and against the noncentral t distribution."""

import numpy as np
import pytest
from scipy.special import nctdtr, stdtrit

from gradlab.stats.equivalence import mean_of
from gradlab.stats.power import fewest_seeds, power, power_of_equivalence, spread_of_difference


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


@pytest.mark.parametrize("seeds", [2, 3, 5, 40, 300])
@pytest.mark.parametrize(("effect", "bound"), [(0.18, 0.02), (0.03, 0.02), (0.0, 0.0), (-0.1, 0.02)])
def test_power_of_the_interval_alone_is_that_of_the_noncentral_t_distribution(effect, bound, seeds):
    spread, root = 0.1, np.sqrt(seeds)
    expected = 1 - nctdtr(seeds - 1, (effect - bound) * root / spread, -stdtrit(seeds - 1, 0.025))
    assert power(effect, spread, seeds, bound=bound) == pytest.approx(expected, abs=1e-9)


def studies_of(effect, spread, seeds, studies=20_000):
    return mean_of(np.random.default_rng(3).normal(effect, spread, (studies, seeds))), studies


@pytest.mark.parametrize("effect", [0.09, 0.18, 0.02])
def test_power_with_a_corrected_p_value_too_is_the_share_of_simulated_studies(effect):
    mean, studies = studies_of(effect, 0.1, 5)
    found = float(((mean.interval()[0] > 0.02) & (mean.p_differs() <= 0.025)).mean())
    expected = power(effect, 0.1, 5, bound=0.02, differs=0.025)
    assert expected < power(effect, 0.1, 5, bound=0.02)
    assert found == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / studies) + 1e-4)


@pytest.mark.parametrize(("effect", "seeds"), [(0.0, 5), (0.0, 20), (0.01, 20), (0.02, 40)])
def test_power_of_equivalence_is_the_share_of_simulated_studies(effect, seeds):
    mean, studies = studies_of(effect, 0.0365, seeds)
    found = float((mean.p_equivalent(0.02) <= 0.05).mean())
    expected = power_of_equivalence(effect, 0.0365, seeds, margin=0.02)
    assert found == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / studies) + 1e-4)


@pytest.mark.parametrize(("effect", "spread", "bound"), [(0.04, 0.05, 0.0), (0.18, 0.05, 0.0), (0.03, 0.1, 0.02)])
def test_the_fewest_seeds_reach_the_power_and_one_less_does_not(effect, spread, bound):
    def at(seeds):
        return power(effect, spread, seeds, bound=bound)

    seeds = fewest_seeds(at)
    assert at(seeds) >= 0.8 > (0 if seeds == 2 else at(seeds - 1))
    assert seeds == next(number for number in range(2, 2000) if at(number) >= 0.8)


def test_no_number_of_seeds_is_found_where_none_will_do():
    assert fewest_seeds(lambda seeds: power(0.02, 0.1, seeds, bound=0.02)) is None
    assert fewest_seeds(lambda seeds: 1.0) == 2


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: power(0.1, 0.0, 3), "spread must be"),
        (lambda: power(0.1, 0.1, 1), "seeds must be"),
        (lambda: power(0.1, 0.1, 3, bound=-0.1), "bound must be"),
        (lambda: power(0.1, 0.1, 3, differs=0.0), "differs must be"),
        (lambda: power_of_equivalence(0.0, 0.1, 3, margin=0.0), "margin must be"),
        (lambda: power_of_equivalence(0.0, 0.1, 3, margin=0.1, alpha=0.5), "alpha must be"),
        (lambda: fewest_seeds(float, 1.0), "wanted must be"),
        (lambda: spread_of_difference(1.2, 0.5, 100, 0.0), "ours must be"),
    ],
)
def test_bad_input_is_refused_in_one_line(call, words):
    with pytest.raises(ValueError, match=words):
        call()
