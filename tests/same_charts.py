"""Charts, numbers and code of an explorer in the page, held to those of Python."""

import re

import numpy as np
import pytest


def flat(part):
    """Return lists, texts and numbers of a message, with arrays as lists."""
    if isinstance(part, dict) and "f8" in part:
        return np.frombuffer(part["f8"]).tolist()
    if isinstance(part, dict):
        return {key: flat(value) for key, value in part.items()}
    return [flat(value) for value in part] if isinstance(part, list | tuple) else part


def told_code(code):
    """Code with numbers and quotes in one way of writing: JavaScript writes 1.0 as 1, and rounds powers differently."""
    code = re.sub(r"\d+\.\d{9,}", lambda found: f"{float(found[0]):.12g}", code)
    return re.sub(r"(\d)\.0\b", r"\1", code).replace("'", '"')


def assert_equal(there, here, place="", atol=1e-9):
    """Assert that messages are the same, with numbers up to ``atol`` in absolute and 1e-9 in relative size."""
    assert type(there) is type(here) or {type(there), type(here)} == {int, float}, place
    if isinstance(here, dict):
        assert there.keys() == here.keys(), place
        for key, value in here.items():
            assert_equal(there[key], value, f"{place}.{key}", atol)
    elif isinstance(here, list):
        assert len(there) == len(here), place
        if here and all(isinstance(value, float | int) for value in here):
            np.testing.assert_allclose(there, here, rtol=1e-9, atol=atol, err_msg=place)
        else:
            for at, (one, other) in enumerate(zip(there, here, strict=True)):
                assert_equal(one, other, f"{place}[{at}]", atol)
    else:
        assert there == (pytest.approx(here, rel=1e-9, abs=atol) if isinstance(here, float) else here), place
