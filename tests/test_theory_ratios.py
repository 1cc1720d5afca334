"""Gradient ratios of the theory: each closed form meets autograd through the losses, in every corner."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rounding import rounding

from gradlab.losses import DPO, BalancedDPO, FixedWeightDPO, NaiveBalancedDPO, PairLogps, log_prob_ratio
from gradlab.theory import (
    bdpo_log_rho,
    bdpo_share_corrected,
    dpo_log_rho,
    fixed_weight_log_rho,
    in_probabilities,
    logarithmic_mean,
    nbdpo_log_rho,
    share_corrected,
)

PROPERTY = settings(deadline=None, derandomize=True, max_examples=60)

log_probs = st.floats(-40, -1e-3) | st.floats(-1e6, -1e-290)
betas = st.sampled_from([1e-3, 0.5, 1.0, 1e3])

# The closed form, and the same loss as autograd sees it.
ROUTES = {
    "dpo": (dpo_log_rho, DPO),
    "bdpo": (bdpo_log_rho, BalancedDPO),
    "nbdpo": (nbdpo_log_rho, NaiveBalancedDPO),
    "nbdpo, clip 0.3": (lambda win, lose: nbdpo_log_rho(win, lose, 0.3), lambda beta: NaiveBalancedDPO(beta, 0.3)),
    "nbdpo-symmetric": (
        lambda win, lose: nbdpo_log_rho(win, lose, symmetric=True),
        lambda beta: NaiveBalancedDPO(beta, symmetric=True),
    ),
    "nbdpo-symmetric, clip 2": (
        lambda win, lose: nbdpo_log_rho(win, lose, 2.0, True),
        lambda beta: NaiveBalancedDPO(beta, 2.0, True),
    ),
    "fixed-weight": (fixed_weight_log_rho, FixedWeightDPO),
    "fixed-weight, 0.9": (
        lambda win, lose: fixed_weight_log_rho(win, lose, 0.9),
        lambda beta: FixedWeightDPO(beta, 0.9),
    ),
}
every_route = pytest.mark.parametrize(("closed", "make"), ROUTES.values(), ids=ROUTES)


def pairs_at(win, lose, ref_win=-2.0, ref_lose=-3.0):
    return PairLogps(*(torch.as_tensor(side, dtype=torch.float64) for side in (win, lose, ref_win, ref_lose)))


def meet(closed, autograd):
    """To 1e-10, and where numbers are as large as 1e6, to their last digits."""
    np.testing.assert_allclose(closed, autograd, rtol=1e-14, atol=1e-10)


@every_route
@given(win=log_probs, lose=log_probs, ref_win=log_probs, ref_lose=log_probs, beta=betas)
@PROPERTY
def test_the_closed_form_is_autograds_ratio(closed, make, win, lose, ref_win, ref_lose, beta):
    autograd = log_prob_ratio(make(beta), pairs_at(win, lose, ref_win, ref_lose)).item()
    meet(in_probabilities(closed(win, lose), win, lose), autograd)


@every_route
def test_the_closed_form_is_autograds_ratio_in_the_corners(closed, make):
    win, lose = np.array(list(product([-1e6, -1e3, -1.0, -1e-6, -1e-20, -1e-290], repeat=2))).T
    meet(in_probabilities(closed(win, lose), win, lose), log_prob_ratio(make(1.0), pairs_at(win, lose)).numpy())


@every_route
def test_the_closed_form_is_the_ratio_of_finite_differences_of_the_loss(closed, make):
    win, lose = -np.random.default_rng(0).uniform(0.2, 6, (2, 40))
    step = 1e-5

    def slope(*side):
        # A step of the reference the other way moves h as one of the policy would, and leaves λ alone: it is detached.
        up, down = (make(0.1)(pairs_at(win, lose, -2 - sign * side[0], -3 - sign * side[1])) for sign in (step, -step))
        return (up - down).abs().numpy()

    np.testing.assert_allclose(closed(win, lose), np.log(slope(1, 0) / slope(0, 1)), rtol=0, atol=1e-7)


@every_route
def test_closed_forms_broadcast_and_give_the_pairs_shape(closed, make):
    win, lose = -np.arange(1.0, 4.0)[:, None], [-1.0, -2.0]
    table = in_probabilities(closed(win, lose), win, lose)
    assert table.shape == (3, 2)
    for i, j in product(range(3), range(2)):
        assert table[i, j] == in_probabilities(closed(win[i, 0], lose[j]), win[i, 0], lose[j])
    assert np.shape(closed(-1.0, -2.0)) == ()


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_bdpo_with_certain_responses_has_its_limits(zero):
    assert bdpo_log_rho(zero, -5.0) == math.inf
    assert bdpo_log_rho(-5.0, zero) == -math.inf
    assert bdpo_log_rho(zero, -zero) == 0
    assert in_probabilities(bdpo_log_rho(zero, -5.0), zero, -5.0) == math.inf
    # The loss shifts log π by the smallest normal number, so autograd stops at a finite but absurd ratio.
    autograd = log_prob_ratio(BalancedDPO(), pairs_at([zero, -5.0, zero], [-5.0, zero, -zero])) + torch.tensor(
        [5, -5, 0]
    )
    assert autograd[0] > 700
    assert autograd[1] < -700
    assert autograd[2] == 0


@pytest.mark.parametrize("closed", [dpo_log_rho, nbdpo_log_rho, fixed_weight_log_rho])
def test_the_other_forms_do_not_mind_certain_responses(closed):
    assert np.isfinite(closed([-0.0, -0.0, -1e6], [-0.0, -1e6, -0.0])).all()


@pytest.mark.parametrize(
    ("log_rho", "value"),
    [
        (dpo_log_rho(-1.0, -3.0), 0.0),
        (bdpo_log_rho(-1.0, -3.0), math.log(3)),
        (nbdpo_log_rho(-1.0, -3.0), math.log(1.5)),
        (nbdpo_log_rho(-1.75, -2.0), math.log(1.25)),
        (nbdpo_log_rho(-3.0, -1.0), 0.0),
        (nbdpo_log_rho(-3.0, -1.0, symmetric=True), math.log(2 / 3)),
        (nbdpo_log_rho(-3.0, -1.0, 0.25, True), math.log(0.8)),
        (fixed_weight_log_rho(-1.0, -3.0), 0.0),
        (fixed_weight_log_rho(-1.0, -3.0, 0.8), math.log(4)),
        (in_probabilities(math.log(3), -1.0, -3.0), math.log(3) - 2),
        (in_probabilities(-math.inf, -1.0, -3.0), -math.inf),
    ],
)
def test_ratios_are_those_derived_by_hand(log_rho, value):
    assert log_rho == pytest.approx(value, abs=rounding(16, 3.0))


@pytest.mark.parametrize(
    ("log_prob_ratio", "win", "lose", "share"),
    [
        (-2.0, -1.0, -3.0, 0.0),  # DPO's own
        (2.0, -3.0, -1.0, 0.0),
        (0.0, -1.0, -3.0, 1.0),  # balanced
        (-0.5, -1.0, -3.0, 0.75),
        (0.5, -1.0, -3.0, 0.75),  # past balance, as far from it
        (-3.0, -1.0, -3.0, -0.5),  # farther than DPO
        (2.0, -1.0, -3.0, 0.0),  # the imbalance turned round
        (math.inf, -1.0, -3.0, -math.inf),
        (0.0, -2.0, -2.0, math.nan),  # nothing to correct
        (1.0, -2.0, -2.0, math.nan),
        (math.nan, -1.0, -3.0, math.nan),
    ],
)
def test_the_share_corrected_is_that_derived_by_hand(log_prob_ratio, win, lose, share):
    assert share_corrected(log_prob_ratio, win, lose) == pytest.approx(share, abs=rounding(16, 3.0), nan_ok=True)


@given(win=log_probs, lose=log_probs)
@PROPERTY
def test_dpo_corrects_nothing_and_a_ratio_of_one_everything(win, lose):
    of_dpo = in_probabilities(dpo_log_rho(win, lose), win, lose)
    if win == lose:
        assert math.isnan(share_corrected(of_dpo, win, lose))
    else:
        assert share_corrected(of_dpo, win, lose) == 0
        assert share_corrected(0.0, win, lose) == 1


@given(nats=st.floats(20, 1e4), gap=st.floats(1e-3, 0.5))
@PROPERTY
def test_at_the_scale_of_sequences_bdpo_corrects_the_share_one_over_minus_log_prob(nats, gap):
    # log ρ = log(1 + gap/nats) ≈ gap/nats, against an imbalance of gap.
    win, lose = -nats, -nats - gap
    share = share_corrected(in_probabilities(bdpo_log_rho(win, lose), win, lose), win, lose)
    assert share == pytest.approx(1 / nats, rel=gap / nats + 1e-9 * nats)


@given(a=st.floats(1e-290, 1e290), b=st.floats(1e-290, 1e290))
@PROPERTY
def test_the_logarithmic_mean_is_the_definition_and_lies_between_geometric_and_arithmetic_mean(a, b):
    mean = float(logarithmic_mean(a, b))
    assert mean == logarithmic_mean(b, a)
    assert math.sqrt(a) * math.sqrt(b) * (1 - rounding(8)) <= mean <= (a / 2 + b / 2) * (1 + rounding(8))
    if max(a, b) > 2 * min(a, b):  # the plain quotient loses few digits there
        assert mean == pytest.approx((b - a) / (math.log(b) - math.log(a)), rel=rounding(16, 700.0))


@pytest.mark.parametrize("gap", [1e-15, 1e-12, 1e-8, 1e-4, 0.5])
@pytest.mark.parametrize("a", [1e-200, 0.3, 100.0, 1e200])
def test_the_logarithmic_mean_of_near_equals_keeps_its_digits(a, gap):
    b = a * (1 + gap)
    x = (b - a) / a  # exact enough: b - a is exact
    series = a * (1 + x / 2 - x**2 / 12 + x**3 / 24) if x < 1e-3 else (b - a) / math.log1p(x)
    assert float(logarithmic_mean(a, b)) == pytest.approx(series, rel=rounding(8), abs=0)


def test_the_logarithmic_mean_has_its_limits_and_broadcasts():
    assert logarithmic_mean(0.0, 5.0) == 0
    assert logarithmic_mean(-0.0, 0.0) == 0
    assert logarithmic_mean(2.5, 2.5) == 2.5
    assert logarithmic_mean(5e-324, 1e308) == pytest.approx(1e308 / (math.log(1e308) - math.log(5e-324)))
    assert logarithmic_mean(np.ones((3, 1)), [1.0, 2.0]).shape == (3, 2)


@given(win=log_probs, lose=log_probs)
@PROPERTY
def test_the_law_of_the_correction_is_the_share_that_the_ratio_gives(win, lose):
    share = float(bdpo_share_corrected(win, lose))
    if abs(win - lose) > 1e-6 * abs(win + lose):
        by_ratio = share_corrected(in_probabilities(bdpo_log_rho(win, lose), win, lose), win, lose)
        assert share == pytest.approx(float(by_ratio), rel=1e-8, abs=1e-8)
    mean = float(logarithmic_mean(-win, -lose))
    assert share == pytest.approx(1 / mean if mean >= 1 else 2 - 1 / mean, rel=1e-12)


def test_the_law_of_the_correction_has_its_limits():
    assert bdpo_share_corrected(-2.0, -2.0) == 0.5  # where share_corrected is NaN
    assert bdpo_share_corrected(0.0, -5.0) == -math.inf
    assert bdpo_share_corrected(0.0, -0.0) == -math.inf
    assert bdpo_share_corrected(-1e6, -2e6) == pytest.approx(math.log(2) / 1e6)
