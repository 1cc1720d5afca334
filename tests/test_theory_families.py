"""The families of distributions: each against its definition, its draws repeatable, and bad input refused."""

import numpy as np
import pytest

from gradlab.theory import families


@pytest.mark.parametrize("support", [20.0, 40.0])
def test_cells_are_even_and_cover_the_support(support):
    y = families.cells(50, support)
    np.testing.assert_allclose(np.diff(y), support / 50)
    assert y[0] - support / 100 == pytest.approx(-support / 2)
    np.testing.assert_allclose(families.cells(50, support, 0.0), y + support / 2)


@pytest.mark.parametrize("shape", families.SHAPES)
def test_a_shape_is_a_distribution_with_its_mode_and_width(shape):
    y = families.cells(4000, 400.0)
    p = np.exp(families.on_cells(shape, y, 3.0, 2.0))
    assert p.sum() == pytest.approx(1, abs=1e-12)
    assert y[p.argmax()] == pytest.approx(3.0, abs=0.1)
    variance = {"gaussian": 4.0, "laplace": 4.0, "student": 12.0}[shape]  # Student's with 3 degrees: 3 of the width's
    assert (p * (y - 3.0) ** 2).sum() == pytest.approx(variance, rel=0.03)


def test_a_gaussian_is_its_log_density_on_the_usual_support():
    y = np.arange(20) + 0.5 - 10
    log_p = -0.5 * ((y + 2) / 1.5) ** 2
    np.testing.assert_allclose(families.gaussian(20, -2.0, 1.5), log_p - np.log(np.exp(log_p).sum()), atol=1e-12)


def test_a_peak_leaves_the_rest_to_the_others():
    log_p = families.one_peak(5, 2, 0.2)
    np.testing.assert_allclose(np.exp(log_p), [0.05, 0.05, 0.8, 0.05, 0.05])
    log_p, at = families.random_peak(50, 0.01, seed=3)
    assert log_p.argmax() == at
    assert len({families.random_peak(50, 0.01, seed)[1] for seed in range(20)}) > 10


@pytest.mark.parametrize(
    "pair",
    [
        families.gaussian_pair(20, 4.0, 1.5, 3.0),
        families.peak_pair(20, 4.0, 0.1, 3.0),
        families.dirichlet_pair(20, 0.1, 10.0, 0),
        families.dirichlet_twins(20, 0.3, 0),
    ],
)
def test_both_of_a_pair_are_distributions(pair):
    for log_p in pair:
        assert log_p.shape == (20,)
        assert np.exp(log_p).sum() == pytest.approx(1, abs=1e-12)


def test_modes_of_a_pair_are_the_distance_apart():
    for pair in (families.gaussian_pair(200, 4.0, 1.5, 3.0), families.peak_pair(200, 4.0, 0.1, 3.0)):
        low, high = (families.cells(200)[log_p.argmax()] for log_p in pair)
        assert (low, high) == pytest.approx((-2.0, 2.0), abs=0.06)


def test_equal_seeds_draw_equal_bits_and_others_other_ones():
    for draw in (
        lambda seed: families.dirichlet_pair(8, 1.0, 1.0, seed),
        lambda seed: families.dirichlet_twins(8, 1, seed),
    ):
        first, again, other = draw(0), draw(0), draw(1)
        np.testing.assert_array_equal(first, again)
        assert not np.allclose(first, other)
        assert not np.allclose(first[0], first[1])


@pytest.mark.parametrize(("family", "level"), [("dirichlet", 1.0), ("gaussian", 0.2), ("one-hot", 0.9)])
def test_a_random_policy_is_a_distribution_that_its_generator_decides(family, level):
    p, again, other = (families.random_policy(family, 20, level, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert p.sum() == pytest.approx(1, abs=1e-12)
    np.testing.assert_array_equal(p, again)
    assert not np.allclose(p, other)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: families.cells(1), "n must be a whole number ≥ 2, got 1"),
        (lambda: families.cells(20, -1.0), "support must be finite and > 0, got -1.0"),
        (lambda: families.log_density("cauchy", 0.0, 1.0), "shape must be one of gaussian, laplace, student"),
        (lambda: families.gaussian(20, 0.0, 0.0), "width must be finite and > 0, got 0.0"),
        (lambda: families.one_peak(20, 0, 1.0), r"rest must be finite and lie in \(0, 1\), got 1.0"),
        (lambda: families.gaussian_pair(20, 1.0, 1.0, -1.0), "sigma_q must be finite and > 0, got -1.0"),
        (lambda: families.dirichlet_pair(20, 0.0, 1.0, 0), "alpha must be finite and > 0, got 0.0"),
        (lambda: families.one_peak(20, 20, 0.5), "at must be the number of a response, less than 20, got 20"),
        (lambda: families.one_peak(1, 0, 0.5), "n must be a whole number ≥ 2, got 1"),
        (lambda: families.random_peak(0, 0.5, 0), "n must be a whole number ≥ 2, got 0"),
        (lambda: families.dirichlet_twins(0, 1.0, 0), "n must be a whole number ≥ 2, got 0"),
        (lambda: families.random_policy("one-hot", 5, 2.0, np.random.default_rng(0)), r"level must .* \(0, 1\], got 2"),
        (
            lambda: families.random_policy("gaussian", 5, 0, np.random.default_rng(0)),
            r"level must be finite and lie in",
        ),
        (lambda: families.random_policy("flat", 5, 1.0, np.random.default_rng(0)), "family must be one of dirichlet"),
    ],
)
def test_bad_input_is_refused_in_one_line(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()
