"""The experiment on continuous responses: values of fixed seeds, and predictions that can fail."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gradlab.experiments.questions import continuous, continuous_runs
from gradlab.experiments.questions.continuous_answer import PREDICTIONS, answer, gain, slope
from gradlab.experiments.questions.continuous_runs import END, train_part, training_parts
from gradlab.experiments.questions.continuous_theory import theory_part
from gradlab.store.artifacts import load_frame

SETTINGS = continuous.EXPERIMENT.settings
FILE = Path(__file__).parent.parent / "figures/data/continuous.parquet"
SHORT = continuous_runs.TRAINING.but(steps=20, pairs=40, record=3)
PART = {
    "kind": "units", "reference": "normal", "policy": "gaussian", "beta": 1.0, "coordinates": ["0.1", "1", "sinh"],
    "ends": [-5.0, 5.0], "training": SHORT, "first_seed": 1000, "seeds": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def frame():
    return load_frame(FILE)[0]


def test_settings_judge_by_seeds_that_no_pilot_used_and_the_sample_is_among_the_parts():
    assert SETTINGS["first_seed"] >= 1000
    assert {part["first_seed"] for part in training_parts(SETTINGS)} == {1000}
    parts = continuous.parts(SETTINGS)
    assert all(part in parts for part in continuous.sample(SETTINGS))


def test_a_part_has_the_values_that_its_seeds_have_always_had():
    rows = train_part(method="bdpo", **PART)
    last = rows[rows["step"] == 20].set_index(["coordinate", "seed"])
    assert last.loc[("y", 1000), "kl"] == pytest.approx(0.16867548, rel=1e-5)
    assert last.loc[("0.1 y", 1000), "distance"] == pytest.approx(0.21795504, rel=1e-5)
    assert (last.loc["y", "distance"] == 0).all()
    assert rows.loc[rows["step"] < 20, END].isna().all(axis=None)
    assert set(train_part(method="dpo", **PART)["step"]) == {20}


def test_cells_are_compared_with_dpo_at_half_beta():
    rows = train_part(method="bdpo", **{**PART, "kind": "cells", "coordinates": ["cells:100", "cells:1e+08"]})
    last = rows[rows["step"] == 20].groupby("coordinate")["from_half"].mean()
    assert 0 < last["1e+08 cells"] < last["100 cells"]


def test_theorems_have_the_same_answer_in_every_unit_and_another_in_other_coordinates():
    rows = theory_part("theory", [2.0], [1.0]).set_index("coordinate")
    assert rows.loc["1000 y", "spread"] == pytest.approx(rows.loc["y", "spread"], abs=1e-9)
    assert rows.loc["y", "spread"] > 0.5
    assert abs(rows.loc["policy's CDF", "spread"]) < 1e-12
    assert rows.loc["p ∝ |w|", "spread"] < -0.1
    assert rows.loc["y", "outer"] > 0 > rows.loc["y", "balanced"]


def outcomes(frame):
    return [one.check(frame).word for one in PREDICTIONS]


@pytest.mark.slow
def test_each_prediction_can_fail(frame):
    assert len(PREDICTIONS) == 7
    moved = frame.assign(distance=np.where(frame["method"] == "dpo", 1e-3, frame["distance"]))
    assert outcomes(moved)[0] == "failed"
    assert outcomes(frame.assign(distance=frame["distance"] * 0))[:2] == ["held", "failed"]
    assert outcomes(frame.assign(from_half=frame["from_half"] * 0 + 0.2))[2] == "failed"
    assert outcomes(frame.assign(outside=frame["outside"] * 0))[3] == "failed"
    ahead = frame["method"].eq("relative-bdpo") * 0.5 - frame["coordinate"].eq("1e+06 y") * 0.5
    assert outcomes(frame.assign(utility_share=frame["utility_share"] + ahead))[4:6] == ["failed", "failed"]
    assert outcomes(frame.assign(spread=frame["spread"].abs() + 0.1))[6] == "failed"


def test_the_answer_reads_its_numbers_from_the_frame(frame):
    said = answer(frame)
    assert f"{slope(frame)[0]:.2f} [" in said
    assert f"{100 * gain(frame, 'relative-bdpo', 'dpo')[0]:+.1f} [" in said
    assert "nan" not in said
    assert answer(frame.assign(distance=frame["distance"] * 0.1)) != said


def test_a_frame_with_a_gap_is_refused(frame):
    with pytest.raises(ValueError, match="frame must have"):
        continuous.verdict(frame[frame["method"] != "dpo"], SETTINGS)
    twice = frame[(frame["kind"] == "units") & (frame["step"] == 400)]
    with pytest.raises(ValueError, match="frame must have one row for each"):
        continuous.verdict(pd.concat([frame, twice.iloc[:1]]), SETTINGS)
