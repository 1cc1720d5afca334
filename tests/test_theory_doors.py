"""Every door of the theory: bad input is answered in one line that names it; and the theory never sees a loss."""

import inspect
import math
import re
import subprocess
import sys

import numpy as np
import pytest

from gradlab import theory

THREE, OTHER = np.log([0.2, 0.3, 0.5]), np.log([0.5, 0.25, 0.25])
PROBS, SHARE = [0.2, 0.3, 0.5], [1.0, -2.0, 3.0]
GRID, BUMP = [0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 3.0, 2.0]
SIDES = {"log_win": [-1.0, -2.0], "log_lose": [-3.0, -4.0]}
DENSITY = theory.gaussian_log_density(0.5, 0.3)
HELD = 0.9044192954543706  # by the density on [0, 1]: erf(0.5/(0.3 √2))
LIMIT = {"y": [0.5, 0.7], "log_p": DENSITY, "log_q": DENSITY, "low": 0.0, "high": 1.0, "beta": 1.0, "points": [0.4]}
BOTH = {"log_p": THREE, "log_q": OTHER}

# A good call of every public function, with every argument that has a door.
GOOD = {
    "dpo_log_rho": SIDES,
    "bdpo_log_rho": SIDES,
    "nbdpo_log_rho": {**SIDES, "clip": 0.5, "symmetric": True},
    "fixed_weight_log_rho": {**SIDES, "win_weight": 0.5},
    "in_probabilities": {"log_rho": [0.0, 1.0], **SIDES},
    "share_corrected": {"log_prob_ratio": [0.0, 1.0], **SIDES},
    "bdpo_share_corrected": SIDES,
    "logarithmic_mean": {"a": [1.0, 2.0], "b": [3.0, 4.0]},
    "weight_spread": {"mean": [1.0, 2.0], "spread": [0.5, 1.0], "length": [4.0, 8.0]},
    "explained_by_length": {
        "mean": [1.0, 2.0],
        "spread": [0.5, 1.0],
        "length": [4.0, 8.0],
        "variation": [0.1, 0.5],
    },
    "disentanglement_band": {"cosine": [-0.5, 0.5]},
    "side_moves": {"norm_win": [1.0, 2.0], "norm_lose": [2.0, 1.0], "cosine": [-0.5, 0.5]},
    "dpo_weight": {**BOTH, "log_ref": OTHER, "beta": 1.0},
    "bdpo_weight": {**BOTH, "log_ref": OTHER, "beta": 1.0},
    "log_ratio_weight": BOTH,
    "balanced_weight": {**BOTH, "weight": SHARE, "baseline": True},
    "in_logits": {"weight": SHARE, "log_p": THREE},
    "extrema": {"y": GRID, "f": BUMP, "noise": 1e-12},
    "outside": {"y": GRID, "f": BUMP, "low": 1.0, "high": 2.0, "noise": 1e-12},
    "inside": {"y": GRID, "f": BUMP, "low": 1.0, "high": 2.0, "noise": 1e-12},
    "product_noise": {"product": SHARE, "factor": PROBS},
    "variance_ratio": {"w": SHARE, "p": PROBS},
    "covariance_gap": {"w": SHARE, "p": PROBS},
    "gradient_inner_products": {"p": PROBS, "kernel": np.eye(3)},
    "gradient_cosines": {"p": PROBS, "kernel": np.eye(3)},
    "mean_off_diagonal": {"matrix": np.ones((3, 3)), "observed": [True, True, False]},
    "pair_weight": {"n": 3, "win": 0, "lose": 2, "win_weight": 0.5, "lose_weight": 0.5},
    "first_order_change": {"log_p": THREE, "weight": SHARE},
    "realised_change": {"log_p": THREE, "weight": SHARE, "step": 0.1},
    "gaussian_log_density": {"mean": 0.0, "width": 1.0},
    "dpo_weight_limit": LIMIT,
    "bdpo_weight_limit": {**LIMIT, "log_p": lambda y: DENSITY(y) - math.log(HELD), "cells": 100},
    "equal_width_extrema": {"mean_p": 0.0, "mean_q": 1.0, "width": 1.0},
}

NO_NUMBERS = {"a word": "many", "a ragged list": [[1.0], [1.0, 2.0]], "an object": object()}
NOT_FINITE = {"nan": [math.nan, -1.0, -2.0], "an infinity": [-1.0, -math.inf, 0.0]}
OPEN_LINE = "must be finite and lie in (-inf, inf)"

# What each kind of argument refuses: the bad values, and the words of the answer.
REFUSED = {
    "log-probabilities": [
        *((value, "must be an array of numbers, got") for value in NO_NUMBERS.values()),
        ([-1.0, math.nan], "must be finite, got nan"),
        (-math.inf, "must be finite, got -inf"),
        ([-1.0, 1e-3], "must be log-probabilities, so ≤ 0, got 0.001"),
        ([-1.0, -2.0, -3.0], "must broadcast, got shapes"),
    ],
    "ratios": [
        *((value, "must be an array of numbers, got") for value in NO_NUMBERS.values()),
        ([0.0, 1.0, 2.0], "must broadcast, got shapes"),
    ],
    "numbers ≥ 0": [
        *((value, "must be an array of numbers, got") for value in NO_NUMBERS.values()),
        ([1.0, math.inf], "must be finite, got inf"),
        ([1.0, -1e-3], "must be ≥ 0, got -0.001"),
        ([1.0, 2.0, 3.0], "must broadcast, got shapes"),
    ],
    "numbers > 0": [
        *((value, "must be an array of numbers, got") for value in NO_NUMBERS.values()),
        ([1.0, math.inf], "must be finite, got inf"),
        ([1.0, 0.0], "must be > 0, got 0"),
        ([1.0, 2.0, 3.0], "must broadcast, got shapes"),
    ],
    "numbers ≥ 1": [
        *((value, "must be an array of numbers, got") for value in NO_NUMBERS.values()),
        ([1.0, math.nan], "must be finite, got nan"),
        ([1.0, 0.5], "must be ≥ 1, got 0.5"),
        ([1.0, 2.0, 3.0], "must broadcast, got shapes"),
    ],
    "cosine": [
        *((value, "must be an array of numbers, got") for value in NO_NUMBERS.values()),
        ([1.0, math.nan], "must be finite, got nan"),
        ([0.5, -1.5], "must lie in [−1, 1], got -1.5"),
    ],
    "log-distribution": [
        *((value, "must be an array of numbers, got") for value in NO_NUMBERS.values()),
        *((value, "must be finite, got") for value in NOT_FINITE.values()),
        (PROBS, "must sum to one, got a sum of 4.21998"),
        (THREE + 1e-5, "must sum to one, got a sum of 1.00001"),
        ([[0.0, 0.0, 0.0], list(THREE)], "must sum to one, got a sum of 3"),
        ([1e3, 0.0, 0.0], "must sum to one, got a sum of inf"),
        ([0.0], "must have at least 2 responses along its last axis, got shape (1,)"),
        (0.0, "must have at least 2 responses along its last axis, got shape ()"),
        (np.log([0.5, 0.5]), "responses, got shape ("),
    ],
    "distribution": [
        *((value, "must be an array of numbers, got") for value in NO_NUMBERS.values()),
        *((value, "must be finite, got") for value in NOT_FINITE.values()),
        ([0.2, 0.3, 0.4], "must sum to one, got a sum of 0.9"),
        ([[0.2, 0.3, 0.5], [0.5, 0.5, 0.5]], "must sum to one, got a sum of 1.5"),
        ([-0.2, 0.7, 0.5], "must be ≥ 0, got -0.2"),
        ([1.0], "must have at least 2 responses along its last axis, got shape (1,)"),
        (1.0, "must have at least 2 responses along its last axis, got shape ()"),
    ],
    "weights": [
        *((value, "must be an array of numbers, got") for value in NO_NUMBERS.values()),
        *((value, "must be finite, got") for value in NOT_FINITE.values()),
        ([1.0, 2.0], "3 responses, got shape (2,)"),
        (1.0, "3 responses, got shape ()"),
    ],
    "grid": [
        *((value, "must be an array of numbers, got") for value in NO_NUMBERS.values()),
        ([0.0, math.nan, 2.0, 3.0], "must be finite, got nan"),
        ([0.0, 1.0], "must be a grid of at least 3 points, got shape (2,)"),
        (np.zeros((3, 3)), "must be a grid of at least 3 points, got shape (3, 3)"),
        ([0.0, 2.0, 1.5, 3.0], "must be strictly increasing, got 2 before 1.5"),
        ([0.0, 1.0, 1.0, 3.0], "must be strictly increasing, got 1 before 1"),
    ],
    "sampled": [
        *((value, "must be an array of numbers, got") for value in NO_NUMBERS.values()),
        ([0.0, 1.0, math.inf, 3.0], "must be finite, got inf"),
        ([0.0, 1.0, 2.0], "must have y's shape (4,), got (3,)"),
    ],
    "noise": [
        *((value, "must be an array of numbers, got") for value in NO_NUMBERS.values()),
        (math.nan, "must be finite, got nan"),
        (-1e-9, "must be ≥ 0, a number or of y's shape (4,), got shape ()"),
        ([1e-9, 1e-9], "must be ≥ 0, a number or of y's shape (4,), got shape (2,)"),
    ],
    "product": [
        *((value, "must be an array of numbers, got") for value in NO_NUMBERS.values()),
        *((value, "must be finite, got") for value in NOT_FINITE.values()),
    ],
    "factor": [
        *((value, "must be an array of numbers, got") for value in NO_NUMBERS.values()),
        *((value, "must be finite, got") for value in NOT_FINITE.values()),
        ([0.5, 0.5], "must be ≥ 0 and have product's shape (3,), got shape (2,) with a least value of 0"),
        ([0.5, -0.5, 1.0], "must be ≥ 0 and have product's shape (3,), got shape (3,) with a least value of -0.5"),
    ],
    "positions": [
        *((value, "must be an array of numbers, got") for value in NO_NUMBERS.values()),
        ([0.5, math.nan], "must be finite, got nan"),
    ],
    "kernel": [
        *((value, "must be an array of numbers, got") for value in NO_NUMBERS.values()),
        (np.full((3, 3), math.nan), "must be finite, got nan"),
        (np.eye(2), "must have shape (..., n, n) with p's n = 3, got (2, 2)"),
        (np.ones(3), "must have shape (..., n, n) with p's n = 3, got (3,)"),
    ],
    "matrix": [
        *((value, "must be an array of numbers, got") for value in NO_NUMBERS.values()),
        (np.ones((2, 3)), "must have shape (..., n, n) with n ≥ 2, got (2, 3)"),
        (np.ones((1, 1)), "must have shape (..., n, n) with n ≥ 2, got (1, 1)"),
        (1.0, "must have shape (..., n, n) with n ≥ 2, got ()"),
    ],
    "observed": [
        ([True, True], "must be 3 booleans, at least two of them true, got"),
        ([True, False, False], "must be 3 booleans, at least two of them true, got"),
        ([1, 1, 0], "must be boolean, got int64"),
        ("all", "must be boolean, got <U3"),
    ],
    "positive": [
        (value, f"must be finite and > 0, got {value!r}")
        for value in (0, -1.0, math.nan, math.inf, True, "1", None, [1.0])
    ],
    "share": [
        (value, f"must be finite and lie in (0, 1), got {value!r}")
        for value in (0, 1.0, -0.1, math.nan, True, "0.5", None)
    ],
    "number": [
        (value, f"{OPEN_LINE}, got {value!r}") for value in (math.nan, math.inf, -math.inf, True, "0", None, [0.0])
    ],
    "upper end": [(value, "must be finite and lie in ") for value in (-1.0, math.nan, math.inf, "1", None)],
    "responses": [(value, "must be a whole number ≥ 2, got") for value in (1, 0, -1, 3.0, math.nan, True, "3", None)],
    "index": [
        (3, "must be one of the 3 responses, 0 to 2, got 3"),
        *((value, "must be a whole number ≥ 0, got") for value in (-1, 1.0, math.nan, True, "1", None)),
    ],
    "cells": [
        (value, f"must be finite and lie in [2, inf), got {value!r}")
        for value in (1, 0, -math.inf, math.nan, True, "many", None, [100])
    ],
    "density": [
        (DENSITY(0.0), "must be a function of y, got float64"),
        (None, "must be a function of y, got NoneType"),
        (lambda y: y * math.nan, "must be finite, got nan"),
        (lambda y: -math.inf * np.ones_like(y), "must be finite, got -inf"),
        (lambda y: np.zeros(5), "must give a log-density for each y, shape"),
    ],
}  # fmt: skip

KINDS = {
    "log_win": "log-probabilities",
    "log_lose": "log-probabilities",
    "log_rho": "ratios",
    "log_prob_ratio": "ratios",
    "a": "numbers ≥ 0",
    "b": "numbers ≥ 0",
    "spread": "numbers ≥ 0",
    "variation": "numbers ≥ 0",
    "length": "numbers ≥ 1",
    "norm_win": "numbers ≥ 0",
    "norm_lose": "numbers ≥ 0",
    "cosine": "cosine",
    "log_p": "log-distribution",
    "log_q": "log-distribution",
    "log_ref": "log-distribution",
    "p": "distribution",
    "weight": "weights",
    "w": "weights",
    "y": "grid",
    "f": "sampled",
    "kernel": "kernel",
    "matrix": "matrix",
    "observed": "observed",
    "noise": "noise",
    "product": "product",
    "factor": "factor",
    "beta": "positive",
    "clip": "positive",
    "width": "positive",
    "step": "positive",
    "win_weight": "share",
    "low": "number",
    "high": "upper end",
    "mean": "number",
    "mean_p": "number",
    "mean_q": "number",
    "n": "responses",
    "win": "index",
    "lose": "index",
    "cells": "cells",
}
OTHERWISE = {
    ("weight_spread", "mean"): "numbers > 0",
    ("explained_by_length", "mean"): "numbers > 0",
    ("pair_weight", "win_weight"): "number",
    ("pair_weight", "lose_weight"): "number",
    **{(name, at): "positions" for name in ("dpo_weight_limit", "bdpo_weight_limit") for at in ("y", "points")},
    **{(name, side): "density" for name in ("dpo_weight_limit", "bdpo_weight_limit") for side in ("log_p", "log_q")},
}
SWITCHES = ("symmetric", "baseline")


def doors():
    for function, arguments in GOOD.items():
        for name in arguments:
            if name in SWITCHES:
                continue
            kind = OTHERWISE.get((function, name)) or KINDS[name]
            for value, words in REFUSED[kind]:
                label = re.sub(r"\s+", " ", repr(value))[:40].split(" at 0x")[0]
                yield pytest.param(function, name, value, words, id=f"{function}-{name}-{label}")


def public_functions():
    return {name for name in theory.__all__ if inspect.isfunction(getattr(theory, name))}


def test_every_public_function_and_each_of_its_arguments_has_a_door_here():
    assert public_functions() == set(GOOD)
    for name, arguments in GOOD.items():
        assert set(inspect.signature(getattr(theory, name)).parameters) == set(arguments)


@pytest.mark.parametrize("name", GOOD)
def test_a_good_call_is_answered(name):
    answer = getattr(theory, name)(**GOOD[name])
    if isinstance(answer, np.ndarray):
        assert answer.dtype == np.float64
        assert np.isfinite(answer).all()


@pytest.mark.parametrize(("function", "name", "value", "words"), list(doors()))
def test_bad_input_is_refused_in_one_line_that_names_it_and_says_what_is_accepted(function, name, value, words):
    with pytest.raises(ValueError, match=rf"\b{name}\b.*{re.escape(words)}") as error:
        getattr(theory, function)(**{**GOOD[function], name: value})
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize("function", ["dpo_weight", "bdpo_weight", "log_ratio_weight", "balanced_weight"])
def test_leading_axes_that_do_not_broadcast_are_refused_with_every_shape(function):
    with pytest.raises(ValueError, match=r"^leading axes must broadcast, got log_p \(2, 3\), log_q \(4, 3\)"):
        getattr(theory, function)(np.stack([THREE] * 2), np.stack([OTHER] * 4))


@pytest.mark.parametrize("function", ["variance_ratio", "covariance_gap"])
def test_leading_axes_of_weights_and_policy_must_broadcast(function):
    with pytest.raises(ValueError, match=r"^leading axes must broadcast, got p \(2, 3\), w \(4, 3\)$"):
        getattr(theory, function)(np.ones((4, 3)), [PROBS] * 2)


@pytest.mark.parametrize("function", ["gradient_inner_products", "gradient_cosines"])
def test_leading_axes_of_policy_and_kernel_must_broadcast(function):
    with pytest.raises(ValueError, match=r"^leading axes must broadcast, got p \(2, 3\), kernel \(4, 3, 3\)$"):
        getattr(theory, function)([PROBS] * 2, np.ones((4, 3, 3)))


def test_an_interval_of_no_length_is_a_place_but_no_support():
    assert theory.outside(GRID, BUMP, 1.0, 1.0).slack == 1.0
    with pytest.raises(ValueError, match=r"^high must be finite and lie in \(0, inf\), got 0\.0$"):
        theory.dpo_weight_limit([0.0], DENSITY, DENSITY, 0.0, 0.0)


def test_log_distributions_may_be_rounded():
    np.testing.assert_allclose(theory.dpo_weight(THREE + 1e-8, OTHER), theory.dpo_weight(THREE, OTHER), atol=1e-12)
    theory.variance_ratio(SHARE, np.array(PROBS) + 1e-8)


def test_a_cell_never_holds_more_than_all():
    sharp = theory.gaussian_log_density(0.5, 0.01)  # a density of 40 in the middle
    with pytest.raises(ValueError, match=r"^cells must be so many that none holds more than probability 1, got 39$"):
        theory.bdpo_weight_limit(0.5, sharp, DENSITY, 0.0, 1.0, cells=39)
    assert np.isfinite(theory.bdpo_weight_limit(0.5, sharp, DENSITY, 0.0, 1.0, cells=41))


@pytest.mark.parametrize(("width", "times", "total"), [(0.3, 1, "0.904419"), (1e-4, 2, "2")])
def test_a_density_that_holds_less_or_more_than_all_has_no_cells(width, times, total):
    def log_p(y):
        return theory.gaussian_log_density(0.5, width)(y) + math.log(times)

    with pytest.raises(ValueError, match=rf"^log_p must be normalised on \[low, high\] .* got a total of {total}$"):
        theory.bdpo_weight_limit(0.5, log_p, DENSITY, 0.0, 1.0, cells=1e6)


def test_the_theory_never_looks_at_the_losses():
    code = "import sys, gradlab.theory; print(*[name for name in sys.modules if name.startswith(('torch', 'gradlab'))])"
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    inside = "gradlab.theory"
    assert {name for name in seen if name != inside and not name.startswith(inside + ".")} == {
        "gradlab",
        "gradlab.arrays",
        "gradlab.checks",
    }
