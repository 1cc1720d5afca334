"""The losses: values and slopes by hand, what each owes, the identities of the theory, and their doors."""

import math
from dataclasses import FrozenInstanceError, dataclass, fields, replace
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from own_losses import EVERY_LOSS, dear_every_loss, every_logistic_loss, every_loss
from rounding import rounding

from gradlab.losses import (
    DPO,
    IPO,
    PAIR_LOSSES,
    BalancedDPO,
    ConservativeDPO,
    FixedWeightDPO,
    LogisticLoss,
    NaiveBalancedDPO,
    PairLogps,
    PairLoss,
    balanced_weights,
    hyper_parameters,
    log_prob_ratio,
    pair_loss,
    policy_gradient,
    ppo_clip,
    slopes,
)

EXACT = {"rtol": 1e-10, "atol": 1e-12}
PROPERTY = settings(deadline=None, derandomize=True, max_examples=60)

log_probs = st.floats(-40, -1e-3)
betas = st.sampled_from([0.1, 0.5, 1.0, 2.0])


@st.composite
def pairs_of(draw, logps=log_probs):
    return at(*(draw(logps) for _ in range(4)))


def at(win, lose, ref_win=-2.0, ref_lose=-2.0, dtype=torch.float64):
    """Pairs whose responses have 3 and 5 tokens."""
    return PairLogps(*(torch.as_tensor(value, dtype=dtype) for value in (win, lose, ref_win, ref_lose, 3, 5)))


def random_pairs(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    sides = [-8 * torch.rand(shape, generator=generator, dtype=dtype) - 0.01 for _ in range(4)]
    return PairLogps(*sides, *(torch.randint(1, 50, shape, generator=generator) for _ in range(2)))


def value_and_slopes(loss, logps):
    """L, ∂L/∂log π_w and ∂L/∂log π_l of each pair."""
    win, lose = (side.clone().requires_grad_() for side in (logps.win, logps.lose))
    value = loss(replace(logps, win=win, lose=lose))
    return value.detach(), *torch.autograd.grad(value.sum(), (win, lose))


def around(loss, logps, reach):
    """Value and slopes of each pair where either side moves by reach or stays: (9, 3, ...)."""
    moves = product([-reach, 0.0, reach], repeat=2)
    moved = (replace(logps, win=logps.win + win, lose=logps.lose + lose) for win, lose in moves)
    return torch.stack([torch.stack(value_and_slopes(loss, pairs)) for pairs in moved])


def with_beta(loss, beta):
    has_beta = "beta" in {field.name for field in fields(loss)}
    return replace(loss, beta=beta) if has_beta else loss


# Derived by hand with h_w = log π_w + 2 and h_l = log π_l + 2: the margin m, and its slopes in log π_w and log π_l.
BY_HAND = {
    "dpo": (DPO(0.5), -1.0, -3.0, 1.0, 0.5, -0.5),
    "dpo, loser ahead": (DPO(2.0), -3.0, -1.0, -4.0, 2.0, -2.0),
    "bdpo: weights 3/4, 1/4": (BalancedDPO(0.5), -1.0, -3.0, 0.5, 0.375, -0.125),
    "bdpo: weights 1/5, 4/5": (BalancedDPO(2.0), -4.0, -1.0, -2.4, 0.4, -1.6),
    "nbdpo: clipped to 1.5": (NaiveBalancedDPO(0.5, 0.5), -1.0, -3.0, 1.25, 0.75, -0.5),
    "nbdpo: 1.25, inside the clip": (NaiveBalancedDPO(2.0, 0.5), -1.75, -2.0, 0.625, 2.5, -2.0),
    "nbdpo: loser ahead, 1": (NaiveBalancedDPO(0.5, 0.5), -3.0, -1.0, -1.0, 0.5, -0.5),
    "symmetric: clipped to 1.5": (NaiveBalancedDPO(0.5, 0.5, True), -1.0, -3.0, 1.25, 0.75, -0.5),
    "symmetric: clipped to 2/3": (NaiveBalancedDPO(0.5, 0.5, True), -3.0, -1.0, -5 / 6, 1 / 3, -0.5),
    "symmetric: 3/4, inside": (NaiveBalancedDPO(2.0, 0.5, True), -2.25, -2.0, -0.375, 1.5, -2.0),
    "fixed weight 1/4": (FixedWeightDPO(0.5, 0.25), -1.0, -3.0, 0.5, 0.125, -0.375),
}


@pytest.mark.parametrize(("loss", "win", "lose", "margin", "win_slope", "lose_slope"), BY_HAND.values(), ids=BY_HAND)
def test_value_and_gradient_are_those_derived_by_hand(loss, win, lose, margin, win_slope, lose_slope):
    value, win_grad, lose_grad = value_and_slopes(loss, at(win, lose))
    pull = 1 / (1 + math.exp(margin))  # σ(−m); ∂L/∂m is −σ(−m)
    assert loss.margin(at(win, lose)).item() == pytest.approx(margin, abs=rounding(16, 4.0))
    assert value.item() == pytest.approx(math.log1p(math.exp(-margin)), abs=rounding(16, 4.0))
    assert win_grad.item() == pytest.approx(-pull * win_slope, abs=rounding(16, 4.0))
    assert lose_grad.item() == pytest.approx(-pull * lose_slope, abs=rounding(16, 4.0))


# The same for losses that are not −log σ(m): the value, and its slope in log π_w; that in log π_l is the opposite.
# cDPO is log(1 + e^−m) + εm, with slope β(ε − σ(−m)).
NOT_LOGISTIC_BY_HAND = {
    "cdpo: m = 1": (ConservativeDPO(0.5, 0.25), -1.0, -3.0, 0.5632616875182228, -0.009470710684997547),
    "cdpo: m = −4": (ConservativeDPO(2.0, 0.1), -3.0, -1.0, 3.618149927917809, -1.764027580075817),
    "cdpo: m = 4, too far": (ConservativeDPO(2.0, 0.1), -1.0, -3.0, 0.4181499279178098, 0.16402758007581688),
    "ipo: 2 − 1": (IPO(0.5), -1.0, -3.0, 1.0, 2.0),
    "ipo: −2 − 1/4": (IPO(2.0), -3.0, -1.0, 5.0625, -4.5),
    "ipo: 2 − 2, there": (IPO(0.25), -1.0, -3.0, 0.0, 0.0),
}


@pytest.mark.parametrize(
    ("loss", "win", "lose", "value", "slope"), NOT_LOGISTIC_BY_HAND.values(), ids=NOT_LOGISTIC_BY_HAND
)
def test_value_and_gradient_of_a_loss_of_the_margin_are_those_derived_by_hand(loss, win, lose, value, slope):
    found = [part.item() for part in value_and_slopes(loss, at(win, lose))]
    assert found == pytest.approx([value, slope, -slope], abs=rounding(16, 6.0))


def test_one_dpo_value_in_digits():
    # m = 1: log(1 + 1/e) and σ(−1)/2, from a table.
    value, win_grad, lose_grad = value_and_slopes(DPO(0.5), at(-1.0, -3.0))
    assert value.item() == pytest.approx(0.31326168751822286, abs=rounding(8))
    assert win_grad.item() == pytest.approx(-0.13447071068499755, abs=rounding(8))
    assert lose_grad.item() == pytest.approx(0.13447071068499755, abs=rounding(8))


# --- what every loss owes ---


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_a_registered_loss_goes_by_its_name(name):
    assert PAIR_LOSSES[name]().name == name


@every_loss
def test_a_loss_introduces_itself(loss):
    assert isinstance(loss, PairLoss)
    for line in (loss.equation, loss.source):
        assert line
        assert "\n" not in line


@every_loss
def test_hyper_parameters_are_frozen_and_make_equality(loss):
    assert loss == replace(loss)
    assert hash(loss) == hash(replace(loss))
    for field in fields(loss):
        with pytest.raises(FrozenInstanceError):
            setattr(loss, field.name, 1.0)


@every_loss
@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4), (0,)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_loss_is_never_reduced_and_keeps_its_dtype(loss, shape, dtype):
    value = loss(random_pairs(*shape, dtype=dtype))
    assert value.shape == shape
    assert value.dtype == dtype


@every_loss
def test_each_pair_is_judged_by_itself(loss):
    together = random_pairs(2, 3)
    values = loss(together)
    for index in product(range(2), range(3)):
        alone = PairLogps(*(side[index] for side in vars(together).values()))
        torch.testing.assert_close(values[index], loss(alone), **EXACT)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("beta", [1e-3, 1.0, 1e3])
def test_value_and_gradient_are_finite_in_every_corner(loss, dtype, beta):
    corners = torch.tensor(list(product([-1e6, -1e3, -1.0, -1e-6, -0.0], repeat=4)), dtype=dtype).T
    lengths = torch.tensor([[1], [1000]]).expand(2, corners.shape[1])
    for part in value_and_slopes(with_beta(loss, beta), PairLogps(*corners, *lengths)):
        assert part.isfinite().all()


DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")],
    ),
]


@every_loss
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.1)])
@pytest.mark.parametrize("device", DEVICES)
def test_in_low_precision_a_loss_and_its_gradient_are_the_exact_ones_rounded(loss, dtype, tolerance, device):
    # The log-probabilities are rounded first, so that only the loss's own arithmetic is compared.
    rounded = [side.to(dtype) for side in vars(random_pairs(500)).values()]
    # −log σ is smooth and its slope bounded. Elsewhere rounding can carry a pair along a bend, or across a kink.
    reach = 0.0 if isinstance(loss, LogisticLoss) else tolerance
    exact = around(loss, PairLogps(*(side.double() for side in rounded)), reach)
    low = value_and_slopes(loss, PairLogps(*(side.to(device) for side in rounded)))
    for part, least, most in zip(low, exact.amin(0), exact.amax(0), strict=True):
        assert part.dtype == dtype
        found = part.cpu().double()
        torch.testing.assert_close(found, found.clamp(least, most), rtol=tolerance, atol=tolerance)


def test_a_logistic_loss_without_a_margin_cannot_be_made():
    @dataclass(frozen=True)
    class Marginless(LogisticLoss):
        beta: float = 1.0

    with pytest.raises(TypeError, match=r"abstract method '?margin\b"):
        Marginless()


def test_the_closed_form_slope_is_autograds():
    # Beyond |m| of 36 one of the two is at its asymptote.
    margin = torch.linspace(-800, 800, 1601, dtype=torch.float64, requires_grad=True)
    value = -torch.nn.functional.logsigmoid(margin)
    (by_autograd,) = torch.autograd.grad(value.sum(), margin)
    torch.testing.assert_close(LogisticLoss.slope(margin.detach()), by_autograd, **EXACT)


# --- identities of the theory, by number ---


@dear_every_loss
@given(logps=pairs_of(st.floats(-12, -1e-2)))
@PROPERTY
def test_identity_1_prob_ratio_is_logp_ratio_times_odds(loss, logps):
    _, *slopes = around(loss, logps, 1e-9).unbind(1)
    # No kink here, nor a slope that vanishes in this point alone, where rounding would decide what is 0/0.
    assume(all(torch.allclose(slope, slope[:1], rtol=1e-6, atol=0.0) for slope in slopes))
    prob = [side.exp().requires_grad_() for side in (logps.win, logps.lose)]
    value = loss(replace(logps, win=prob[0].log(), lose=prob[1].log()))
    by_prob = torch.autograd.grad(value, prob)
    _, win_slope, lose_slope = value_and_slopes(loss, logps)
    direct = (by_prob[0] / by_prob[1]).abs()
    # Where neither side has a slope there is no ratio, by any route. −log σ has one unless it underflows or is clipped.
    assume(not isinstance(loss, LogisticLoss) or win_slope != 0 or lose_slope != 0)
    nan = {"equal_nan": not isinstance(loss, LogisticLoss)}
    torch.testing.assert_close(direct, (win_slope / lose_slope).abs() * prob[1] / prob[0], **EXACT, **nan)
    torch.testing.assert_close(log_prob_ratio(loss, logps), direct.log(), rtol=1e-10, atol=1e-10, **nan)


@given(logps=pairs_of(st.floats(-1e4, -0.0)), beta=st.floats(1e-3, 1e3))
@PROPERTY
def test_identity_1_dpo_has_logp_ratio_one(logps, beta):
    assert log_prob_ratio(DPO(beta), logps).item() == logps.lose.item() - logps.win.item()


@pytest.mark.parametrize("make", [ConservativeDPO, IPO])
@given(logps=pairs_of(st.floats(-1e4, -0.0)), beta=st.floats(1e-3, 1e3))
@PROPERTY
def test_identity_1_losses_of_the_margin_have_logp_ratio_one(make, logps, beta):
    loss = make(beta)
    _, win_slope, lose_slope = value_and_slopes(loss, logps)
    assert win_slope == -lose_slope
    assume(win_slope != 0)
    assert log_prob_ratio(loss, logps).item() == logps.lose.item() - logps.win.item()


@given(logps=pairs_of(), beta=betas)
@PROPERTY
def test_identity_2_bdpo_has_logp_ratio_of_the_two_logs(logps, beta):
    _, win_slope, lose_slope = value_and_slopes(BalancedDPO(beta), logps)
    torch.testing.assert_close((win_slope / lose_slope).abs(), logps.lose / logps.win, **EXACT)


@pytest.mark.parametrize(("win", "lose"), [(-1e-20, -50.0), (-50.0, -1e-20), (-1e-300, -1e6), (-1e6, -1e-18)])
def test_identity_2_holds_in_the_corners_where_one_minus_the_weight_would_not(win, lose):
    logps = at(win, lose)
    logp_ratio = log_prob_ratio(BalancedDPO(), logps) + logps.win - logps.lose
    assert logp_ratio.item() == pytest.approx(math.log(lose / win), rel=1e-10)
    weight = max(balanced_weights(logps.win, logps.lose)).item()
    assert 1 - weight == 0  # the shorter formula would give no gradient at all here


def undetached_bdpo(logps, beta):
    win_weight = logps.lose / (logps.win + logps.lose)
    margin = beta * (win_weight * logps.win_logratio - (1 - win_weight) * logps.lose_logratio)
    return -torch.nn.functional.logsigmoid(margin)


@given(logps=pairs_of(), beta=betas)
@PROPERTY
def test_identity_2_a_gradient_through_the_weights_scales_both_sides_alike(logps, beta):
    value, *detached = value_and_slopes(BalancedDPO(beta), logps)
    through_value, *through = value_and_slopes(lambda pairs: undetached_bdpo(pairs, beta), logps)
    factor = (logps.ref_win + logps.ref_lose) / (logps.win + logps.lose)
    torch.testing.assert_close(value, through_value, rtol=1e-10, atol=1e-10)
    for cut, whole in zip(detached, through, strict=True):
        # The undetached route subtracts nearly equal numbers; its own rounding is what atol allows for.
        torch.testing.assert_close(whole, cut * factor, rtol=1e-9, atol=1e-10)


@given(logps=pairs_of())
@PROPERTY
def test_identity_3_weighted_log_probs_of_both_sides_agree(logps):
    win_weight, lose_weight = balanced_weights(logps.win, logps.lose)
    torch.testing.assert_close(win_weight * logps.win, lose_weight * logps.lose, **EXACT)


@given(logps=pairs_of(), beta=betas)
@PROPERTY
def test_identity_3_bdpos_margin_holds_the_policy_in_its_weights_only_and_is_bounded(logps, beta):
    margin = BalancedDPO(beta).margin(logps)
    win_weight = logps.lose / (logps.win + logps.lose)
    by_reference = beta * (win_weight * logps.ref_win.abs() - (1 - win_weight) * logps.ref_lose.abs())
    torch.testing.assert_close(margin, by_reference, rtol=1e-10, atol=1e-10)
    assert -beta * logps.ref_lose.abs() - 1e-10 < margin < beta * logps.ref_win.abs() + 1e-10


@given(win=log_probs, lose=log_probs)
@PROPERTY
def test_identity_3_without_a_reference_term_bdpo_has_no_margin(win, lose):
    margin = BalancedDPO().margin(at(win, lose, 0.0, 0.0))
    assert margin.item() == pytest.approx(0, abs=1e-12)


@given(logps=pairs_of())
@PROPERTY
def test_identity_4_the_balanced_weights_share_one(logps):
    win_weight, lose_weight = balanced_weights(logps.win, logps.lose)
    torch.testing.assert_close(win_weight + lose_weight, torch.ones_like(win_weight), **EXACT)


@given(win=log_probs, lose=log_probs, beta=betas)
@PROPERTY
def test_identity_4_at_the_reference_both_sides_of_bdpo_pull_half_as_much_as_dpos(win, lose, beta):
    logps = at(win, lose, win, lose)
    _, *balanced = value_and_slopes(BalancedDPO(beta), logps)
    _, *plain = value_and_slopes(DPO(beta), logps)
    torch.testing.assert_close(sum(map(abs, balanced)), sum(map(abs, plain)) / 2, **EXACT)


@given(logps=pairs_of(), beta=betas)
@PROPERTY
def test_identity_4_doubled_weights_are_bdpo_at_twice_beta(logps, beta):
    win_weight, lose_weight = balanced_weights(logps.win, logps.lose)
    doubled = beta * (2 * win_weight * logps.win_logratio - 2 * lose_weight * logps.lose_logratio)
    torch.testing.assert_close(BalancedDPO(2 * beta).margin(logps), doubled, **EXACT)


def at_the_reference(loss):
    logps = random_pairs(50)
    return loss(replace(logps, ref_win=logps.win, ref_lose=logps.lose))


@pytest.mark.parametrize("name", ["dpo", "cdpo", "bdpo", "nbdpo", "nbdpo-symmetric", "fixed-weight"])
@pytest.mark.parametrize("beta", [0.1, 1.0, 10.0])
def test_identity_5_at_the_reference_the_loss_is_ln_2(name, beta):
    value = at_the_reference(pair_loss(name, beta=beta))
    torch.testing.assert_close(value, torch.full_like(value, math.log(2)), **EXACT)


@pytest.mark.parametrize(("beta", "start"), [(0.1, 25.0), (1.0, 0.25), (10.0, 0.0025)])
def test_identity_5_at_the_reference_ipo_is_one_over_four_beta_squared(beta, start):
    value = at_the_reference(IPO(beta))
    torch.testing.assert_close(value, torch.full_like(value, start), **EXACT)


@pytest.mark.parametrize(
    "loss",
    [*EVERY_LOSS.values(), FixedWeightDPO(win_weight=0.4), FixedWeightDPO(win_weight=0.6)],
    ids=repr,
)
def test_identity_12_the_margin_changes_sign_under_a_swap_exactly_where_that_is_declared(loss):
    logps = random_pairs(500)
    holds = isinstance(loss, LogisticLoss) and torch.equal(loss.margin(logps.swapped()), -loss.margin(logps))
    assert loss.antisymmetric == holds


def test_identity_12_the_refutations_are_no_matter_of_rounding():
    logps = random_pairs(500)
    for loss in (NaiveBalancedDPO(), NaiveBalancedDPO(symmetric=True), FixedWeightDPO(win_weight=0.4)):
        assert (loss.margin(logps.swapped()) + loss.margin(logps)).abs().max() > 0.1


@given(logps=pairs_of(), beta=betas)
@PROPERTY
def test_identity_13_a_constant_weight_of_one_half_is_dpo_at_half_beta(logps, beta):
    half = value_and_slopes(FixedWeightDPO(beta, 0.5), logps)
    for part, wanted in zip(half, value_and_slopes(DPO(beta / 2), logps), strict=True):
        torch.testing.assert_close(part, wanted, **EXACT)


@given(logps=pairs_of(), beta=betas)
@PROPERTY
def test_cdpo_without_smoothing_is_dpo(logps, beta):
    for part, wanted in zip(
        value_and_slopes(ConservativeDPO(beta, 0.0), logps), value_and_slopes(DPO(beta), logps), strict=True
    ):
        torch.testing.assert_close(part, wanted, **EXACT)


@given(logps=pairs_of(), beta=betas, share=st.floats(0, 0.499))
@PROPERTY
def test_cdpo_is_dpo_expected_over_flipped_labels(logps, beta, share):
    expected = (1 - share) * DPO(beta)(logps) + share * DPO(beta)(logps.swapped())
    torch.testing.assert_close(ConservativeDPO(beta, share)(logps), expected, **EXACT)


@given(win=log_probs, lose=log_probs, ref_lose=log_probs, beta=betas, share=st.floats(0.01, 0.499))
@PROPERTY
def test_cdpo_and_ipo_come_to_rest_at_a_finite_margin(win, lose, ref_lose, beta, share):
    for loss, rest in (
        (ConservativeDPO(beta, share), math.log((1 - share) / share) / beta),
        (IPO(beta), 1 / (2 * beta)),
    ):
        for beyond in (-0.1, 0.0, 0.1):
            logps = at(win, lose, win - (lose - ref_lose) - rest - beyond, ref_lose)
            _, win_slope, _ = value_and_slopes(loss, logps)
            assert win_slope.item() == pytest.approx(0, abs=1e-12) if beyond == 0 else win_slope * beyond > 0


# --- weights and ratio, where numbers get hard ---


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_two_certain_responses_weigh_one_half_each(dtype, zero):
    weights = balanced_weights(torch.tensor(zero, dtype=dtype), torch.tensor(zero, dtype=dtype))
    assert [weight.item() for weight in weights] == [0.5, 0.5]


def test_balanced_weights_carry_no_gradient():
    win, lose = torch.tensor([-1.0, -2.0], requires_grad=True)
    assert not any(weight.requires_grad for weight in balanced_weights(win, lose))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("win", "lose"), [(-1000.0, -1.0), (-1.0, -1000.0), (-1000.0, -1000.0), (-1000.0, -1020.0)])
def test_the_log_ratio_is_safe_where_probabilities_underflow(dtype, win, lose):
    logps = at(win, lose, -1.0, -1.0, dtype)
    assert log_prob_ratio(DPO(), logps).item() == lose - win
    balanced = log_prob_ratio(BalancedDPO(), logps).item()
    assert balanced == pytest.approx(math.log(lose / win) + lose - win, rel=1e-6)


@every_logistic_loss
def test_the_log_ratio_is_safe_where_the_slope_underflows(loss):
    logps = at(-1.0, -1000.0, -1000.0, -1.0)  # m is about 2000, σ(−m) is 0 in float64
    near = at(-1.0, -40.0, -11.0, -30.0)  # at β = 100 m is about 2000, too, with h of ±10
    for scaled, pairs in ((loss, logps), (replace(loss, beta=100.0), near)):
        both_sides = all(side != 0 for side in slopes(scaled.margin, pairs))  # else the ratio is 0, infinite or 0/0
        assert bool(log_prob_ratio(scaled, pairs).isfinite()) is both_sides


def test_the_log_ratio_of_a_loss_without_gradient_is_nan():
    def indifferent(logps):
        return 0 * (logps.win + logps.lose)

    assert log_prob_ratio(indifferent, at(-1.0, -3.0)).isnan()


def test_the_log_ratio_broadcasts_without_adding_pairs_up():
    logps = at([-1.0], [-1.0, -2.0, -3.0])
    assert log_prob_ratio(DPO(), logps).tolist() == [0.0, -1.0, -2.0]


@every_loss
def test_the_log_ratio_leaves_its_input_alone_and_works_without_grad(loss):
    logps = random_pairs(5)
    with torch.no_grad():
        ratio = log_prob_ratio(loss, logps)
    assert not ratio.requires_grad
    assert not logps.win.requires_grad
    assert logps.win.grad is None


# --- pairs and registry ---


def test_swapping_exchanges_every_field():
    pairs = PairLogps(*(torch.tensor(float(number)) for number in range(6)))
    assert [getattr(pairs.swapped(), field.name).item() for field in fields(pairs)] == [1, 0, 3, 2, 5, 4]


@pytest.mark.parametrize("name", ["win", "lose", "ref_win", "ref_lose"])
@pytest.mark.parametrize("value", [1.0, torch.tensor(1), torch.tensor(True), [1.0], None])
def test_log_probs_are_floating_point_tensors_only(name, value):
    ones = dict.fromkeys(("win", "lose", "ref_win", "ref_lose"), torch.tensor(-1.0))
    with pytest.raises(TypeError, match=rf"^{name} must be a floating-point tensor, got "):
        PairLogps(**{**ones, name: value})


@pytest.mark.parametrize("dtype", [torch.long, torch.int32, torch.float32])
def test_lengths_may_be_counts(dtype):
    one, win_len, lose_len = torch.tensor(-1.0), torch.tensor(3, dtype=dtype), torch.tensor(5, dtype=dtype)
    swapped = PairLogps(one, one, one, one, win_len, lose_len).swapped()
    assert (swapped.win_len, swapped.lose_len) == (lose_len, win_len)


@pytest.mark.parametrize("name", ["win_len", "lose_len"])
@pytest.mark.parametrize("value", [3, [3]])
def test_lengths_are_tensors(name, value):
    with pytest.raises(TypeError, match=rf"^{name} must be a .*tensor, got (int|list)$"):
        PairLogps(*[torch.tensor(-1.0)] * 4, **{name: value})


@pytest.mark.parametrize(
    ("shapes", "named"),
    [
        ([(2,), (3,), (3,), (3,)], r"win .*\(lose \(3,\), ref_win \(3,\), ref_lose \(3,\)\), got \(2,\)"),
        ([(4, 3), (3,), (4, 1), (2,)], r"ref_lose .*, got \(2,\)"),
        ([(2,), (3,), (2,), (3,)], r"lose .*, got \(3,\)"),
        ([(3,), (3,), (3,), (3,), (4,), (1,)], r"win_len .*, got \(4,\)"),
    ],
)
def test_shapes_that_do_not_broadcast_are_refused_by_name(shapes, named):
    words = named.replace(" ", " must have a shape that broadcasts with the others ", 1)
    with pytest.raises(ValueError, match=f"^{words}$"):
        PairLogps(*(torch.zeros(shape) for shape in shapes))


@pytest.mark.parametrize("shapes", [[(), (3,), (1,), (3,)], [(2, 3), (3,), (2, 1), ()], [(0, 3), (1, 3), (), (0, 1)]])
def test_shapes_that_broadcast_are_taken(shapes):
    assert DPO()(PairLogps(*(torch.zeros(shape) for shape in shapes))).shape == torch.broadcast_shapes(*shapes)


# --- slopes ---


@every_loss
def test_slopes_are_those_of_each_pair_also_where_pairs_share_a_side(loss):
    shared = at([[-1.0], [-2.5]], [-1.5, -2.0, -3.0], -2.0, [-2.0, -1.0, -4.0])
    spread = PairLogps(*(side.clone() for side in torch.broadcast_tensors(*vars(shared).values())))
    for found, wanted in zip(slopes(loss, shared), value_and_slopes(loss, spread)[1:], strict=True):
        assert found.shape == (2, 3)
        assert torch.equal(found, wanted)


def test_slopes_of_a_margin_are_the_margins():
    win, lose = slopes(FixedWeightDPO(2.0, 0.25).margin, random_pairs(3))
    assert (win.tolist(), lose.tolist()) == ([0.5] * 3, [-1.5] * 3)


def test_a_side_that_a_loss_leaves_alone_has_slope_zero():
    win, lose = slopes(lambda logps: -logps.win, random_pairs(2))
    assert (win.tolist(), lose.tolist()) == ([-1, -1], [0, 0])


def test_slopes_leave_their_input_alone_and_work_without_grad():
    logps = random_pairs(5)
    with torch.no_grad():
        found = slopes(DPO(), logps)
    assert not any(side.requires_grad for side in (*found, logps.win, logps.lose))
    assert logps.win.grad is None


def test_hyper_parameters_reach_the_loss():
    assert pair_loss("nbdpo", beta=2.0, clip=0.3) == NaiveBalancedDPO(2.0, 0.3)
    assert pair_loss("nbdpo-symmetric") == NaiveBalancedDPO(symmetric=True)


def test_the_menu_has_every_hyper_parameter_with_its_type_and_the_defaults_of_its_owners():
    menu = hyper_parameters()
    assert list(menu["beta"].defaults) == [name for name, make in PAIR_LOSSES.items() if hasattr(make(), "beta")]
    of_clip = {"nbdpo": 0.5, "nbdpo-symmetric": 0.5, "ada-dpo": 2.0}
    assert menu["clip"] == (float, of_clip, dict.fromkeys(of_clip, (0.05, 2.0, 0.05, False)))
    assert menu["label_smoothing"].defaults.items() >= {"cdpo": 0.1, "robust": 0.1}.items()
    assert menu["label_smoothing"].sliders["cdpo"] == (0.0, 0.45, 0.05, False)
    for name, make in PAIR_LOSSES.items():
        assert pair_loss(name, **{key: of.defaults[name] for key, of in menu.items() if name in of.defaults}) == make()


def test_what_a_registered_name_stands_for_is_not_on_the_menu():
    assert "symmetric" not in hyper_parameters()


def test_an_unknown_loss_is_answered_with_all_names_and_the_nearest():
    with pytest.raises(ValueError, match=r"^loss must be one of .*; got 'bdpoo'; did you mean 'bdpo'\?$") as error:
        pair_loss("bdpoo")
    for name in PAIR_LOSSES:
        assert name in str(error.value)


def test_an_unknown_hyper_parameter_is_answered_with_the_known_ones():
    message = r"^hyper-parameter of nbdpo must be one of beta, clip, symmetric; got 'clipp'; did you mean 'clip'\?$"
    with pytest.raises(ValueError, match=message):
        pair_loss("nbdpo", clipp=0.3)


BAD_SCALES = [0, 0.0, -1.0, math.nan, math.inf, -math.inf, True, "1", None]


@pytest.mark.parametrize("name", ["dpo", "cdpo", "ipo", "bdpo", "nbdpo", "nbdpo-symmetric", "fixed-weight"])
@pytest.mark.parametrize("value", BAD_SCALES)
def test_a_bad_beta_is_refused_by_name_and_value(name, value):
    with pytest.raises(ValueError, match=r"^beta must be finite and > 0, got ") as error:
        pair_loss(name, beta=value)
    assert str(error.value).endswith(repr(value))


@pytest.mark.parametrize("make", [lambda clip: NaiveBalancedDPO(clip=clip), lambda clip: ppo_clip(*[ONE] * 3, clip)])
@pytest.mark.parametrize("value", BAD_SCALES)
def test_a_bad_clip_is_refused_by_name_and_value(make, value):
    with pytest.raises(ValueError, match=r"^clip must be finite and > 0, got ") as error:
        make(value)
    assert str(error.value).endswith(repr(value))


@pytest.mark.parametrize("value", [*BAD_SCALES, 1, 1.0, 1.5])
def test_a_bad_win_weight_is_refused_by_name_and_value(value):
    with pytest.raises(ValueError, match=r"^win_weight must be finite and lie in \(0, 1\), got ") as error:
        FixedWeightDPO(win_weight=value)
    assert str(error.value).endswith(repr(value))


@pytest.mark.parametrize("value", [-0.1, 0.5, 1.0, math.nan, math.inf, -math.inf, True, "0.1", None])
def test_a_bad_label_smoothing_is_refused_by_name_and_value(value):
    with pytest.raises(ValueError, match=r"^label_smoothing must be finite and lie in \[0, 0\.5\), got ") as error:
        ConservativeDPO(label_smoothing=value)
    assert str(error.value).endswith(repr(value))


# --- policy gradients ---

ONE = torch.tensor(1.0, dtype=torch.float64)


def surrogate(function, ratio, advantage, *clip):
    """The loss and its slope in log π at π = ratio · π_old."""
    logp = torch.tensor(math.log(ratio) - 1.0, dtype=torch.float64, requires_grad=True)
    value = function(logp, torch.tensor(-1.0, dtype=torch.float64), advantage * ONE, *clip)
    (slope,) = torch.autograd.grad(value, logp)
    return value.item(), slope.item()


@pytest.mark.parametrize("advantage", [2.0, -3.0])
@pytest.mark.parametrize("ratio", [0.5, 1.0, 3.0])
def test_the_plain_surrogate_is_minus_ratio_times_advantage_and_so_is_its_slope(ratio, advantage):
    expected = pytest.approx((-ratio * advantage, -ratio * advantage), abs=1e-12)
    assert surrogate(policy_gradient, ratio, advantage) == expected


@pytest.mark.parametrize(
    ("ratio", "advantage", "value", "slope"),
    [
        (1.0, 2.0, -2.0, -2.0),  # at the old policy: the policy gradient
        (1.1, 2.0, -2.2, -2.2),
        (0.9, -2.0, 1.8, 1.8),
        (1.5, 2.0, -2.4, 0.0),  # clipped: a good action has gained enough
        (0.5, -2.0, 1.6, 0.0),  # clipped: a bad action has lost enough
        (0.5, 2.0, -1.0, -1.0),  # never clipped where the step would undo harm
        (1.5, -2.0, 3.0, 3.0),
    ],
)
def test_the_clipped_surrogate_has_the_values_and_slopes_derived_by_hand(ratio, advantage, value, slope):
    assert surrogate(ppo_clip, ratio, advantage, 0.2) == pytest.approx((value, slope), abs=1e-12)


@pytest.mark.parametrize("function", [policy_gradient, ppo_clip])
def test_old_policy_and_advantage_are_held_fixed(function):
    logp, old, advantage = (torch.full((2, 3), -0.1, requires_grad=True) for _ in range(3))
    value = function(logp, old, advantage)
    assert value.shape == (2, 3)
    value.sum().backward()
    assert logp.grad is not None
    assert old.grad is None
    assert advantage.grad is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("loss", [ppo_clip, policy_gradient])
@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_policy_gradient_losses_stay_finite_where_the_ratio_would_overflow(loss, dtype, advantage):
    logp = torch.tensor([0.0], dtype=dtype, requires_grad=True)
    value = loss(logp, torch.tensor([-1000.0], dtype=dtype), torch.tensor([advantage], dtype=dtype))
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert torch.isfinite(logp.grad).all()


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.array, torch.tensor], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("name", ["dpo", "cdpo", "ipo", "bdpo", "nbdpo", "fixed-weight"])
def test_hyper_parameters_are_pythons_numbers_whatever_kind_is_given(name, kind):
    loss = pair_loss(name, beta=kind(2.0))
    assert loss == pair_loss(name, beta=2.0)
    assert type(loss.beta) is float
    assert repr(loss) == repr(pair_loss(name, beta=2.0))
