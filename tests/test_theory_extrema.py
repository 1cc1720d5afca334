"""Extrema of sampled functions: found where they are, below the grid's resolution, and whatever is flat or noisy."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rounding import rounding

from gradlab.theory import Extremum, equal_width_extrema, extrema, inside, outside, product_noise

PROPERTY = settings(deadline=None, derandomize=True, max_examples=60)


def summary(found):
    return [(one.kind, one.at_end) for one in found]


def positions(found, at_end=False):
    return [one.position for one in found if one.at_end == at_end]


# --- known functions ---


def test_a_sine_has_its_extrema_where_it_should():
    y = np.linspace(0.3, 12.3, 500)
    found = extrema(y, np.sin(y))
    assert summary(found) == [("maximum", False), ("minimum", False)] * 2
    np.testing.assert_allclose(positions(found), np.pi * np.array([0.5, 1.5, 2.5, 3.5]), atol=1e-6)
    for one in found:
        assert abs(one.value) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(("function", "at", "order"), [(np.sin, np.pi / 2, 3), (lambda y: y * np.exp(-y), 1.0, 2)])
def test_positions_are_more_accurate_than_the_grid_by_the_square_of_its_step_or_better(function, at, order):
    def error(step):
        grids = (at + step * (np.arange(-10, 11) + shift) for shift in np.linspace(-0.5, 0.5, 12)[1:-1])
        return max(abs(positions(extrema(y, function(y)))[0] - at) for y in grids)

    errors = np.array([error(0.1 / 2**k) for k in range(4)])
    assert errors[0] < 0.1**2
    np.testing.assert_allclose(np.log2(errors[:-1] / errors[1:]), order, atol=0.1)


@given(
    y=st.lists(st.floats(-5, 5), min_size=3, max_size=30, unique=True).map(sorted),
    top=st.floats(-4.5, 4.5),
    scale=st.sampled_from([-3.0, 1.0, 0.01]),
)
@PROPERTY
def test_a_parabolas_vertex_is_exact_on_any_grid(y, top, scale):
    y = np.array(y)
    assume(np.diff(y).min() > 0.01)
    f = scale * (y - top) ** 2
    found = [one for one in extrema(y, f) if one.kind == ("minimum" if scale > 0 else "maximum")]
    nearest = np.sort(np.abs(y - top))
    assume(nearest[1] - nearest[0] > 1e-9)  # where two points tie, they are a plateau, and its middle the vertex
    assert len(found) == 1
    if y[0] < top < y[-1] and not found[0].at_end:
        assert found[0].position == pytest.approx(top, abs=1e-9)
    else:
        assert found[0].position in (y[0], y[-1])


def test_a_vertex_between_two_equal_points_is_their_middle():
    assert extrema([0, 1, 3, 4], [0, 2, 2, 0])[1] == Extremum(2.0, 2.0, "maximum")


@pytest.mark.parametrize(("low", "high"), [(-0.5, 0.5), (-1.0, 0.2), (-0.9, 1.0)])
def test_a_clipped_top_counts_once_at_its_middle(low, high):
    y = np.linspace(0, 2 * np.pi, 631)
    found = extrema(y, np.clip(np.sin(y), low, high))
    assert summary(found) == [("maximum", False), ("minimum", False)]
    np.testing.assert_allclose(positions(found), [np.pi / 2, 3 * np.pi / 2], atol=y[1])
    assert [one.value for one in found] == pytest.approx([high, low], abs=1e-4)


def test_a_step_between_two_levels_has_extrema_at_the_ends_alone_at_the_middle_of_each_level():
    assert extrema(range(7), [1, 1, 1, 2, 4, 4, 4]) == (
        Extremum(1.0, 1.0, "minimum", True),
        Extremum(5.0, 4.0, "maximum", True),
    )


def test_a_level_stretch_on_a_slope_is_no_extremum():
    assert summary(extrema(range(6), [0, 1, 2, 2, 3, 4])) == [("minimum", True), ("maximum", True)]


@pytest.mark.parametrize("value", [0.0, 1.0, -1e300, 1e-300])
def test_a_constant_has_none(value):
    assert extrema(range(5), [value] * 5) == ()


@pytest.mark.parametrize("f", [np.exp, np.cbrt, lambda y: y])
def test_a_monotone_function_has_its_ends(f):
    y = np.linspace(-1, 2, 40)
    assert extrema(y, f(y)) == (
        Extremum(-1.0, float(f(y[0])), "minimum", True),
        Extremum(2.0, float(f(y[-1])), "maximum", True),
    )


def test_ends_count_only_where_the_function_is_lowest_or_highest_of_all():
    #            end: no   max   min   max   end: no
    found = extrema(range(7), [1, 3, 2, 0, 2, 5, 4])
    assert summary(found) == [("maximum", False), ("minimum", False), ("maximum", False)]
    assert summary(extrema(range(5), [0, 3, 0, 3, 0])) == [
        ("minimum", True), ("maximum", False), ("minimum", False), ("maximum", False), ("minimum", True)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("f", "expected"),
    [
        ([0, 1, 0], [("minimum", True), ("maximum", False), ("minimum", True)]),
        ([0, 1, 0.5], [("minimum", True), ("maximum", False)]),
        ([2, 1, 2], [("maximum", True), ("minimum", False), ("maximum", True)]),
        ([0, 0, 1], [("minimum", True), ("maximum", True)]),
    ],
)
def test_three_points_are_enough(f, expected):
    assert summary(extrema([0, 1, 2], f)) == expected


def test_the_coarsest_grid_still_places_a_vertex_within_its_cell():
    assert extrema([0, 1, 2], [0, 1, 0.5])[1].position == pytest.approx(1 + 1 / 6, abs=rounding(16))


@pytest.mark.parametrize("seed", range(5))
def test_rounding_noise_makes_no_extrema(seed):
    rng = np.random.default_rng(seed)
    y = np.linspace(0, 10, 401)
    # Level, up, a level top, down, level; the noise is that of sums of numbers of size one.
    f = np.clip(np.minimum(y - 2, 8 - y), 0, 1.5)
    found = extrema(y, f + 2e-16 * rng.standard_normal(len(y)))
    assert summary(found) == [("minimum", True), ("maximum", False), ("minimum", True)]
    np.testing.assert_allclose([one.position for one in found], [1, 5, 9], atol=0.03)


def test_noise_far_above_rounding_is_believed():
    y = np.linspace(0, 10, 401)
    f = np.clip(y, 3, 7) + 1e-6 * np.random.default_rng(0).standard_normal(len(y))
    assert len(extrema(y, f)) > 10


@pytest.mark.parametrize("points", [21, 401, 20_001])
def test_a_tail_that_falls_more_slowly_than_rounding_still_has_its_lowest_point_at_the_end(points):
    y = np.linspace(-10, 10, points)
    found = extrema(y, np.exp(-(y**2) / 2))
    assert summary(found) == [("minimum", True), ("maximum", False), ("minimum", True)]
    left, top, right = (one.position for one in found)
    assert left == -right
    assert top == pytest.approx(0, abs=1e-12)
    assert right > 6  # on the level stretch


# --- against other routes ---


@given(f=st.lists(st.integers(-4, 4), min_size=3, max_size=25))
@PROPERTY
def test_whatever_the_function_its_extrema_alternate_and_hold_the_lowest_and_the_highest_of_all(f):
    y = np.arange(len(f))
    found = extrema(y, f)
    if len(set(f)) == 1:
        assert found == ()
        return
    kinds = [one.kind for one in found]
    assert all(one != other for one, other in pairwise(kinds))
    assert min(one.value for one in found if one.kind == "minimum") == min(f)
    assert max(one.value for one in found if one.kind == "maximum") == max(f)
    for one in found:
        assert one.value == f[round(one.position)] or one.value == f[math.floor(one.position)]
    assert list(found) == sorted(found, key=lambda one: one.position)


@given(f=st.lists(st.integers(-1000, 1000), min_size=3, max_size=25, unique=True))
@PROPERTY
def test_without_ties_the_extrema_are_the_points_above_or_below_both_neighbours(f):
    inner = [k for k in range(1, len(f) - 1) if (f[k] - f[k - 1]) * (f[k + 1] - f[k]) < 0]
    ends = [k for k in (0, len(f) - 1) if f[k] in (min(f), max(f))]
    found = extrema(range(len(f)), f)
    assert [one.value for one in found] == [f[k] for k in sorted(inner + ends)]
    for one, k in zip(found, sorted(inner + ends), strict=True):
        assert one.kind == ("maximum" if f[k] > min(f[max(k - 1, 0) : k + 2]) else "minimum")
        assert abs(one.position - k) <= 0.5
        assert one.at_end == (k in ends)


@given(roots=st.lists(st.integers(-9, 9), min_size=1, max_size=5, unique=True), shift=st.floats(-0.05, 0.05))
@PROPERTY
def test_a_polynomials_extrema_are_the_roots_of_its_derivative(roots, shift):
    roots = np.sort(np.array(roots) / 10 + shift)
    slope = np.polynomial.Polynomial.fromroots(roots)
    y = np.linspace(-1, 1, 3001)
    found = extrema(y, slope.integ()(y))
    inner = [one for one in found if not one.at_end]
    bend = slope.deriv()(roots)
    assert [one.kind for one in inner] == ["minimum" if b > 0 else "maximum" for b in bend]
    # The parabola's error: h²/6 times the third derivative against the second.
    error = (y[1] - y[0]) ** 2 * (np.abs(slope.deriv(2)(roots) / bend) / 6 + 10)
    assert (np.abs(np.array([one.position for one in inner]) - roots) <= error).all()


@st.composite
def waves(draw):
    """A smooth function on a grid that need not be even."""
    n = draw(st.integers(8, 60))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    y = np.sort(rng.uniform(0, 6, n)) if draw(st.booleans()) else np.linspace(0, 6, n)
    assume(np.diff(y).min() > 1e-4)
    return y, sum(rng.standard_normal() * np.sin(k * y + rng.uniform(0, 6)) for k in range(1, 5))


@given(
    wave=waves(),
    stretch=st.sampled_from([0.01, 1.0, 300.0]),
    move=st.floats(-5, 5),
    scale=st.sampled_from([-1e3, -0.5, 1e-3, 7.0]),
    lift=st.floats(-2, 2),
)
@PROPERTY
def test_positions_follow_affine_maps_of_either_axis(wave, stretch, move, scale, lift):
    y, f = wave
    before, after = extrema(y, f), extrema(stretch * (y + move), scale * (f + lift))
    assert len(before) == len(after)
    swap = {"minimum": "maximum", "maximum": "minimum"}
    for one, other in zip(before, after, strict=True):
        assert other.position == pytest.approx(stretch * (one.position + move), abs=1e-6 * stretch)
        assert other.value == pytest.approx(scale * (one.value + lift), rel=1e-9, abs=1e-9 * abs(scale))
        assert other.kind == (one.kind if scale > 0 else swap[one.kind])
        assert other.at_end == one.at_end


@given(wave=waves(), top=st.floats(0.2, 3))
@PROPERTY
def test_a_mirrored_function_has_mirrored_extrema(wave, top):
    y, f = wave
    for values in (f, np.clip(f, -top, top), np.exp(-9 * np.abs(f))):
        there, back = extrema(y, values), extrema(-y[::-1], values[::-1])[::-1]
        assert summary(there) == summary(back)
        for one, other in zip(there, back, strict=True):
            assert other.position == pytest.approx(-one.position, abs=1e-9)
            assert other.value == pytest.approx(one.value, abs=1e-11)


# --- inside and outside ---

# A zigzag: maximum at 2, minimum at 6; its ends are neither lowest nor highest.
ZIGZAG = np.arange(9.0), np.array([0.0, 1, 2, 1, 0, -1, -2, -1, 0])


@pytest.mark.parametrize(
    ("low", "high", "slack_outside", "slack_inside", "reach"),
    [
        (3, 5, 1, -1, 1),  # both outside, by one
        (1, 7, -1, 1, 0),  # both inside, by one
        (1, 4, -1, -2, 2),  # the maximum inside by one, the minimum outside by two
        (4, 8, -2, -2, 2),  # the maximum outside by two, the minimum inside by two
        (2, 6, 0, 0, 0),  # both on the boundary, which satisfies either
        (7, 9, 1, -5, 5),  # both on one side
        (4, 4, 2, -2, 2),  # an interval of no length
    ],
)
def test_slack_and_reach_by_hand(low, high, slack_outside, slack_inside, reach):
    for statement, slack in ((outside, slack_outside), (inside, slack_inside)):
        placed = statement(*ZIGZAG, low, high)
        assert placed.slack == pytest.approx(slack, abs=1e-12)
        assert placed.reach == pytest.approx(reach, abs=1e-12)
        assert placed.extrema == extrema(*ZIGZAG)


def test_ends_take_part_in_the_placement():
    y = np.arange(9.0)
    assert outside(y, y, 2, 6).slack == 2  # minimum at 0, maximum at 8
    assert inside(y, y, 2, 6).slack == -2
    assert inside(y, y, 1, 6).reach == 2


def test_reach_looks_at_the_lowest_minimum_and_the_highest_maximum_alone():
    # Maxima at 2 (low) and 5 (high), minima at 4 and 8 (lowest, at the end).
    y, f = np.arange(9.0), np.array([0.0, 0.5, 1, 0.5, 0, 3, 1, -1, -2])
    placed = inside(y, f, 3.0, 7.5)
    assert placed.reach == pytest.approx(0.5, abs=1e-12)
    assert placed.slack == pytest.approx(-1, abs=1e-12)  # the low maximum's


@pytest.mark.parametrize("statement", [inside, outside])
def test_without_any_extremum_either_statement_is_true(statement):
    placed = statement(range(4), [1.0] * 4, 1, 2)
    assert placed == type(placed)((), math.inf, 0.0)


@given(wave=waves(), low=st.floats(0, 3), length=st.floats(0, 3))
@PROPERTY
def test_slack_is_the_worst_extremums_and_reach_no_less_than_zero(wave, low, length):
    y, f = wave
    high = low + length
    away = [max(low - one.position, one.position - high) for one in extrema(y, f)]
    assert outside(y, f, low, high).slack == min(away)
    assert inside(y, f, low, high).slack == pytest.approx(-max(away), abs=1e-12)
    lowest, highest = (pick(extrema(y, f), key=lambda one: one.value).position for pick in (min, max))
    reach = max(0, *(max(low - position, position - high) for position in (lowest, highest)))
    assert outside(y, f, low, high).reach == inside(y, f, low, high).reach == reach


def test_a_product_with_a_tiny_tail_keeps_its_extremum_there():
    """Far modes: w·p has its maximum where p is below 1e-20 of its peak. Only a pointwise error can see it."""
    y, low, high, width = np.linspace(0, 40, 801), 14.0, 26.0, 0.75
    log_p, log_q = (-0.5 * ((y - mode) / width) ** 2 for mode in (low, high))
    p, w = np.exp(log_p), log_q - log_p
    wanted = equal_width_extrema(low, high, width)
    found = extrema(y, w * p, product_noise(w * p, p))
    assert [one.kind for one in found] == ["minimum", "maximum"]
    assert [one.position for one in found] == pytest.approx(wanted, abs=0.02)
    assert not found[1].at_end
    assert len(extrema(y, w * p)) > 2 or extrema(y, w * p)[-1].at_end  # which its range alone would miss
