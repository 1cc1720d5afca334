"""Arrays of any kind become numbers, or are refused in one line; a value under a mask is never used."""

import datetime
import math
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from gradlab.arrays import bool_array, check_columns, real_array
from gradlab.lab.fit import fit
from gradlab.lab.ppo import fill_unobserved
from gradlab.lab.world import World, gaussian_world
from gradlab.losses import DPO
from gradlab.theory import gradient_inner_products

ROWS = [[1.0, 2.0], [3.0, 4.0]]
NUMBERS = {
    "lists": ROWS,
    "tuples": tuple(map(tuple, ROWS)),
    "whole numbers": np.array(ROWS, int),
    "half": np.array(ROWS, np.float16),
    "long double": np.array(ROWS, np.longdouble),
    "a mask that hides nothing": np.ma.array(ROWS, mask=False),
    "a tensor": torch.tensor(ROWS),
    "a tensor with a gradient": torch.tensor(ROWS, requires_grad=True),
    "bfloat16": torch.tensor(ROWS, dtype=torch.bfloat16),
    "a frame": pd.DataFrame(ROWS),
    "fractions": [[Fraction(1), Fraction(2)], [Fraction(3), 4]],
}
OTHERS = {
    "masked": np.ma.array(ROWS, mask=[[False, True], [False, False]]),
    "masked rows in a list": [np.ma.array([1.0, 2.0], mask=[True, False]), [3.0, 4.0]],
    "the mask itself": [[1.0, np.ma.masked], [3.0, 4.0]],
    "complex": np.array(ROWS, complex),
    "a complex tensor": torch.tensor(ROWS, dtype=torch.complex64),
    "text": np.array(ROWS, str),
    "bytes": np.array(ROWS, bytes),
    "objects": np.array([[None, 1.0], [2.0, 3.0]], object),
    "times": np.array([["2020", "2021"], ["2022", "2023"]], "datetime64[D]"),
    "durations": np.array(ROWS, int).astype("timedelta64[s]"),
    "dates": [[datetime.date(2020, 1, 1)] * 2] * 2,
    "sparse": sparse.csr_matrix(ROWS),
    "a sparse tensor": torch.tensor(ROWS).to_sparse(),
    "no values": torch.zeros(2, 2, device="meta"),
    "ragged": [[1.0], [2.0, 3.0]],
    "tensors with gradients in a list": [torch.tensor([1.0, 2.0], requires_grad=True)] * 2,
    "a set": {1.0, 2.0},
    "a dict": {"a": 1.0},
    "too large": [[10**400, 1], [2, 3]],
    "a text": "1.0",
    "None": None,
    "records": np.zeros((2, 2), [("a", float)]),
}


@pytest.mark.parametrize("values", NUMBERS.values(), ids=NUMBERS)
def test_numbers_in_any_form_are_the_same_numbers(values):
    array = real_array("utility", values)
    assert array.dtype == np.float64
    assert array.tolist() == ROWS


@pytest.mark.parametrize("values", OTHERS.values(), ids=OTHERS)
def test_anything_else_is_refused_in_one_line_everywhere(values):
    world = gaussian_world(2, 2)
    doors = {
        "utility": lambda: World(values, world.observed, world.ref_logp),
        "ref_logp": lambda: World(world.utility, world.observed, values),
        "start": lambda: fit(world, DPO(), steps=1, start=values),
        "p": lambda: gradient_inner_products(values),
        "reward": lambda: fill_unobserved(values, world.observed, "mean"),
    }
    for name, call in doors.items():
        if name == "start" and values is None:  # the reference
            continue
        with pytest.raises(ValueError, match=rf"^{name} must ") as error:
            call()
        assert len(str(error.value).splitlines()) == 1


def test_booleans_under_a_mask_are_not_used():
    with pytest.raises(ValueError, match=r"^observed must not hide entries under a mask"):
        bool_array("observed", np.ma.array([True, False], mask=[False, True]))
    assert bool_array("observed", torch.tensor([True, False])).tolist() == [True, False]
    for values in ([1, 0], ["a"], None, [True, None]):
        with pytest.raises(ValueError, match=r"^observed must be boolean, got "):
            bool_array("observed", values)


def test_infinities_and_nan_are_numbers():
    assert np.isnan(real_array("x", [math.nan, math.inf])).tolist() == [True, False]


@pytest.mark.parametrize("frame", [None, 3, [1], {"a": 1}, pd.Series([1.0]), pd.DataFrame({"a": [1]})])
def test_a_frame_lacks_no_column(frame):
    with pytest.raises(ValueError, match=r"^answers must be a data frame with the columns a, b, got "):
        check_columns("answers", frame, ["a", "b"])


@pytest.mark.parametrize("settings", [{"dtype": "x"}, {"dtype": 3}, {"dtype": torch.int64}, {"dtype": None},
                                      {"dtype": torch.float8_e4m3fn}, {"device": "x"}, {"device": "meta"},
                                      {"device": 3}, {"device": ""}, {"device": None}])  # fmt: skip
def test_types_and_devices_that_do_not_exist_are_refused(settings):
    (name,) = settings
    with pytest.raises(ValueError, match=rf"^{name} must ") as error:
        fit(gaussian_world(2, 2), DPO(), steps=1, **settings)
    assert len(str(error.value).splitlines()) == 1
