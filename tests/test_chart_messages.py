"""Charts travel to the page as they are: every field by name, every number to the last bit."""

import base64
import json
from dataclasses import fields, is_dataclass

import numpy as np
import pytest

from gradlab.plotting import charts
from gradlab.plotting.charts import Arrows, Axis, Bar, Bars, Curve, Curves, Handle, Map, Move, Picture, Track
from gradlab.widgets.chart_messages import as_messages

X, Y = Axis("x", 0, 1), Axis("y", 0.1, 10, "log")
NUMBERS = np.array([0.1, -1e300, 5e-324, np.nan, np.inf])
CURVES = Curves(
    "Title π_w", "described", X, Y,
    [Curve("A", NUMBERS, NUMBERS[::-1], "#4B3FA7", marker="ring", low=NUMBERS, high=NUMBERS)],
    handles=[Handle("point", np.float64(0.5), float("nan"), "#C2418B", moves=[Move("p", "x", factor=2.0)],
                    track=Track("beta", NUMBERS, NUMBERS, NUMBERS))], picks=("p", ""),
)  # fmt: skip
EVERY = [
    CURVES,
    Map("M", "d", X, Y, np.arange(3), np.arange(2), np.arange(6).reshape(2, 3), "π", np.float32(0), 1,
        struck=np.array([[True, False, True]] * 2), ring=(0.5, 1)),
    Arrows("F", "d", X, X, *[np.zeros(0)] * 4, []),
    Bars("B", "d", "nats", ("π_w", "π_l"), [Bar("A", np.array([1, 2]), "#000000")]),
    Picture("P", "d", b"\x89PNG\x00"),
]  # fmt: skip


def test_every_kind_of_chart_is_a_case():
    assert {type(chart) for chart in EVERY} == set(charts.Chart.__args__)
    assert [message["type"] for message in as_messages(EVERY)] == ["curves", "map", "arrows", "bars", "picture"]


def array(message):
    return np.frombuffer(message["f8"], "<f8").reshape(message["shape"])


def check(message, record):
    assert set(message) - {"type"} == {field.name for field in fields(record)}
    for field in fields(record):
        sent, value = message[field.name], getattr(record, field.name)
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(array(sent), value)
        elif is_dataclass(value):
            check(sent, value)
        elif isinstance(value, list) and value and is_dataclass(value[0]):
            for one, part in zip(sent, value, strict=True):
                check(one, part)
        elif isinstance(value, tuple | list):
            assert sent == list(value)
        else:
            assert sent == value or (sent is None and np.isnan(value))


@pytest.mark.parametrize("chart", EVERY, ids=lambda chart: type(chart).__name__)
def test_every_field_arrives(chart):
    check(as_messages([chart])[0], chart)


def in_text(message):
    """The message as JSON, with bytes in base64: NaN would be no JSON."""
    coded = json.dumps(message, allow_nan=False, default=lambda view: {"base64": base64.b64encode(view).decode()})
    return json.loads(coded)


def test_what_is_not_bytes_is_json():
    assert in_text(as_messages(EVERY))[0]["handles"][0]["y"] is None


def test_equal_charts_are_equal_messages():
    assert as_messages([CURVES]) == as_messages([CURVES])
