"""Computed beside measured: the tokens of the steps that were measured, and the table of scripts/README.md."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("transformers")

from gradlab.llm.data.batches import Layout, collate, pair_rows
from gradlab.llm.data.tokens import Encoded
from gradlab.llm.model.memory import memory
from gradlab.llm.model.shapes import LLAMAS
from gradlab.llm.model.step_time import H200, step_time
from scripts.benchmarks import expected
from scripts.benchmarks.computed_and_measured import Beside, _cells, _pretrained

SEVEN = LLAMAS["Llama-2-7B"]


def pair(prompt, win, lose):
    return Encoded(*(tuple(range(3, 3 + number)) for number in (prompt, win, lose)))


PAIRS = [pair(10, 5, 9), pair(30, 20, 4), pair(8, 8, 8), pair(12, 1, 2)]
STEPS = [PAIRS, PAIRS, PAIRS]


@pytest.mark.parametrize("once", [True, False])
def test_tokens_are_those_of_the_tensors(once):
    found = expected.tokens(STEPS, once=once, micro=2)
    layout = Layout(once=once)
    rows = sorted(pair_rows(PAIRS), key=lambda row: -layout.tokens([row])[0])
    tensors = [collate(rows[at : at + 2], 2, layout=layout)["input_ids"] for at in (0, 2)]
    assert found["row"] * 4 * (1 if once else 2) == sum(one.numel() for one in tensors)
    assert found["response"] == np.mean([len(side) for one in PAIRS for side in (one.win, one.lose)])
    assert (found["pairs"], found["turns"]) == (4, 2)
    assert found["widest"] == ([2, 54, 50] if once else [2, 50, 50])


def test_packed_micro_batches_are_fewer_or_larger():
    found = expected.tokens(STEPS, micro=1, budget=54)
    assert found["turns"] == 3  # 54, then 24 and 24, then 15
    assert found["widest"] == [1, 54, 50]


def test_the_largest_micro_batch_is_that_of_the_steps_whose_peak_was_measured():
    steps = [[pair(2, 2, 2)], [pair(3, 3, 3)], [pair(9, 9, 9)]]
    assert expected.tokens(steps, micro=1)["widest"] == [1, 9, 6]
    assert expected.tokens(steps, micro=1, peaks=3)["widest"] == [1, 27, 18]
    assert expected.tokens(steps, micro=1)["row"] == 18  # of steps 2 and 3
    assert expected.tokens(steps, micro=1, warm=2)["row"] == 27


@pytest.mark.parametrize("once", [True, False])
def test_seconds_and_peak_are_those_of_the_tables(once):
    steps = [[pair(128, 128, 128)] * 8] * 2
    tokens = expected.tokens(steps, once=once, micro=4)
    assert expected.seconds(SEVEN, H200, tokens) == step_time(SEVEN, H200, pairs=8, once=once).total
    shared = {"prompt": 128} if once else {}
    assert expected.peak(SEVEN, tokens) == memory(SEVEN, micro_pairs=4, length=256, once=once, **shared).total


def frame(seconds):
    """What was measured of a pretrained model, all of it ``seconds`` and 3 GB, of which 1 GB was there before."""
    ways = ("gradlab: dpo", "gradlab: dpo, packed", "gradlab: dpo + sides", "former: dpo")
    rows = []
    for part in ("full", "LoRA"):
        rows += [{"part": part, "method": way, "cpu_seconds": seconds} for way in ways]
        rows += [
            {"part": f"{part}, memory", "method": way, "peak_mb": 3e9 / 2**20, "before_mb": 1e9 / 2**20} for way in ways
        ]
    return pd.DataFrame(rows)


def settings():
    rates = dataclasses.asdict(H200)
    ways = {"once": {"micro": 2}, "packed": {"micro": 2, "budget": 64}, "apart": {"micro": 2, "once": False}}
    return {
        "config": SEVEN,
        "rates": rates,
        "tokens": {way: expected.tokens(STEPS, **how) for way, how in ways.items()},
    }


def test_rows_of_a_pretrained_model_have_both_numbers():
    rows = {row.what: row for row in _pretrained(frame(4.0), settings()) if row.once}
    plain = rows["SmolLM2-135M, 4-bit weights made whole: all weights"]
    assert (plain.measured_seconds, plain.measured_bytes) == (4.0, pytest.approx(2e9))
    assert plain.seconds == expected.seconds(
        SEVEN, H200, settings()["tokens"]["once"], checkpointing=0, precision="fp32"
    )
    sides = rows["SmolLM2-135M, 4-bit weights made whole: all weights, a step that compares the sides"]
    assert math.isnan(sides.seconds)
    assert sides.bytes > plain.bytes
    former = list(_pretrained(frame(4.0), settings()))[3]
    assert not former.once
    assert math.isnan(former.bytes)
    assert former.seconds > plain.seconds


def test_the_table_divides_what_was_measured_by_what_was_computed():
    [row] = [_cells(Beside("CPU", "small", True, 2.0, 3.0, 4e9, 5e9))]
    assert row == ["CPU", "small", "once per pair", "2", "3", "1.50", "4", "5", "1.25"]
    assert _cells(Beside("CPU", "small", False))[3:] == ["–"] * 6
