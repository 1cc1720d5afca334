"""Weights on a continuum: by another quadrature, as the limit of grids, and in closed form."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rounding import rounding
from scipy.integrate import quad
from scipy.special import expit, log_softmax

from gradlab.theory import (
    balanced_weight,
    bdpo_weight,
    bdpo_weight_limit,
    dpo_weight,
    dpo_weight_limit,
    equal_width_extrema,
    extrema,
    gaussian_log_density,
    log_ratio_weight,
)
from gradlab.theory.families import log_density

PROPERTY = settings(deadline=None, derandomize=True, max_examples=40)

LOW, HIGH = -1.0, 4.0
LOG_P, LOG_Q = gaussian_log_density(0.5, 0.9), gaussian_log_density(2.0, 1.4)  # both are cut off by the ends
MASS = quad(lambda t: math.exp(LOG_P(t)), LOW, HIGH, epsabs=1e-14)[0]
AT = np.array([-1.0, -0.3, 0.5, 1.7, 2.0, 4.0])


def log_p_normalised(y):
    return LOG_P(y) - math.log(MASS)


def centres(n, low=LOW, high=HIGH):
    return low + (np.arange(n) + 0.5) * (high - low) / n


def orders(errors):
    """Of errors at resolutions that double."""
    return np.log2(np.array(errors[:-1]) / np.array(errors[1:]))


# --- densities ---


def test_a_gaussian_log_density_is_normalised_and_by_hand():
    density = gaussian_log_density(3.0, 0.5)
    assert density(3.0) == pytest.approx(-math.log(0.5 * math.sqrt(2 * math.pi)), abs=rounding(8, 2.0))
    assert density(4.0) == pytest.approx(density(3.0) - 2, abs=rounding(8, 3.0))
    assert density(np.zeros((2, 3))).shape == (2, 3)
    assert quad(lambda y: math.exp(density(y)), -5, 11)[0] == pytest.approx(1, abs=1e-10)


# --- quadrature by another hand ---


def mean_by_scipy(integrand, y, low=LOW, high=HIGH, modes=(0.5, 2.0)):
    """E_t of the integrand, in pieces, which are short where t is about as probable as y: there it turns."""
    turns = np.array([y, *(2 * mode - y for mode in modes)])
    near = np.geomspace(1e-4, 1, 9)
    edges = np.concatenate(
        [np.linspace(low, high, 21), turns, *np.add.outer(turns, near), *np.subtract.outer(turns, near)]
    )
    edges = np.unique(edges[(edges >= low) & (edges <= high)])
    return sum(quad(integrand, *piece, epsabs=1e-13)[0] for piece in pairwise(edges)) / (high - low)


@pytest.mark.parametrize("beta", [0.3, 1.0, 4.0, 30.0, 300.0])
def test_dpos_limit_is_scipys_integral(beta):
    def by_quad(y):
        return mean_by_scipy(lambda t: expit(LOG_Q(y) - LOG_Q(t)) - expit(beta * (LOG_P(y) - LOG_P(t))), y)

    found = dpo_weight_limit(AT, LOG_P, LOG_Q, LOW, HIGH, beta=beta)
    np.testing.assert_allclose(found, [by_quad(y) for y in AT], rtol=0, atol=1e-10)


@pytest.mark.parametrize(("beta", "cells"), [(1.0, 20), (1.0, 1e4), (0.3, 50), (4.0, 50), (2.0, 1e100), (100.0, 50)])
def test_bdpos_limit_is_scipys_integral_of_the_loss_written_out(beta, cells):
    def by_quad(y):
        def integrand(t):
            mine, other = (log_p_normalised(at) + math.log((HIGH - LOW) / cells) for at in (y, t))
            win_weight, lose_weight = other / (mine + other), mine / (mine + other)
            margin = beta * (win_weight * (mine + math.log(cells)) - lose_weight * (other + math.log(cells)))
            return win_weight * (expit(LOG_Q(y) - LOG_Q(t)) - expit(margin))

        return mean_by_scipy(integrand, y)

    found = bdpo_weight_limit(AT, log_p_normalised, LOG_Q, LOW, HIGH, beta=beta, cells=cells)
    np.testing.assert_allclose(found, [by_quad(y) for y in AT], rtol=0, atol=1e-10)


@pytest.mark.parametrize("widths", [(0.1, 3.0), (3.0, 0.1), (0.2, 0.2)])
def test_the_limit_is_exact_where_tails_are_steep(widths):
    log_p, log_q = (gaussian_log_density(mode, width) for mode, width in zip((7.0, 13.0), widths, strict=True))
    at = [0.0, 6.9, 10.0, 13.3, 20.0]

    def by_quad(y):
        def integrand(t):
            return expit(log_q(y) - log_q(t)) - expit(log_p(y) - log_p(t))

        return mean_by_scipy(integrand, y, 0.0, 20.0, (7.0, 13.0))

    found = dpo_weight_limit(at, log_p, log_q, 0.0, 20.0)
    np.testing.assert_allclose(found, [by_quad(y) for y in at], rtol=0, atol=1e-10)


@pytest.mark.parametrize("cells", [None, math.inf, 1e3])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0,)])
def test_a_limit_has_the_shape_of_y_and_each_value_is_what_it_is_alone(cells, shape):
    def limit(y):
        if cells is None:
            return dpo_weight_limit(y, LOG_P, LOG_Q, LOW, HIGH)
        return bdpo_weight_limit(y, log_p_normalised, LOG_Q, LOW, HIGH, cells=cells)

    y = np.random.default_rng(0).uniform(LOW, HIGH, shape)
    together = limit(y)
    assert np.shape(together) == shape
    for index in np.ndindex(shape):
        assert together[index] == pytest.approx(limit(y[index]), rel=1e-12)


@given(lift=st.floats(-5, 5), beta=st.floats(0.1, 3))
@PROPERTY
def test_constants_in_log_densities_do_not_matter_to_dpo(lift, beta):
    plain = dpo_weight_limit(AT, LOG_P, LOG_Q, LOW, HIGH, beta=beta)
    lifted = dpo_weight_limit(AT, lambda y: LOG_P(y) + lift, lambda y: LOG_Q(y) - lift, LOW, HIGH, beta=beta)
    np.testing.assert_allclose(lifted, plain, rtol=0, atol=1e-13)


def test_dpos_weights_integrate_to_zero_and_vanish_where_p_is_q():
    assert quad(lambda y: dpo_weight_limit(y, LOG_P, LOG_Q, LOW, HIGH), LOW, HIGH)[0] == pytest.approx(0, abs=1e-9)
    np.testing.assert_array_equal(dpo_weight_limit(AT, LOG_Q, LOG_Q, LOW, HIGH), 0)


# --- steep, kinked, narrow ---

CLOSE = 2e-13  # of about 100 panels, each exact to 1e-14 and of both signs, and of the closed forms' own rounding


def flat(y):
    return np.zeros_like(y)


def share_nearer(y, mode, low=0.0, high=20.0):
    """Return the share of [low, high] that lies nearer to ``mode`` than y does."""
    return (min(mode + abs(y - mode), high) - max(mode - abs(y - mode), low)) / (high - low)


def mean_under_laplace(y, mode, width, low=0.0, high=20.0):
    """Return E_t[σ(s(y) − s(t))] of s = −√2|t − mode|/width: ∫σ is a softplus."""
    slope = math.sqrt(2) / width
    top = -slope * abs(y - mode)
    return sum(
        (np.logaddexp(0, top + slope * reach) - np.logaddexp(0, top)) / slope for reach in (mode - low, high - mode)
    ) / (high - low)


@pytest.mark.parametrize("width", [20 / 500, 20 / 1000, 20 / 5000, 2e-6])
def test_the_limit_is_exact_at_any_width_and_has_no_extrema_of_its_own(width):
    log_p, log_q = gaussian_log_density(7.0, width), gaussian_log_density(13.0, width)
    at = np.array([9.1, 9.6, 10.0, 11.0])  # at least 2 from both modes, with the mirrored place in the interval
    # In u = s(y) − s(t), dt/du is width²/d − u width⁴/d³ at a distance d, and ∫u(σ(u) − [u > 0])du = −π²/6, twice. The
    # next term is smaller by (width/d)⁴ < 2e-7 and numbers below 100.
    nearer, bent = ([f(y, 7.0) - f(y, 13.0) for y in at] for f in (share_nearer, lambda y, mode: abs(y - mode) ** -3))
    wanted = np.array(nearer) - math.pi**2 / 3 * width**4 / 20 * np.array(bent)
    found = dpo_weight_limit(at, log_p, log_q, 0.0, 20.0)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=CLOSE)
    y = np.linspace(0, 20, 401)
    assert [one.kind for one in extrema(y, dpo_weight_limit(y, log_p, log_q, 0.0, 20.0))] == ["minimum", "maximum"]


@pytest.mark.parametrize("width", [1e-3, 0.1, 0.75, 3.0])
def test_kinks_are_exact(width):
    at = np.array([0.0, 5.0, 7.2, 7.3, 7.3001, 7.5, 12.0, 20.0])
    wanted = [mean_under_laplace(y, 7.3, width) - 0.5 for y in at]
    found = dpo_weight_limit(at, flat, log_density("laplace", 7.3, width), 0.0, 20.0)
    np.testing.assert_allclose(found, [-0.5 + one + 0.5 for one in wanted], rtol=0, atol=CLOSE)


def box(y):
    """A log-density that jumps: a tenth of [0, 1] holds everything, each of 10 cells in it with probability 1."""
    return np.where(np.abs(y - 0.517) < 0.05, math.log(10), -50.0)


def test_jumps_are_exact():
    found = dpo_weight_limit([0.5, 0.9], flat, box, 0.0, 1.0)
    np.testing.assert_allclose(found, [0.1 * 0.5 + 0.9 - 0.5, 0.9 * 0.5 - 0.5], rtol=0, atol=CLOSE)


def test_two_certain_cells_weigh_a_half_each():
    # At y in the box: λ is ½ and the margin 0 for t in the box, λ is 1 and the margin log 10 for t outside.
    inside, outside_ = 0.1 * 0.5 * (0.5 - 0.5), 0.9 * (0.5 - expit(math.log(10)))
    assert bdpo_weight_limit(0.5, box, flat, 0.0, 1.0, cells=10) == pytest.approx(inside + outside_, abs=CLOSE)


def spike(width):
    return lambda y: np.log(1e-3 + np.exp(-0.5 * ((y - 5.013) / width) ** 2))


@pytest.mark.parametrize(("width", "points"), [(0.05, ()), (0.002, ()), (1e-5, (5.013,)), (1e-8, (5.013,))])
def test_a_narrow_peak_is_seen(width, points):
    def area(t):  # beside the peak, in its widths
        return expit(math.log(1e-3) - math.log(1e-3 + math.exp(-0.5 * t**2))) - 0.5

    wanted = 2 * width * sum(quad(area, *piece, epsabs=1e-14)[0] for piece in ((0, 3), (3, 6), (6, 9))) / 20
    found = dpo_weight_limit(10.0, flat, spike(width), 0.0, 20.0, points=points)
    assert found == pytest.approx(wanted, abs=CLOSE)


def test_a_peak_of_almost_all_probability_in_a_cell_is_exact():
    log_p, beta = gaussian_log_density(0.5, 0.01), 3.0
    cells = math.exp(log_p(0.5)) * 1.0001

    def by_quad(y):
        def integrand(t):
            mine, other = math.log(cells) - log_p(y), math.log(cells) - log_p(t)
            return other / (mine + other) * (0.5 - expit(beta * (other - mine) / (mine + other) * math.log(cells)))

        near = np.geomspace(1e-9, 1, 40)
        turns = np.array([0.5, y, 1 - y])
        edges = np.concatenate([[0, 1], turns, *np.add.outer(turns, near), *np.subtract.outer(turns, near)])
        edges = np.unique(edges[(edges >= 0) & (edges <= 1)])
        return sum(quad(integrand, *piece, epsabs=1e-14)[0] for piece in pairwise(edges))

    at = [0.5, 0.501, 0.52]
    found = bdpo_weight_limit(at, log_p, flat, 0.0, 1.0, beta=beta, cells=cells)
    np.testing.assert_allclose(found, [by_quad(y) for y in at], rtol=0, atol=1e-12)


@given(
    widths=st.tuples(st.floats(0.5, 5), st.floats(0.5, 5)),
    modes=st.tuples(st.floats(0, 20), st.floats(0, 20)),
    cells=st.sampled_from([None, 100, 800]),
)
@PROPERTY
def test_more_and_other_panels_change_nothing(widths, modes, cells):
    log_p, log_q = (gaussian_log_density(*one) for one in zip(modes, widths, strict=True))
    at = np.linspace(0, 20, 9)
    limit = dpo_weight_limit
    if cells:
        limit, held = bdpo_weight_limit, math.log(quad(lambda t: math.exp(log_p(t)), 0, 20)[0])
        given_p, log_p = log_p, lambda y: given_p(y) - held
        kinds = {"cells": cells}
    else:
        kinds = {}
    few, more = (limit(at, log_p, log_q, 0.0, 20.0, points=points, **kinds) for points in ((), (10.0,)))
    np.testing.assert_allclose(few, more, rtol=0, atol=1e-10)


def test_a_function_that_is_not_smooth_is_refused():
    with pytest.raises(ValueError, match=r"^log_p and log_q must be smooth but for a few peaks, kinks and jumps"):
        dpo_weight_limit([0.1, 0.6], flat, lambda y: 5 * np.sin(1e9 * y**2), 0.0, 20.0)


# --- grids tend to it ---


@pytest.mark.parametrize("beta", [0.5, 1.0, 3.0])
def test_dpos_weights_on_grids_converge_to_the_limit_as_one_over_n_squared(beta):
    errors = []
    for n in (80, 160, 320):
        y = centres(n)
        on_grid = dpo_weight(log_softmax(LOG_P(y)), log_softmax(LOG_Q(y)), beta=beta) / n
        errors.append(np.abs(on_grid - dpo_weight_limit(y, LOG_P, LOG_Q, LOW, HIGH, beta=beta)).max())
    assert errors[-1] < 1e-4
    np.testing.assert_allclose(orders(errors), 2, atol=0.1)


@pytest.mark.parametrize("beta", [0.5, 1.0, 3.0])
def test_bdpos_weights_on_grids_converge_to_the_limit_with_as_many_cells_as_one_over_n_squared(beta):
    errors = []
    for n in (80, 160, 320):
        y = centres(n)
        on_grid = bdpo_weight(log_softmax(LOG_P(y)), log_softmax(LOG_Q(y)), beta=beta) / n
        limit = bdpo_weight_limit(y, log_p_normalised, LOG_Q, LOW, HIGH, beta=beta, cells=n)
        errors.append(np.abs(on_grid - limit).max())
    assert errors[-1] < 1e-4
    np.testing.assert_allclose(orders(errors), 2, atol=0.1)


@pytest.mark.parametrize("beta", [0.5, 1.0, 3.0])
def test_with_ever_more_cells_bdpo_becomes_dpo_at_half_beta_as_slowly_as_one_over_log_n(beta):
    half = dpo_weight_limit(AT, LOG_P, LOG_Q, LOW, HIGH, beta=beta / 2) / 2
    np.testing.assert_array_equal(bdpo_weight_limit(AT, LOG_P, LOG_Q, LOW, HIGH, beta=beta), half)
    # log n doubles from one to the next.
    errors = [
        np.abs(bdpo_weight_limit(AT, log_p_normalised, LOG_Q, LOW, HIGH, beta=beta, cells=cells) - half).max()
        for cells in (1e37, 1e75, 1e150, 1e300)
    ]
    assert errors[-1] < 2e-3
    np.testing.assert_allclose(orders(errors), 1, atol=0.06)


# --- Gaussians of one width ---


@st.composite
def equal_widths(draw):
    return draw(st.floats(-5, 5)), draw(st.floats(-5, 5)), draw(st.floats(0.3, 3))


def balanced_curve(y, mean_p, mean_q, width):
    """(log q − log p) p, up to the same constant factor everywhere; torch or numpy."""
    lead = (mean_q - mean_p) / width**2 * (y - (mean_p + mean_q) / 2)
    fall = -((y - mean_p) ** 2) / (2 * width**2)
    return lead * (torch.exp(fall) if isinstance(y, torch.Tensor) else np.exp(fall))


@given(case=equal_widths())
@PROPERTY
def test_the_closed_extrema_are_roots_of_the_derivative(case):
    assume(abs(case[1] - case[0]) > 0.05)
    at = torch.tensor(equal_width_extrema(*case), dtype=torch.float64, requires_grad=True)
    curve = balanced_curve(at, *case)
    (slope,) = torch.autograd.grad(curve.sum(), at, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), at)
    assert (slope.abs() < 1e-9 * bend.abs() + 1e-14).all()
    assert bend[0] > 0 > bend[1]  # the minimum comes first


@given(case=equal_widths())
@PROPERTY
def test_the_closed_extrema_are_those_of_a_fine_grid(case):
    mean_p, mean_q, width = case
    assume(0.05 < abs(mean_q - mean_p) < 8 * width)  # beyond, one extremum is smaller than the other's rounding
    middle, reach = (mean_p + mean_q) / 2, abs(mean_q - mean_p) / 2 + 8 * width
    y = np.linspace(middle - reach, middle + reach, 3001)
    log_p, log_q = (log_softmax(gaussian_log_density(mean, width)(y)) for mean in (mean_p, mean_q))
    found = extrema(y, balanced_weight(log_p, log_q, weight=log_ratio_weight(log_p, log_q)))
    by_kind = {one.kind: one.position for one in found if not one.at_end}
    # Both grids are normalised over what they hold, which moves w by less than 1e-10 here.
    assert len(found) == 2
    expected = dict(zip(("minimum", "maximum"), equal_width_extrema(*case), strict=True))
    assert by_kind == pytest.approx(expected, abs=20 * (y[1] - y[0]) ** 2 / width + 1e-7)


@given(case=equal_widths(), move=st.floats(-3, 3), stretch=st.sampled_from([0.1, 2.0]))
@PROPERTY
def test_the_closed_extrema_follow_shifts_scales_and_mirrors(case, move, stretch):
    mean_p, mean_q, width = case
    assume(abs(mean_q - mean_p) > 1e-6)
    plain = np.array(equal_width_extrema(*case))
    moved = equal_width_extrema(stretch * (mean_p + move), stretch * (mean_q + move), stretch * width)
    np.testing.assert_allclose(moved, stretch * (plain + move), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(equal_width_extrema(-mean_p, -mean_q, width), -plain, rtol=1e-12, atol=1e-12)


def test_the_closed_extrema_by_hand():
    # h = 3, s = 2: √(9 + 16) = 5.
    assert equal_width_extrema(7.0, 13.0, 2.0) == (6.0, 11.0)
    assert equal_width_extrema(13.0, 7.0, 2.0) == (14.0, 9.0)


@given(mean=st.floats(-5, 5), width=st.floats(0.3, 3), share=st.floats(0.01, 4))
@PROPERTY
def test_the_minimum_is_always_outside_the_modes_and_the_maximum_inside_where_they_are_far_apart(mean, width, share):
    half = share * width / math.sqrt(2)
    assume(abs(share - 1) > 1e-6)
    low, high = mean, mean + 2 * half
    minimum, maximum = equal_width_extrema(low, high, width)
    assert minimum < low < maximum
    assert low - minimum == pytest.approx((math.sqrt(half**2 + 4 * width**2) - half) / 2, rel=1e-9)
    assert (maximum <= high) == (share >= 1)


def test_equal_means_have_no_extrema():
    with pytest.raises(
        ValueError, match=r"^mean_q must differ from mean_p, else there are no extrema, got 1\.5 for both$"
    ):
        equal_width_extrema(1.5, 1.5, 2.0)


def test_at_the_threshold_the_maximum_is_the_preferences_mode():
    assert equal_width_extrema(0.0, 2 * math.sqrt(0.5), 1.0)[1] == pytest.approx(2 * math.sqrt(0.5), rel=rounding(16))
