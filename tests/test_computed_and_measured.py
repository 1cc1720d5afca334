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
from gradlab.store.artifacts import load_frame
from scripts.benchmarks import expected
from scripts.benchmarks.computed_and_measured import Beside, _cells, _drawn, _pretrained
from scripts.benchmarks.timing import RESULTS

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


SECONDS = {"dpo": 4.0, "dpo, packed": 3.0, "dpo + sides": 9.0}  # of a step, by way
GIGABYTES = {"dpo": 3, "dpo, packed": 2, "dpo + sides": 4}  # at its peak, of which one was there before the model


def frame():
    """Return measurements of a pretrained model: with an adapter, and by the former code, everything twice that."""
    rows = []
    for part, times in (("full", 1), ("LoRA", 2)):
        for whose, more in (("gradlab", 1), ("former", 2)):
            for way, seconds in SECONDS.items():
                row, factor = {"part": part, "method": f"{whose}: {way}"}, times * more
                peak = {"peak_mb": factor * GIGABYTES[way] * 1e9 / 2**20, "before_mb": factor * 1e9 / 2**20}
                rows += [{**row, "cpu_seconds": factor * seconds}, {**row, "part": f"{part}, memory", **peak}]
    return pd.DataFrame(rows)


WAYS = {"once": {"micro": 2}, "packed": {"micro": 2, "budget": 64}, "apart": {"micro": 2, "once": False}}
SETTINGS = {
    "model": "SmolLM2-135M",
    "model_weights": "4-bit weights (Q4_1 79%, Q8_0 21%) made whole",
    "config": SEVEN,
    "rates": dataclasses.asdict(H200),
    "tokens": {way: expected.tokens(STEPS, **how) for way, how in WAYS.items()},
}


def test_rows_of_a_pretrained_model_have_both_numbers():
    rows = list(_pretrained(frame(), SETTINGS))
    measured = [(row.measured_seconds, row.measured_bytes) for row in rows]
    of_all = [(4, 2e9), (3, 1e9), (9, 3e9), (8, np.nan)]  # the former code's memory is not what the table is about
    doubled = [(2 * seconds, 2 * held) for seconds, held in of_all]
    assert np.allclose(measured, of_all + doubled, rtol=1e-12, atol=0, equal_nan=True)
    plain, packed, sides, former, adapter = rows[:5]
    name = "SmolLM2-135M, 4-bit weights made whole: all weights"
    assert [row.what for row in rows[:3]] == [
        name,
        f"{name}, packed by tokens",
        f"{name}, a step that compares the sides",
    ]
    how = {"checkpointing": 0, "precision": "fp32"}
    for row, way in ((plain, "once"), (packed, "packed"), (former, "apart")):
        assert row.seconds == expected.seconds(SEVEN, H200, SETTINGS["tokens"][way], **how)
    assert math.isnan(sides.seconds)
    assert (plain.bytes, sides.bytes) == tuple(
        expected.peak(SEVEN, SETTINGS["tokens"]["once"], sides=look, **how) for look in (False, True)
    )
    assert (former.once, math.isnan(former.bytes)) == (False, True)
    assert adapter.seconds == expected.seconds(SEVEN, H200, SETTINGS["tokens"]["once"], lora_rank=16, **how)
    assert adapter.seconds < plain.seconds


def test_weights_that_are_whole_are_not_remarked_on():
    row = next(_pretrained(frame(), {**SETTINGS, "model_weights": None}))
    assert row.what == "SmolLM2-135M: all weights"


def test_a_size_that_was_left_out_has_no_row():
    kept, settings = load_frame(RESULTS / "cuda/llm.parquet")
    named = [row.what for row in _drawn("cuda", kept, settings)]
    assert len(named) > 1
    one = kept[kept["size"] == named[0]]
    assert [row.what for row in _drawn("cuda", one, settings)] == named[:1]
    unmeasured = kept.assign(seconds=kept["seconds"].where(kept["size"] == named[0]))
    assert [row.what for row in _drawn("cuda", unmeasured, settings)] == named[:1]


def test_the_table_divides_what_was_measured_by_what_was_computed():
    [row] = [_cells(Beside("CPU", "small", True, 2.0, 3.0, 4e9, 5e9))]
    assert row == ["CPU", "small", "once per pair", "2", "3", "1.50", "4", "5", "1.25"]
    assert _cells(Beside("CPU", "small", False))[3:] == ["–"] * 6
