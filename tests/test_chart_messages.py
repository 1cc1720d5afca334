"""Charts travel to the page as they are: every field by name, every number to the last bit."""

import base64
import json
from dataclasses import fields, is_dataclass

import numpy as np
import pytest
from node import needs_node, with_bundle

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
    Map("M", "d", X, Y, np.arange(3), np.array([1, 10]), np.arange(6).reshape(2, 3), "π", np.float32(0), 1,
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


@needs_node
def test_the_page_reads_the_numbers_to_the_last_bit():
    body = """
      const bytes = (text) => new Uint8Array(Buffer.from(text, "base64"));
      const padded = new Uint8Array([9, ...bytes(given.f8.base64)]);  // a view that begins at an odd place
      const view = new DataView(padded.buffer, 1);
      const read = [view, bytes(given.f8.base64).buffer].map((f8) => lab.arrayOf({ f8, shape: given.shape }));
      const plain = lab.arrayOf([1.5, null]);
      return [...read.map((numbers) => Buffer.from(numbers.buffer).toString("base64")), plain.map(Number.isNaN)];
    """
    sent = in_text(as_messages([CURVES]))[0]["curves"][0]["x"]
    assert with_bundle(body, sent) == [sent["f8"]["base64"]] * 2 + [[0, 1]]


@needs_node
def test_controls_are_set_within_their_ends_and_rounded_as_their_slider_rounds():
    number = {"kind": "number", "low": 0.01, "high": 10, "scale": "log"}
    cases = [
        [0.123456, number], [99, number], [-1, number], [3.4, {"kind": "whole", "low": 0, "high": 9}],
        [3.4, {"kind": "whole", "low": 0, "high": None}], [-3.4, {"low": 0, "high": None}], [7.77, None],
        [0.12345, {"kind": "number", "low": 0, "high": 1, "scale": "linear"}],
    ]  # fmt: skip
    body = "return given.map(([value, control]) => lab.heldBy(value, control ?? undefined))"
    assert with_bundle(body, cases) == [0.123, 10, 0.01, 3, 3, 0, 7.77, 0.123]
