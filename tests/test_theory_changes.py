"""Inner products of gradients and the steps that are really taken meet autograd, differences and exact fractions."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rounding import rounding
from scipy.special import log_softmax, logsumexp, softmax

from gradlab.losses import DPO, BalancedDPO, PairLogps, balanced_weights
from gradlab.theory import (
    dpo_weight,
    first_order_change,
    gradient_cosines,
    gradient_inner_products,
    in_logits,
    mean_off_diagonal,
    pair_weight,
    realised_change,
)

PROPERTY = settings(deadline=None, derandomize=True, max_examples=40)
EXACT = {"rtol": 1e-10, "atol": 1e-12}


@st.composite
def policies(draw, rows=1, least=2):
    """log p of some responses, flat or peaked; with ``rows``, several over the same responses."""
    n = draw(st.integers(least, 7))
    logits = st.lists(st.floats(-4, 4), min_size=n, max_size=n)
    found = [log_softmax(draw(st.sampled_from([0.1, 1.0, 4.0])) * np.array(draw(logits))) for _ in range(rows)]
    return found[0] if rows == 1 else found


# --- inner products ---


def free(n, rng):
    """One logit a response."""
    return torch.tensor(rng.standard_normal(n)), lambda theta: theta


def linear(n, rng):
    """Logits linear in three features."""
    features = torch.tensor(rng.standard_normal((n, 3)))
    return torch.tensor(rng.standard_normal(3)), lambda theta: features @ theta


def network(n, rng):
    """A small perceptron: four features a response, five hidden units."""
    features = torch.tensor(rng.standard_normal((n, 4)))

    def logits(theta):
        hidden = torch.tanh(features @ theta[:20].reshape(4, 5) + theta[20:25])
        return hidden @ theta[25:]

    return torch.tensor(rng.standard_normal(30)), logits


def model(kind, n, seed):
    """(p, kernel of the logits, ∇π, ∇log π) by autograd."""
    theta, logits = kind(n, np.random.default_rng(seed))
    jacobian = torch.autograd.functional.jacobian
    of_logits, of_probs, of_logs = (
        jacobian(function, theta).numpy()
        for function in (logits, lambda at: logits(at).softmax(-1), lambda at: logits(at).log_softmax(-1))
    )
    return logits(theta).softmax(-1).numpy(), of_logits @ of_logits.T, of_probs, of_logs


every_model = pytest.mark.parametrize("kind", [free, linear, network])


@every_model
@pytest.mark.parametrize("n", [2, 5, 9])
def test_inner_products_and_cosines_are_those_of_autograds_gradients(kind, n):
    p, kernel, of_probs, of_logs = model(kind, n, seed=n)
    products = of_probs @ of_probs.T
    np.testing.assert_allclose(gradient_inner_products(p, kernel), products, **EXACT)
    for jacobian in (of_probs, of_logs):
        unit = jacobian / np.linalg.norm(jacobian, axis=1, keepdims=True)
        np.testing.assert_allclose(gradient_cosines(p, kernel), unit @ unit.T, rtol=1e-9, atol=1e-10)


def test_without_a_kernel_logits_are_free():
    p, kernel, of_probs, _ = model(free, 6, seed=1)
    np.testing.assert_array_equal(kernel, np.eye(6))
    np.testing.assert_allclose(gradient_inner_products(p), of_probs @ of_probs.T, **EXACT)
    np.testing.assert_allclose(gradient_inner_products(p), gradient_inner_products(p, kernel), **EXACT)
    np.testing.assert_allclose(gradient_cosines(p), gradient_cosines(p, kernel), **EXACT)


def test_inner_products_are_those_of_central_differences_of_the_softmax():
    logits, step = np.random.default_rng(0).standard_normal(6), 1e-6
    jacobian = np.array([(softmax(logits + e) - softmax(logits - e)) / (2 * step) for e in step * np.eye(6)]).T
    np.testing.assert_allclose(gradient_inner_products(softmax(logits)), jacobian @ jacobian.T, rtol=0, atol=1e-9)


@given(log_p=policies())
@PROPERTY
def test_identity_6_in_closed_form(log_p):
    p = np.exp(log_p)
    closed = np.outer(p, p) * (np.eye(len(p)) - p[:, None] - p[None, :] + (p**2).sum())
    np.testing.assert_allclose(gradient_inner_products(p), closed, rtol=1e-9, atol=1e-14)


@every_model
def test_identity_6_over_all_responses_inner_products_sum_to_zero_and_so_their_mean_is_negative(kind):
    p, kernel, *_ = model(kind, 7, seed=3)
    products = gradient_inner_products(p, kernel)
    np.testing.assert_allclose(products.sum(-1), 0, atol=1e-13 * np.abs(products).max())
    mean = mean_off_diagonal(products)
    assert mean == pytest.approx(-np.trace(products) / 42, rel=1e-10)
    assert mean < 0


@pytest.mark.parametrize("n", [2, 3, 8])
def test_identity_6_a_uniform_policy_has_cosines_of_minus_one_over_n_minus_one(n):
    cosines = gradient_cosines(np.full(n, 1 / n))
    np.testing.assert_allclose(cosines, np.where(np.eye(n) == 1, 1, -1 / (n - 1)), rtol=1e-12)
    assert mean_off_diagonal(cosines) == pytest.approx(-1 / (n - 1), rel=1e-12)


@pytest.mark.parametrize("n", range(3, 12))
def test_identity_6_a_peaked_policy_has_a_positive_mean_cosine_from_six_responses_on(n):
    p = np.full(n, 1e-12)
    p[0] = 1 - p[1:].sum()
    cosines = gradient_cosines(p)
    assert cosines[1, 2] == pytest.approx(0.5, abs=1e-9)
    assert cosines[0, 1] == pytest.approx(-math.sqrt(n / (2 * (n - 1))), abs=1e-9)
    mean = mean_off_diagonal(cosines)
    assert mean == pytest.approx(((n - 2) / 2 - math.sqrt(2 * n / (n - 1))) / n, abs=1e-9)
    assert (mean > 0) == (n >= 6)


def exact_scores(tail):
    """⟨∇log π_i, ∇log π_j⟩ in fractions; the first response has what the tail leaves."""
    p = [1 - sum(map(Fraction, tail), Fraction(0)), *map(Fraction, tail)]
    squares = sum(value**2 for value in p)
    return p, [[(i == j) - p[i] - p[j] + squares for j in range(len(p))] for i in range(len(p))]


@pytest.mark.parametrize("with_kernel", [False, True], ids=["closed form", "kernel of free logits"])
@given(exponents=st.lists(st.floats(-40, -0.7), min_size=1, max_size=5), first=st.booleans())
@settings(PROPERTY, max_examples=60)
def test_near_one_hot_policies_nothing_cancels(with_kernel, exponents, first):
    tail = [10**exponent for exponent in exponents]
    assume(sum(tail) < 0.6)
    p, scores = exact_scores(tail)
    order = np.arange(len(p)) if first else np.arange(len(p))[::-1]
    floats = np.array([float(value) for value in p])[order]
    kernel = np.eye(len(p)) if with_kernel else None
    cosines, products = gradient_cosines(floats, kernel), gradient_inner_products(floats, kernel)
    for row, i in enumerate(order):
        for column, j in enumerate(order):
            size = math.sqrt(scores[i][i]) * math.sqrt(scores[j][j])
            assert cosines[row, column] == pytest.approx(float(scores[i][j]) / size, abs=1e-12)
            exact, scale = float(p[i] * p[j] * scores[i][j]), float(p[i]) * float(p[j]) * size
            assert products[row, column] == pytest.approx(exact, abs=1e-12 * scale)


@pytest.mark.parametrize("kernel", [None, np.eye(3)], ids=["closed form", "kernel"])
def test_a_one_hot_limit_by_hand(kernel):
    # Tails of 1e-20 and 3e-20: ∇log π_1 = e_1 − p ≈ (−1, 1, 0), ∇log π_0 ≈ 1e-20 · (4, −1, −3).
    cosines = gradient_cosines([1.0, 1e-20, 3e-20], kernel)
    assert cosines[0, 1] == pytest.approx(-5 / math.sqrt(26 * 2), rel=rounding(32))
    assert cosines[0, 2] == pytest.approx(-7 / math.sqrt(26 * 2), rel=rounding(32))
    assert cosines[1, 2] == pytest.approx(0.5, rel=rounding(32))


@pytest.mark.parametrize("kernel", [None, np.eye(3)], ids=["closed form", "kernel"])
def test_a_probability_of_zero_has_a_cosine_but_no_inner_product(kernel):
    p = [0.5, 0.5, 0.0]
    np.testing.assert_allclose(gradient_inner_products(p, kernel)[2], 0, atol=0)
    # ∇log π_2 = (−½, −½, 1) and ∇log π_0 = (½, −½, 0).
    np.testing.assert_allclose(gradient_cosines(p, kernel), [[1, -1, 0], [-1, 1, 0], [0, 0, 1]], atol=rounding(32))


@pytest.mark.parametrize("kernel", [None, np.eye(3)], ids=["closed form", "kernel"])
def test_a_gradient_of_zero_has_no_angle(kernel):
    cosines = gradient_cosines([1.0, 0.0, 0.0], kernel)
    assert np.isnan(cosines[0]).all()
    np.testing.assert_allclose(cosines[1:, 1:], [[1, 0.5], [0.5, 1]], rtol=rounding(32))
    assert np.isnan(gradient_cosines([0.3, 0.7], np.zeros((2, 2)))).all()


def test_a_kernel_that_no_logit_difference_sees_leaves_nothing_to_measure():
    # All logits move together, so the policy stays; what is left is rounding, and no warning.
    for p in np.random.default_rng(0).dirichlet(np.ones(5), size=20):
        assert np.abs(gradient_inner_products(p, np.full((5, 5), 0.1))).max() < rounding(
            25, 0.1
        )  # 25 products, each 0.1 of a share
        gradient_cosines(p, np.full((5, 5), 0.1))


def test_a_kernel_may_be_shared_or_have_leading_axes():
    rng = np.random.default_rng(0)
    p = softmax(rng.standard_normal((3, 4)), axis=-1)
    features = rng.standard_normal((2, 1, 4, 3))
    kernels = features @ features.swapaxes(-1, -2)
    for function in (gradient_inner_products, gradient_cosines):
        together, shared, alone = function(p, kernels), function(p, kernels[0, 0]), function(p)
        assert together.shape == (2, 3, 4, 4)
        assert alone.shape == (3, 4, 4)
        for i, j in np.ndindex(2, 3):
            np.testing.assert_allclose(together[i, j], function(p[j], kernels[i, 0]), **EXACT)
            np.testing.assert_allclose(shared[j], function(p[j], kernels[0, 0]), **EXACT)
            np.testing.assert_allclose(alone[j], function(p[j]), **EXACT)


def test_the_mean_off_the_diagonal_by_hand():
    matrix = np.array([[9.0, 1, 2], [3, 9, 4], [5, 6, 9]])
    assert mean_off_diagonal(matrix) == 3.5
    assert mean_off_diagonal(matrix, [True, False, True]) == 3.5
    assert mean_off_diagonal(matrix, np.array([True, True, False])) == 2
    np.testing.assert_array_equal(mean_off_diagonal(np.stack([matrix, -matrix]), [False, True, True]), [5, -5])
    np.testing.assert_array_equal(mean_off_diagonal(np.stack([matrix, -matrix])), [3.5, -3.5])


def test_identity_6_over_the_observed_alone_the_mean_may_have_either_sign():
    # Without the peak, the rest is pulled one way together.
    p = np.array([0.9, 0.02, 0.03, 0.05])
    products = gradient_inner_products(p)
    assert mean_off_diagonal(products) < 0 < mean_off_diagonal(products, p < 0.5)


# --- pulls and steps ---


@st.composite
def steps(draw, at_reference=False):
    """log p, log π_ref, winner, loser and β; at least one response is in no pair."""
    log_p, log_ref = draw(policies(2, least=3))
    win, lose = draw(st.permutations(range(len(log_p))))[:2]
    return log_p, log_p if at_reference else log_ref, win, lose, draw(st.sampled_from([0.3, 1.0, 2.0]))


def pair_at(log_p, log_ref, win, lose):
    return PairLogps(*(torch.as_tensor(side)[index] for side in (log_p, log_ref) for index in (win, lose)))


def weights_of(loss, log_p, win, lose):
    """λ_w and λ_l of the loss."""
    if isinstance(loss, DPO):
        return 1.0, 1.0
    return [weight.item() for weight in balanced_weights(*torch.tensor(log_p[[win, lose]]))]


def slope_of(loss, log_p, log_ref, win, lose):
    """β σ(−m) of the pair."""
    return loss.beta * torch.sigmoid(-loss.margin(pair_at(log_p, log_ref, win, lose))).item()


def logit_step(loss, log_p, log_ref, win, lose):
    """−∂L/∂θ of the pair, θ the logits, by autograd."""
    theta = torch.tensor(log_p, requires_grad=True)
    (slope,) = torch.autograd.grad(loss(pair_at(theta.log_softmax(-1), log_ref, win, lose)), theta)
    return -slope.numpy()


every_loss = pytest.mark.parametrize("make", [DPO, BalancedDPO])


@every_loss
@given(step=steps())
@PROPERTY
def test_the_pull_of_a_pair_is_the_losss_gradient_up_to_its_slope(make, step):
    *at, beta = step
    log_p, log_ref, win, lose = at
    loss = make(beta)
    leaf = torch.tensor(log_p, requires_grad=True)
    (slope,) = torch.autograd.grad(loss(pair_at(leaf, log_ref, win, lose)), leaf)
    weight = slope_of(loss, *at) * pair_weight(len(log_p), win, lose, *weights_of(loss, log_p, win, lose))
    np.testing.assert_allclose(weight, -slope.numpy(), **EXACT)


def test_the_pull_of_a_pair_by_hand():
    np.testing.assert_array_equal(pair_weight(4, 2, 0), [-1, 0, 1, 0])
    np.testing.assert_array_equal(pair_weight(4, 2, 0, 0.75, 0.25), [-0.25, 0, 0.75, 0])
    np.testing.assert_array_equal(pair_weight(2, np.int64(1), 1, 0.75, 0.25), [0, 0.5])  # a response against itself


@every_loss
@given(step=steps(), size=st.sampled_from([1e-3, 0.5, 20.0]))
@PROPERTY
def test_the_realised_change_is_that_of_a_gradient_step_on_the_logits(make, step, size):
    *at, beta = step
    log_p, _, win, lose = at
    loss = make(beta)
    after = log_softmax(log_p + size * logit_step(loss, *at))
    weight = slope_of(loss, *at) * pair_weight(len(log_p), win, lose, *weights_of(loss, log_p, win, lose))
    change = realised_change(log_p, weight, size)
    np.testing.assert_allclose(change, after - log_p, **EXACT)
    assert logsumexp(log_p + change) == pytest.approx(0, abs=1e-12)


@every_loss
@given(step=steps())
@PROPERTY
def test_the_first_order_change_is_the_limit_of_the_realised_one(make, step):
    *at, beta = step
    log_p, _, win, lose = at
    loss = make(beta)
    move = logit_step(loss, *at)
    weight = slope_of(loss, *at) * pair_weight(len(log_p), win, lose, *weights_of(loss, log_p, win, lose))
    first_order = first_order_change(log_p, weight)
    size = 1e-4
    central = (log_softmax(log_p + size * move) - log_softmax(log_p - size * move)) / (2 * size)
    np.testing.assert_allclose(first_order, central, rtol=1e-6, atol=1e-9)
    _, by_autograd = torch.autograd.functional.jvp(
        lambda theta: theta.log_softmax(-1), torch.tensor(log_p), torch.tensor(move)
    )
    np.testing.assert_allclose(first_order, by_autograd.numpy(), **EXACT)
    for size in (1e-2, 1e-3):  # the rest is of second order: step² times half the variance of Δθ
        rest = realised_change(log_p, weight, size) - size * first_order
        np.testing.assert_allclose(rest, 0, atol=0.5 * size**2 * np.ptp(move) ** 2 + 1e-14)


@given(log_p=policies(), seed=st.integers(0, 100))
@PROPERTY
def test_the_first_order_change_keeps_the_sum_of_probabilities(log_p, seed):
    change = first_order_change(log_p, np.random.default_rng(seed).standard_normal(len(log_p)))
    assert (np.exp(log_p) * change).sum() == pytest.approx(0, abs=1e-12)


def test_changes_are_those_of_each_row():
    rng = np.random.default_rng(0)
    log_p, weight = log_softmax(rng.standard_normal((3, 1, 4)), axis=-1), rng.standard_normal((2, 4))
    for function in (first_order_change, lambda *at: realised_change(*at, 0.7)):
        together = function(log_p, weight)
        assert together.shape == (3, 2, 4)
        for i, j in np.ndindex(3, 2):
            np.testing.assert_allclose(together[i, j], function(log_p[i, 0], weight[j]), rtol=1e-12, atol=1e-15)


def test_the_weights_over_all_pairs_move_the_policy_as_autograd_says():
    rng = np.random.default_rng(0)
    log_p, log_q = log_softmax(rng.standard_normal((2, 5)), axis=-1)
    theta = torch.tensor(log_p, requires_grad=True)
    logp = theta.log_softmax(-1)
    index = [side.ravel() for side in np.meshgrid(range(5), range(5), indexing="ij")]
    loss = DPO()(pair_at(logp, np.full(5, -math.log(5)), *index))
    wins = torch.sigmoid(torch.tensor(log_q[index[0]] - log_q[index[1]]))
    (slope,) = torch.autograd.grad(2 * (wins * loss).mean(), theta)  # both label terms, by symmetry
    after = log_softmax(log_p - 3.0 * slope.numpy())
    change = realised_change(log_p, 2 / 25 * dpo_weight(log_p, log_q), 3.0)
    np.testing.assert_allclose(change, after - log_p, **EXACT)


# --- identities of the theory, by number ---


@given(step=steps())
@PROPERTY
def test_identity_9_winner_against_loser_under_dpo(step):
    *at, beta = step
    log_p, _, win, lose = at
    p = np.exp(log_p)
    # 1 − p loses digits where p is almost 1.
    near = 1e-10 + 1e-15 / min(1 - p[win] + p[lose], 1 + p[win] - p[lose])
    closed = p[win] * (1 - p[win] + p[lose]) / (p[lose] * (1 + p[win] - p[lose]))
    by_theory = p * first_order_change(log_p, pair_weight(len(p), win, lose))
    assert by_theory[win] / -by_theory[lose] == pytest.approx(closed, rel=near)
    _, realised = torch.autograd.functional.jvp(
        lambda theta: theta.softmax(-1), torch.tensor(log_p), torch.tensor(logit_step(DPO(beta), *at))
    )
    assume(realised.abs().max() > 1e-8)
    assert (realised[win] / -realised[lose]).item() == pytest.approx(closed, rel=1e-8)


@every_loss
@given(step=steps())
@PROPERTY
def test_identity_9_a_response_in_no_pair_moves_with_the_probabilities_of_the_pair(make, step):
    *at, beta = step
    log_p, _, win, lose = at
    loss, p = make(beta), np.exp(log_p)
    win_weight, lose_weight = weights_of(loss, log_p, win, lose)
    unobserved = [k for k in range(len(p)) if k not in (win, lose)]
    closed = -(win_weight * p[win] - lose_weight * p[lose])
    closed = closed + (win_weight - lose_weight) * ((p**2).sum() - p[unobserved])
    if make is DPO:
        np.testing.assert_allclose(closed, -(p[win] - p[lose]), rtol=1e-14)
    by_theory = first_order_change(log_p, pair_weight(len(p), win, lose, win_weight, lose_weight))[unobserved]
    np.testing.assert_allclose(by_theory, closed, **EXACT)
    _, by_autograd = torch.autograd.functional.jvp(
        lambda theta: theta.log_softmax(-1), torch.tensor(log_p), torch.tensor(logit_step(loss, *at))
    )
    np.testing.assert_allclose(by_autograd.numpy()[unobserved], slope_of(loss, *at) * closed, rtol=1e-9, atol=1e-12)


@given(step=steps())
@PROPERTY
def test_identity_11_dpo_leaves_the_logit_of_a_response_in_no_pair_alone_and_bdpo_does_not(step):
    log_p, _, win, lose, _ = step
    n = len(log_p)
    unobserved = [k for k in range(n) if k not in (win, lose)]
    assert (in_logits(pair_weight(n, win, lose), log_p)[unobserved] == 0).all()
    win_weight, lose_weight = weights_of(BalancedDPO(), log_p, win, lose)
    moved = in_logits(pair_weight(n, win, lose, win_weight, lose_weight), log_p)[unobserved]
    np.testing.assert_allclose(moved, -np.exp(log_p[unobserved]) * (win_weight - lose_weight), **EXACT)


@given(step=steps(at_reference=True))
@PROPERTY
def test_identity_16_scale_matched_bdpo_against_dpo_at_the_reference(step):
    *at, beta = step
    log_p, _, win, lose = at
    p = np.exp(log_p)
    win_weight, lose_weight = weights_of(BalancedDPO(), log_p, win, lose)
    unobserved = [k for k in range(len(p)) if k not in (win, lose)]
    bracket = p[win] + p[lose] + 2 * p[unobserved] - 2 * (p**2).sum()
    closed = (lose_weight - win_weight) * bracket
    moves = [
        first_order_change(log_p, pair_weight(len(p), win, lose, *weights))[unobserved]
        for weights in ((2 * win_weight, 2 * lose_weight), (1, 1))
    ]
    np.testing.assert_allclose(moves[0] - moves[1], closed, **EXACT)
    # Both margins are 0 here: DPO's slope is β/2, that of bDPO at 2β is β on weights that share one.
    by_autograd = [
        torch.autograd.functional.jvp(
            lambda theta: theta.log_softmax(-1), torch.tensor(log_p), torch.tensor(logit_step(loss, *at))
        )[1].numpy()[unobserved]
        for loss in (BalancedDPO(2 * beta), DPO(beta))
    ]
    np.testing.assert_allclose(by_autograd[0] - by_autograd[1], beta / 2 * closed, rtol=1e-9, atol=1e-12)
