"""Weights under distribution shift meet autograd and finite differences; Theorem 3's proof and identity 8, tested."""

from fractions import Fraction
from math import log

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rounding import rounding
from scipy.special import expit, log_softmax

from gradlab.losses import DPO, BalancedDPO, PairLogps, policy_gradient
from gradlab.theory import (
    balanced_weight,
    bdpo_weight,
    covariance_gap,
    dpo_weight,
    extrema,
    in_logits,
    log_ratio_weight,
    outside,
    variance_ratio,
)
from gradlab.theory.weight_variance import noise_to_signal

PROPERTY = settings(deadline=None, derandomize=True, max_examples=40)
EXACT = {"rtol": 1e-10, "atol": 1e-10}

betas = st.sampled_from([0.1, 0.5, 1.0, 3.0])
ROUTES = {"dpo": (dpo_weight, DPO), "bdpo": (bdpo_weight, BalancedDPO)}
every_loss = pytest.mark.parametrize(("weight", "make"), ROUTES.values(), ids=ROUTES)


@st.composite
def worlds(draw, rows=3):
    """log p, log q and log π_ref over the same responses, some of them peaked."""
    n = draw(st.integers(2, 7))
    logits = st.lists(st.floats(-6, 6), min_size=n, max_size=n)
    return [log_softmax(draw(st.sampled_from([0.1, 1.0, 5.0])) * np.array(draw(logits))) for _ in range(rows)]


def random_log_p(*shape, seed=0, peak=1.0):
    return log_softmax(peak * np.random.default_rng(seed).standard_normal(shape), axis=-1)


def all_pairs_loss(loss, log_p, log_q, log_ref):
    """Mean over all n² ordered pairs, both label terms, soft Bradley–Terry labels; torch, free log-probabilities."""
    shape = (len(log_p),) * 2
    sides = [side.expand(shape) for one in (log_p, torch.tensor(log_ref)) for side in (one[:, None], one[None, :])]
    pairs = PairLogps(*sides)
    log_q = torch.tensor(log_q)
    wins = torch.sigmoid(log_q[:, None] - log_q[None, :])
    return (wins * loss(pairs) + (1 - wins) * loss(pairs.swapped())).mean()


def pull(loss, log_p, log_q, log_ref, of_logits=False):
    """−n²/(2β) ∂L/∂log p, or of the logits; by autograd."""
    leaf = torch.tensor(log_p, requires_grad=True)
    value = all_pairs_loss(loss, torch.log_softmax(leaf, -1) if of_logits else leaf, log_q, log_ref)
    (slope,) = torch.autograd.grad(value, leaf)
    return -(len(log_p) ** 2) / (2 * loss.beta) * slope.numpy()


# --- the closed forms are gradients ---


@every_loss
@given(world=worlds(), beta=betas)
@PROPERTY
def test_weights_are_the_gradient_of_the_loss_over_all_pairs(weight, make, world, beta):
    log_p, log_q, log_ref = world
    np.testing.assert_allclose(weight(log_p, log_q, log_ref, beta), pull(make(beta), log_p, log_q, log_ref), **EXACT)


@every_loss
@given(world=worlds(), beta=betas)
@PROPERTY
def test_in_logits_they_are_the_gradient_through_the_softmax(weight, make, world, beta):
    log_p, log_q, log_ref = world
    by_autograd = pull(make(beta), log_p, log_q, log_ref, of_logits=True)
    np.testing.assert_allclose(in_logits(weight(log_p, log_q, log_ref, beta), log_p), by_autograd, **EXACT)


@pytest.mark.parametrize("balanced", [False, True], ids=["dpo", "bdpo"])
@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_weights_are_central_differences_of_the_loss_written_out(balanced, beta):
    n = 6
    log_p, log_q, log_ref = random_log_p(3, n)
    share = log_p[None, :] / (log_p[:, None] + log_p[None, :]) if balanced else np.ones((n, n))  # λ is held fixed
    wins = expit(log_q[:, None] - log_q[None, :])

    def loss(log_p):
        h = log_p - log_ref
        margin = beta * (share * h[:, None] - share.T * h[None, :])
        return (wins * np.logaddexp(0, -margin) + wins.T * np.logaddexp(0, margin)).mean()

    def through_softmax(logits):
        return loss(log_softmax(logits))

    def slopes(function, step=1e-5):
        return np.array([(function(log_p + e) - function(log_p - e)) / (2 * step) for e in step * np.eye(n)])

    weight = (bdpo_weight if balanced else dpo_weight)(log_p, log_q, log_ref, beta)
    scale = -2 * beta / n**2
    np.testing.assert_allclose(scale * weight, slopes(loss), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(scale * in_logits(weight, log_p), slopes(through_softmax), rtol=1e-6, atol=1e-9)


@given(world=worlds(2))
@PROPERTY
def test_balanced_weights_are_the_policy_gradient_with_the_weights_as_advantages(world):
    log_p, log_q = world
    advantage = torch.tensor(dpo_weight(log_p, log_q))
    for of_logits in (False, True):
        leaf = torch.tensor(log_p, requires_grad=True)
        logp = torch.log_softmax(leaf, -1) if of_logits else leaf
        expected = (logp.detach().exp() * policy_gradient(logp, logp.detach(), advantage)).sum()
        (slope,) = torch.autograd.grad(expected, leaf)
        weight = balanced_weight(log_p, log_q)
        np.testing.assert_allclose(in_logits(weight, log_p) if of_logits else weight, -slope.numpy(), **EXACT)


# --- what they are worth ---


@given(world=worlds(2))
@PROPERTY
def test_identity_7_written_out(world):
    log_p, log_q = world
    p, q = np.exp(world)
    n = len(p)
    by_hand = [sum(q[i] / (q[i] + q[j]) - p[i] / (p[i] + p[j]) for j in range(n)) for i in range(n)]
    np.testing.assert_allclose(dpo_weight(log_p, log_q), by_hand, **EXACT)
    np.testing.assert_allclose(balanced_weight(log_p, log_q), by_hand * p, **EXACT)


def test_weights_of_two_responses_by_hand():
    log_p, log_q = np.log([0.25, 0.75]), np.log([0.6, 0.4])
    np.testing.assert_allclose(dpo_weight(log_p, log_q), [0.6 - 0.25, 0.4 - 0.75], rtol=rounding(64))
    # β = 2: odds of 1 : 9. With the reference (0.1, 0.9), h differs by log(0.25 · 0.9 / (0.75 · 0.1)) = log 3.
    np.testing.assert_allclose(dpo_weight(log_p, log_q, beta=2.0), [0.5, -0.5], rtol=rounding(64))
    np.testing.assert_allclose(
        dpo_weight(log_p, log_q, np.log([0.1, 0.9])), [0.6 - 0.75, 0.4 - 0.25], rtol=0, atol=rounding(32)
    )
    # p = (1/16, 1/4): λ = 1/3 for the first. Its margin at β = 1 is (1/3 − 2/3) log 3, so σ(m) = 1/(1 + 3^{1/3}).
    log_p, log_q = np.log([1 / 16, 1 / 4, 11 / 16]), np.log([0.2, 0.3, 0.5])
    only = bdpo_weight(log_p, log_q)[0] - _bdpo_term(log_p, log_q, 0, 2)
    assert only == pytest.approx((0.4 - 1 / (1 + 3 ** (1 / 3))) / 3, abs=rounding(32))


def _bdpo_term(log_p, log_q, i, j):
    share = log_p[j] / (log_p[i] + log_p[j])
    return share * (expit(log_q[i] - log_q[j]) - expit((2 * share - 1) * log(len(log_p))))


@given(world=worlds(), beta=betas)
@PROPERTY
def test_dpos_weights_sum_to_zero_so_that_logits_see_them_as_they_are(world, beta):
    log_p, log_q, log_ref = world
    weight = dpo_weight(log_p, log_q, log_ref, beta)
    assert weight.sum() == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(in_logits(weight, log_p), weight, **EXACT)


@given(world=worlds(2))
@PROPERTY
def test_any_pull_on_logits_sums_to_zero_and_adding_p_times_anything_changes_nothing(world):
    log_p, weight = world
    moved = in_logits(weight, log_p)
    assert moved.sum() == pytest.approx(0, abs=1e-10)
    np.testing.assert_allclose(in_logits(weight + 7 * np.exp(log_p), log_p), moved, **EXACT)


@given(world=worlds(3))
@PROPERTY
def test_logits_do_not_care_about_a_baseline(world):
    log_p, log_q, weight = world
    plain, centred = (balanced_weight(log_p, log_q, weight=weight, baseline=baseline) for baseline in (False, True))
    p = np.exp(log_p)
    np.testing.assert_allclose(plain, weight * p, **EXACT)
    np.testing.assert_allclose(centred, (weight - (weight * p).sum()) * p, **EXACT)
    assert centred.sum() == pytest.approx(0, abs=1e-12)
    for form in (plain, centred):
        np.testing.assert_allclose(in_logits(form, log_p), centred, **EXACT)


@given(world=worlds(2), beta=betas)
@PROPERTY
def test_identity_10_dpos_weights_vanish_at_its_optimum_alone(world, beta):
    log_q, log_ref = world
    optimum = log_softmax(log_ref + log_q / beta)
    np.testing.assert_allclose(dpo_weight(optimum, log_q, log_ref, beta), 0, atol=1e-10)
    assume(np.ptp(log_q) > 0.1)
    assert np.abs(dpo_weight(log_ref, log_q, log_ref, beta)).max() > 1e-4


@given(world=worlds(1), beta=betas)
@PROPERTY
def test_at_a_uniform_reference_bdpo_pulls_half_as_much_as_dpo(world, beta):
    (log_q,) = world
    uniform = np.full(len(log_q), -log(len(log_q)))
    np.testing.assert_allclose(
        bdpo_weight(uniform, log_q, beta=beta), dpo_weight(uniform, log_q, beta=beta) / 2, **EXACT
    )


@given(world=worlds(2), beta=betas)
@PROPERTY
def test_at_any_reference_both_sides_of_bdpo_together_pull_half_as_much_as_dpos(world, beta):
    log_q, log_ref = world
    signed = expit(log_q[:, None] - log_q) - 0.5  # of DPO, each pair's pull on its first response
    share = log_ref / (log_ref[:, None] + log_ref)
    np.testing.assert_allclose(bdpo_weight(log_ref, log_q, log_ref, beta), (share * signed).sum(1), **EXACT)
    np.testing.assert_allclose(share + share.T, 1, **EXACT)


@every_loss
def test_a_missing_reference_is_a_uniform_one(weight, make):
    log_p, log_q = random_log_p(2, 5)
    uniform = np.full(5, -log(5))
    np.testing.assert_allclose(weight(log_p, log_q), weight(log_p, log_q, uniform), rtol=0, atol=rounding(32))


def test_the_log_ratio_weight_is_the_policy_gradients_advantage_at_beta_one():
    # ∇ E_p[log q − log p] through the softmax; with constants, which no pull on logits sees.
    log_p, log_q = random_log_p(2, 6)
    logits = torch.tensor(log_p, requires_grad=True)
    logp = torch.log_softmax(logits, -1)
    (slope,) = torch.autograd.grad((logp.exp() * (torch.tensor(log_q) - logp)).sum(), logits)
    weight = log_ratio_weight(log_p, log_q)
    np.testing.assert_array_equal(weight, log_q - log_p)
    in_softmax = in_logits(balanced_weight(log_p, log_q, weight=weight), log_p)
    np.testing.assert_allclose(in_softmax, slope.numpy(), **EXACT)


# --- shapes, symmetries and corners ---

EVERY_WEIGHT = {
    "dpo": dpo_weight,
    "dpo, reference": lambda log_p, log_q: dpo_weight(log_p, log_q, log_p[..., ::-1], 0.5),
    "bdpo": bdpo_weight,
    "bdpo, reference": lambda log_p, log_q: bdpo_weight(log_p, log_q, log_q, 2.0),
    "log-ratio": log_ratio_weight,
    "balanced": balanced_weight,
    "balanced, baseline": lambda log_p, log_q: balanced_weight(log_p, log_q, baseline=True),
    "balanced, own weight": lambda log_p, log_q: balanced_weight(log_p, log_q, weight=log_q**2),
    "in logits": lambda log_p, log_q: in_logits(log_q, log_p),
}
every_weight = pytest.mark.parametrize("weight", EVERY_WEIGHT.values(), ids=EVERY_WEIGHT)


@every_weight
def test_leading_axes_broadcast_and_each_row_is_what_it_is_alone(weight):
    log_p, log_q = random_log_p(3, 1, 4, seed=1), random_log_p(2, 4, seed=2)
    together = weight(log_p, log_q)
    assert together.shape == (3, 2, 4)
    for i, j in np.ndindex(3, 2):
        np.testing.assert_allclose(together[i, j], weight(log_p[i, 0], log_q[j]), rtol=0, atol=rounding(32))


@every_loss
def test_a_reference_may_have_leading_axes_of_its_own(weight, make):
    log_p, log_q, log_ref = random_log_p(4, seed=1), random_log_p(4, seed=2), random_log_p(3, 4, seed=3)
    together = weight(log_p, log_q, log_ref)
    for row, alone in zip(together, log_ref, strict=True):
        np.testing.assert_allclose(row, weight(log_p, log_q, alone), rtol=0, atol=rounding(32))


@pytest.mark.parametrize("weight", [EVERY_WEIGHT[name] for name in EVERY_WEIGHT if name != "dpo, reference"])
@given(world=worlds(2), data=st.data())
@PROPERTY
def test_the_order_of_responses_does_not_matter(weight, world, data):
    log_p, log_q = world
    order = np.array(data.draw(st.permutations(range(len(log_p)))))
    np.testing.assert_allclose(weight(log_p[order], log_q[order]), weight(log_p, log_q)[order], **EXACT)


@every_loss
@pytest.mark.parametrize("beta", [1e-3, 1.0, 1e3])
def test_weights_are_finite_and_autograds_where_probabilities_underflow(weight, make, beta):
    rows = np.array([[-0.0, -1e6, -1e3], [-1e6, -1e3, -0.0], [-1.0, -1e6, np.log1p(-np.exp(-1.0))]])
    for log_p in rows:
        for log_q in rows:
            found = weight(log_p, log_q, rows[2], beta)
            assert np.isfinite(found).all()
            np.testing.assert_allclose(found, pull(make(beta), log_p, log_q, rows[2]), **EXACT)


# --- Theorem 3, first half: the proof ---


@st.composite
def shifted_bumps(draw):
    """A grid, and Gaussian log-densities on it: (y, log p, log q, μ_p, μ_q)."""
    n = draw(st.integers(8, 60))
    y = np.linspace(0.0, 20.0, n)
    left, distance = draw(st.floats(2, 8)), draw(st.floats(1, 10))
    widths = [draw(st.floats(0.3, 6)) for _ in range(2)]
    modes = (left, left + distance)
    log_p, log_q = (log_softmax(-0.5 * ((y - mode) / width) ** 2) for mode, width in zip(modes, widths, strict=True))
    return y, log_p, log_q, *modes


@given(bumps=shifted_bumps(), beta=betas)
@PROPERTY
def test_between_the_modes_dpos_weights_rise_strictly(bumps, beta):
    y, log_p, log_q, low, high = bumps
    between = (y >= low) & (y <= high)
    assert (np.diff(dpo_weight(log_p, log_q, beta=beta)[between]) > 0).all()


@given(bumps=shifted_bumps())
@PROPERTY
def test_theorem_3_dpos_extrema_lie_outside_the_modes_up_to_one_cell_and_never_between(bumps):
    y, log_p, log_q, low, high = bumps
    placed = outside(y, dpo_weight(log_p, log_q), low, high)
    assert placed.slack >= -(y[1] - y[0])
    mirrored = outside(-y[::-1], dpo_weight(log_p, log_q)[::-1], -high, -low)
    assert mirrored.slack == pytest.approx(placed.slack, abs=1e-6)


@given(bumps=shifted_bumps(), seed=st.integers(0, 1000))
@PROPERTY
def test_the_proof_needs_unimodal_densities_only(bumps, seed):
    # Any increasing, then decreasing log-densities with these modes; the grid's points are the modes.
    y, _, _, low, high = bumps
    rng = np.random.default_rng(seed)
    modes = np.searchsorted(y, [low, high])
    assume(modes[0] < modes[1] < len(y))
    rises = [np.where(np.arange(len(y) - 1) < mode, 1, -1) * rng.exponential(size=len(y) - 1) for mode in modes]
    log_p, log_q = (log_softmax(np.append(0.0, np.cumsum(rise))) for rise in rises)
    weight = dpo_weight(log_p, log_q)
    assert (np.diff(weight[modes[0] : modes[1] + 1]) > 0).all()


def test_theorem_3_fails_for_the_balanced_weights_minimum_once_the_grid_is_fine():
    # Widths 2, modes 7 and 13: the minimum of w p lies below μ_p by (√(h² + 4s²) − h)/2 = 1 for w = log q − log p.
    y = np.linspace(0, 20, 801)
    log_p, log_q = (log_softmax(-0.5 * ((y - mode) / 2.0) ** 2) for mode in (7.0, 13.0))
    by_dpo = extrema(y, balanced_weight(log_p, log_q))
    by_log_ratio = extrema(y, balanced_weight(log_p, log_q, weight=log_ratio_weight(log_p, log_q)))
    for found in (by_dpo, by_log_ratio):
        assert [one.kind for one in found] == ["minimum", "maximum"]
        assert found[0].position < 7.0 < found[1].position < 13.0
    assert by_log_ratio[0].position == pytest.approx(6.0, abs=1e-3)


# --- Theorems 4–5 ---


def moments(w, p):
    """Exactly: Var[w p], Var[w] E[p²] and the gap of identity 8 without the assumption on E[w]."""

    def mean(values):
        return sum(values, Fraction(0)) / len(values)

    def var(values):
        return mean([value**2 for value in values]) - mean(values) ** 2

    both = [a * b for a, b in zip(w, p, strict=True)]
    squares = mean([b**2 for b in p])
    covariance = mean([ab**2 for ab in both]) - mean([a**2 for a in w]) * squares
    return var(both), var(w) * squares, covariance, mean(both), mean(w)


@st.composite
def exact_cases(draw, centred=False):
    n = draw(st.integers(2, 8))
    w = [
        Fraction(a)
        for a in draw(st.lists(st.integers(-9, 9), min_size=n, max_size=n).filter(lambda w: len(set(w)) > 1))
    ]
    if centred:
        w = [a - sum(w) / n for a in w]
    counts = draw(st.lists(st.integers(0, 9), min_size=n, max_size=n).filter(any))
    return w, [Fraction(count, sum(counts)) for count in counts]


@given(case=exact_cases())
@PROPERTY
def test_the_variance_ratio_is_below_one_exactly_where_the_gap_is_negative(case):
    w, p = case
    lowered, bound, covariance, product, mean_w = moments(w, p)
    gap = covariance - product**2 + mean_w**2 * sum(b**2 for b in p) / len(p)
    assert lowered - bound == gap  # the identity itself, in fractions
    as_floats = np.array(w, float), np.array(p, float)
    assert variance_ratio(*as_floats) == pytest.approx(float(lowered / bound), rel=1e-9, abs=1e-12)
    assert covariance_gap(*as_floats) == pytest.approx(float(gap), rel=1e-9, abs=1e-12)
    if abs(gap) > 1e-9:
        assert (variance_ratio(*as_floats) < 1) == (covariance_gap(*as_floats) < 0)


@given(case=exact_cases(centred=True))
@PROPERTY
def test_identity_8_for_weights_of_mean_zero(case):
    w, p = case
    lowered, bound, covariance, product, mean_w = moments(w, p)
    assert mean_w == 0
    assert (lowered < bound) == (covariance < product**2)
    as_floats = np.array(w, float), np.array(p, float)
    assert covariance_gap(*as_floats) == pytest.approx(float(covariance - product**2), rel=1e-9, abs=1e-12)


@given(world=worlds())
@PROPERTY
def test_identity_8_holds_of_dpos_own_weights(world):
    log_p, log_q, log_ref = world
    w, p = dpo_weight(log_p, log_q, log_ref), np.exp(log_p)
    assume(np.var(w) > 1e-6)
    covariance = np.cov(w**2, p**2, bias=True)[0, 1]
    difference = covariance - (w * p).mean() ** 2
    assert covariance_gap(w, p) == pytest.approx(difference, abs=1e-10)
    assume(abs(difference) > 1e-10)
    assert (variance_ratio(w, p) < 1) == (difference < 0)


def test_the_variance_ratio_by_hand():
    # w p = (1/2, −1/4, 0), so Var = 5/48 − 1/144 = 7/72; Var[w] = 2/3; E[p²] = 1/8.
    w, p = [1.0, -1.0, 0.0], [0.5, 0.25, 0.25]
    assert variance_ratio(w, p) == pytest.approx((7 / 72) / (2 / 3 * 1 / 8), rel=rounding(64))
    assert covariance_gap(w, p) == pytest.approx(7 / 72 - 1 / 12, abs=rounding(32, 0.1))


def test_independent_weights_of_mean_zero_gain_and_lose_nothing():
    # A full table of w against p, so that they are independent exactly.
    w, p = (side.ravel() for side in np.meshgrid([-2.0, -1.0, 3.0], np.array([1.0, 2.0, 5.0, 8.0]) / 48, indexing="ij"))
    assert variance_ratio(w, p) == pytest.approx(1, rel=rounding(64))
    assert covariance_gap(w, p) == pytest.approx(0, abs=rounding(12, 0.1))
    # With a mean of their own they lose: the ratio is 1 + E[w]² Var[p] / (Var[w] E[p²]).
    expected = 1 + 4 * np.var(p) / (np.var(w) * (p**2).mean())
    assert variance_ratio(w + 2, p) == pytest.approx(expected, rel=rounding(128))
    assert covariance_gap(w + 2, p) == pytest.approx(4 * np.var(p), rel=1e-12)


def test_a_uniform_policy_scales_the_variance_and_no_more():
    w = np.random.default_rng(0).standard_normal(9)
    assert variance_ratio(w, np.full(9, 1 / 9)) == pytest.approx(1, rel=rounding(128))


def test_theorem_5_holds_for_a_mild_shift_and_fails_for_a_policy_much_narrower_than_the_preference():
    y = np.linspace(0, 20, 200)

    def ratio(mean_p, width_p, mean_q, width_q):
        log_p = log_softmax(-0.5 * ((y - mean_p) / width_p) ** 2)
        return variance_ratio(dpo_weight(log_p, log_softmax(-0.5 * ((y - mean_q) / width_q) ** 2)), np.exp(log_p))

    assert ratio(9.0, 3.0, 11.0, 3.0) < 1
    assert ratio(10.0, 0.5, 10.0, 4.0) > 1
    assert ratio(4.0, 1.0, 16.0, 3.0) > 1


@pytest.mark.parametrize("constant", [0.0, 2.0, 0.1, -1 / 3])
def test_constant_weights_have_no_variance_ratio(constant):
    assert np.isnan(variance_ratio(np.full(3, constant), [0.2, 0.3, 0.5]))


def test_variances_are_taken_row_by_row():
    w, p = np.random.default_rng(0).standard_normal((3, 1, 5)), np.exp(random_log_p(2, 5))
    for function in (variance_ratio, covariance_gap):
        together = function(w, p)
        assert together.shape == (3, 2)
        for i, j in np.ndindex(3, 2):
            assert together[i, j] == pytest.approx(function(w[i, 0], p[j]), rel=1e-12)
    assert np.isnan(variance_ratio([[1.0, 1.0], [1.0, 2.0]], [0.3, 0.7])).tolist() == [True, False]


def test_noise_to_signal_is_nan_where_there_is_no_signal():
    np.testing.assert_array_equal(noise_to_signal([[0.0, 0.0], [1.0, 3.0]]), [np.nan, 0.25])
