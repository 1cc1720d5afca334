"""Tabular policies: their features, their start, and what they can and cannot tell apart."""

import math

import numpy as np
import pytest
import torch

from gradlab.lab.policy import POLICIES, FreeLogits, RadialBasis, log_policy, tabular_policy

every_policy = pytest.mark.parametrize("policy", [FreeLogits(), RadialBasis(), RadialBasis(3, 0.5)], ids=repr)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def start(*shape):
    return torch.log_softmax(normal(*shape, seed=1), -1)


def test_free_logits_have_the_identity_as_features():
    assert torch.equal(FreeLogits().features(4), torch.eye(4, dtype=torch.float64))


def test_free_logits_add_to_the_start():
    theta, begin = normal(3, 5), start(3, 5)
    expected = torch.log_softmax(theta + begin, -1)
    torch.testing.assert_close(log_policy(FreeLogits(), theta, begin), expected, rtol=1e-12, atol=1e-12)


def test_bumps_are_gaussian_and_evenly_spaced():
    # 3 centres on 0 … 4 stand at 0, 2 and 4; width 1 spacing is 2 responses.
    row = RadialBasis(3).features(5)[1]
    expected = np.exp([-1 / 8, -1 / 8, -9 / 8])
    np.testing.assert_allclose(row, expected / np.linalg.norm(expected), rtol=1e-12)


def test_one_bump_stands_in_the_middle_and_cannot_tell_responses_apart():
    # Rows have unit length, so a single feature is 1 everywhere.
    assert RadialBasis(1).features(5).tolist() == [[1.0]] * 5


@pytest.mark.parametrize("centres", [1, 2, 8, 30])
@pytest.mark.parametrize("width", [1e-3, 0.3, 1.0, 50.0])
@pytest.mark.parametrize("responses", [2, 5, 20])
def test_features_have_unit_rows_however_extreme_the_bumps(centres, width, responses):
    features = RadialBasis(centres, width).features(responses)
    assert features.shape == (responses, centres)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(responses, dtype=torch.float64), rtol=1e-12, atol=0.0)


@every_policy
def test_without_parameters_the_policy_is_its_start(policy):
    begin = start(2, 3, 7)
    theta = torch.zeros(2, 3, policy.features(7).shape[1], dtype=torch.float64)
    torch.testing.assert_close(log_policy(policy, theta, begin), begin, rtol=1e-12, atol=1e-12)


@every_policy
def test_policies_are_normalised(policy):
    logp = log_policy(policy, 30 * normal(4, 3, policy.features(7).shape[1]), start(4, 3, 7))
    assert logp.shape == (4, 3, 7)
    torch.testing.assert_close(logp.exp().sum(-1), torch.ones(4, 3, dtype=torch.float64), rtol=1e-12, atol=0.0)


@every_policy
def test_leading_axes_and_prompts_are_independent(policy):
    theta, begin = normal(4, 3, policy.features(7).shape[1]), start(4, 3, 7)
    together = log_policy(policy, theta, begin)
    for run in range(4):
        for prompt in range(3):
            alone = log_policy(policy, theta[run, prompt], begin[run, prompt])
            torch.testing.assert_close(together[run, prompt], alone, rtol=1e-12, atol=1e-12)


@every_policy
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_precision_is_the_parameters(policy, dtype):
    theta = torch.zeros(3, policy.features(7).shape[1], dtype=dtype)
    assert log_policy(policy, theta, start(3, 7).to(dtype)).dtype == dtype


def score_products(policy, responses):
    """⟨∇_θ log π_i, ∇_θ log π_j⟩ at the uniform policy."""
    theta = torch.zeros(policy.features(responses).shape[1], dtype=torch.float64)
    begin = torch.full((responses,), -math.log(responses), dtype=torch.float64)
    scores = torch.autograd.functional.jacobian(lambda parameters: log_policy(policy, parameters, begin), theta)
    return scores @ scores.T


def test_shared_parameters_move_neighbours_along_and_free_logits_do_not():
    free, shared = score_products(FreeLogits(), 20), score_products(RadialBasis(), 20)
    assert free[10, 11] < 0
    assert shared[10, 11] > 0.5 * shared[10, 10]


@pytest.mark.parametrize("name", POLICIES)
def test_a_registered_policy_is_found_by_its_name(name):
    assert tabular_policy(name).name == name


def test_an_unknown_policy_is_answered_with_those_that_exist():
    with pytest.raises(
        ValueError, match=r"^policy must be one of free, shared; got 'sharde'; did you mean 'shared'\?$"
    ):
        tabular_policy("sharde")


@pytest.mark.parametrize("value", [0, -1, 2.0, True, None])
def test_a_bad_number_of_centres_is_refused(value):
    with pytest.raises(ValueError, match=r"^centres must be a whole number ≥ 1, got ") as error:
        RadialBasis(centres=value)
    assert str(error.value).endswith(repr(value))


@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf, True, "1"])
def test_a_bad_width_is_refused(value):
    with pytest.raises(ValueError, match=r"^width must be finite and > 0, got ") as error:
        RadialBasis(width=value)
    assert str(error.value).endswith(repr(value))
