"""The metrics: by hand, by their bounds and invariances, and the same for a batch as for each run."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradlab.lab.metrics import (
    entropy,
    expected_utility,
    kl_to_reference,
    summary,
    top1_accuracy,
    unobserved_mass,
    utility_share,
    win_rate,
)
from gradlab.lab.world import gaussian_world

PROPERTY = settings(deadline=None, derandomize=True, max_examples=50)


def rows(*values):
    return torch.tensor(values, dtype=torch.float64)


def sigma(value):
    return 1 / (1 + math.exp(-value))


def random_policy(*shape, seed=0, peak=1.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.log_softmax(peak * torch.randn(*shape, generator=generator, dtype=torch.float64), -1)


# Two prompts, and everything about them by hand.
POLICY = rows([0.25, 0.75], [0.5, 0.5]).log()
REFERENCE = rows([0.5, 0.5], [0.2, 0.8]).log()
UTILITY = rows([0.0, 1.0], [3.0, 1.0])
OBSERVED = torch.tensor([[True, False], [True, True]])

BY_HAND = {
    "utility": (0.75 + 2.0) / 2,
    "utility_share": ((0.75 - 0.5) / (1 - 0.5) + (2.0 - 1.4) / (3.0 - 1.4)) / 2,
    "kl": (
        0.25 * math.log(0.5) + 0.75 * math.log(1.5) + 0.5 * math.log(0.5 / 0.2) + 0.5 * math.log(0.5 / 0.8)
    ) / 2,
    "entropy": (-0.25 * math.log(0.25) - 0.75 * math.log(0.75) + math.log(2)) / 2,
    "unobserved_mass": 0.75 / 2,
    "unobserved_mass_reference": 0.5 / 2,
    # β = 2: the tilted odds of the first prompt are e^½ to 1.
    "unobserved_mass_ideal": sigma(0.5) / 2,
    "top1_accuracy": (1 + 0.5) / 2,
    "win_rate": (
        (0.25 * 0.5 * 0.5 + 0.25 * 0.5 * sigma(-1) + 0.75 * 0.5 * sigma(1) + 0.75 * 0.5 * 0.5)
        + (0.5 * 0.2 * 0.5 + 0.5 * 0.8 * sigma(2) + 0.5 * 0.2 * sigma(-2) + 0.5 * 0.8 * 0.5)
    ) / 2,
}  # fmt: skip


def test_the_summary_has_the_values_derived_by_hand():
    numbers = summary(POLICY, UTILITY, OBSERVED, REFERENCE, beta=2.0)
    assert set(numbers) == set(BY_HAND)
    for name, expected in BY_HAND.items():
        assert numbers[name].shape == ()
        assert numbers[name] == pytest.approx(expected, rel=1e-12), name


def test_leading_axes_are_runs_each_judged_alone():
    policies, world = random_policy(4, 2, 3, 5), gaussian_world(3, 5, mask_rate=0.4)
    arrays = [torch.tensor(array) for array in (world.utility, world.observed, world.ref_logp)]
    together = summary(policies, *arrays, beta=1.0)
    for run in np.ndindex(4, 2):
        for name, value in summary(policies[run], *arrays, beta=1.0).items():
            assert together[name].shape == (4, 2)
            assert together[name][run] == pytest.approx(value.item(), rel=1e-12), name


# --- share of the reachable utility ---


def test_the_share_is_nothing_at_the_reference_and_all_at_the_best_response():
    utility, reference = random_policy(6, 5), random_policy(6, 5, seed=1)
    best = torch.full_like(utility, -torch.inf).scatter(1, utility.argmax(1, keepdim=True), 0.0)
    assert utility_share(reference, utility, reference) == 0
    assert utility_share(best, utility, reference) == pytest.approx(1.0, rel=1e-12)


def test_the_share_is_negative_where_the_policy_is_worse_than_the_reference():
    assert utility_share(rows([0.8, 0.2]).log(), rows([0.0, 1.0]), rows([0.5, 0.5]).log()) == pytest.approx(-0.6)


@given(st.floats(-50, 50), st.integers(2, 30), st.integers(0, 1000))
@PROPERTY
def test_a_flat_prompt_has_no_share_whatever_its_rounding(level, responses, seed):
    flat = torch.full((1, responses), level, dtype=torch.float64)
    policy, reference = (random_policy(1, responses, seed=seed + offset) for offset in (0, 1))
    assert utility_share(policy, flat, reference).isnan()


def test_a_flat_prompt_does_not_count_in_the_mean():
    utility = rows([0.3, 0.3], [0.0, 1.0])
    policy, reference = rows([0.9, 0.1], [0.25, 0.75]).log(), rows([0.5, 0.5], [0.5, 0.5]).log()
    assert utility_share(policy, utility, reference) == pytest.approx(0.5)


@given(st.floats(-20, 20), st.floats(0.1, 10))
@PROPERTY
def test_the_share_knows_neither_the_zero_nor_the_unit_of_utility(offset, unit):
    utility, policy, reference = random_policy(4, 5), random_policy(4, 5, seed=1), random_policy(4, 5, seed=2)
    moved = utility_share(policy, offset + unit * utility, reference)
    torch.testing.assert_close(moved, utility_share(policy, utility, reference), rtol=1e-10, atol=1e-12)


# --- KL, entropy, mass ---


def test_kl_is_zero_at_the_reference_and_positive_elsewhere():
    reference = random_policy(3, 5)
    assert kl_to_reference(reference, reference) == 0
    assert (kl_to_reference(random_policy(50, 3, 5, seed=1), reference) > 0).all()


def test_entropy_is_the_logarithm_of_how_many_responses_share_the_mass():
    assert entropy(torch.full((2, 8), -math.log(8), dtype=torch.float64)) == pytest.approx(math.log(8))


def test_no_mass_is_unobserved_where_all_responses_are_observed():
    assert unobserved_mass(random_policy(3, 5), torch.ones(3, 5, dtype=torch.bool)) == 0


def test_unobserved_and_observed_mass_make_one():
    observed = torch.tensor(gaussian_world(5, 10, mask_rate=0.4).observed)
    policy = random_policy(5, 10)
    total = unobserved_mass(policy, observed) + unobserved_mass(policy, ~observed)
    assert total == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("beta", [0.5, 1.0, 3.0])
def test_no_policy_trades_utility_against_kl_better_than_the_ideal_one(beta):
    world = gaussian_world(3, 6, reference="random", seed=2)
    utility, ref_logp, ideal = (
        torch.tensor(array) for array in (world.utility, world.ref_logp, world.ideal_logp(beta))
    )

    def objective(logp):
        return expected_utility(logp, utility) - beta * kl_to_reference(logp, ref_logp)

    best = objective(ideal)
    # Its value is β log E_ref[exp(u/β)].
    assert best == pytest.approx((beta * torch.logsumexp(ref_logp + utility / beta, -1)).mean().item(), rel=1e-12)
    for size in (1e-3, 0.1, 1.0, 10.0):
        noise = torch.randn(300, 3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        others = objective(torch.log_softmax(ideal + size * noise, -1))
        # The loss is β KL(π‖π_ideal), which small perturbations make as small as 1e-6 · β.
        assert (others < best).all()


# --- ties, winners ---


@pytest.mark.parametrize(
    ("prob", "utility", "expected"),
    [
        ([0.2, 0.5, 0.3], [0.0, 1.0, 0.0], 1.0),
        ([0.2, 0.5, 0.3], [1.0, 0.0, 0.0], 0.0),
        ([0.4, 0.4, 0.2], [1.0, 0.0, 0.0], 0.5),  # two share the top, one of them is best
        ([0.2, 0.5, 0.3], [1.0, 1.0, 0.0], 1.0),  # two are best, one of them is on top
        ([0.4, 0.2, 0.4], [1.0, 1.0, 0.0], 0.5),
        ([1 / 3, 1 / 3, 1 / 3], [1.0, 0.0, 0.0], 1 / 3),
    ],
)
def test_ties_for_the_top_count_by_their_share_of_best_responses(prob, utility, expected):
    assert top1_accuracy(rows(prob).log(), rows(utility)) == pytest.approx(expected)


def test_a_policy_wins_half_against_itself():
    world = gaussian_world(6, 8)
    for policy in random_policy(5, 6, 8, peak=3.0):
        assert win_rate(policy, policy, torch.tensor(world.utility)) == pytest.approx(0.5, abs=1e-12)


def test_win_rates_of_both_sides_make_one():
    utility = torch.tensor(gaussian_world(6, 8).utility)
    one, other = random_policy(6, 8), random_policy(6, 8, seed=1)
    assert win_rate(one, other, utility) + win_rate(other, one, utility) == pytest.approx(1.0, abs=1e-12)


def test_equal_utilities_win_half_whatever_the_policies():
    assert win_rate(
        random_policy(3, 4), random_policy(3, 4, seed=1), torch.full((3, 4), 0.7, dtype=torch.float64)
    ) == pytest.approx(0.5)
