"""The experiment scale: groups of responses alike, measures on known truth, predictions, and the answer in words."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from gradlab.experiments.questions import scale, scale_answer
from gradlab.experiments.questions.scale_runs import HALF, OfGroups, chain_rows, response_rows
from gradlab.lab.fit import fit
from gradlab.lab.world import gaussian_world
from gradlab.losses import BalancedDPO

RECIPE = {"first_seed": 3, "seeds": 2, "steps": 40, "learning_rate": 0.05}


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    settings = {
        **scale.SETTINGS, **scale.QUICK, "lengths": [1, 256], "vocabularies": [], "responses": [10, 800], "steps": 40,
        "pairs": 60,
    }  # fmt: skip
    rows = pd.concat([scale.run_part(**part) for part in scale.parts(settings)], ignore_index=True)
    rows.attrs["settings"] = settings
    return rows


def test_groups_of_responses_that_are_alike_train_as_their_responses_do():
    few = gaussian_world(1, 6, utility="gaussian-random", sigma=1.0, seed=1)
    many = replace(few, utility=few.utility.repeat(3, 1), observed=few.observed.repeat(3, 1),
                   ref_logp=few.ref_logp.repeat(3, 1) - np.log(3))  # fmt: skip
    loss = BalancedDPO()
    groups, singles = fit(few, OfGroups(loss, 3), steps=60, record=1).logp, fit(many, loss, steps=60, record=1).logp
    np.testing.assert_allclose(singles[0], groups[0].repeat_interleave(3) - np.log(3), atol=1e-5)  # ε = 1e-8 of Adam


def test_distances_are_zero_at_their_targets_and_one_at_the_reference():
    rows = pd.concat([
        chain_rows(8, 0.5, 0.0, 4, ["dpo", HALF, "bdpo", "length-dpo"], pairs=40, **RECIPE),
        response_rows(10, ["dpo", HALF, "bdpo"], **RECIPE),
    ])  # fmt: skip
    for value, target in (("to_half", HALF), ("to_full", "dpo"), ("to_length", "length-dpo")):
        assert (rows.loc[rows["method"] == target, value] == 0).all()
    others = rows[rows["method"].isin(["dpo", "bdpo"])]
    assert (others["to_half"] > 0).all()
    assert (others["slope_gap"] > 0).all()
    assert (rows.loc[rows["method"] == HALF, "slope_gap"] == 0).all()
    assert (rows.loc[rows["method"] == "reference", "kl"] == 0).all()


def test_parts_sample_and_full_run_have_one_layout(frame):
    settings = frame.attrs["settings"]
    assert all(part in scale.parts(scale.SETTINGS) for part in scale.sample(scale.SETTINGS))
    assert len(scale.sample(scale.SETTINGS)) == 3
    keys = ["kind", "length", "variation", "length_utility", "vocabulary", "responses", "method", "seed"]
    assert not frame.duplicated(keys).any()
    assert set(frame["responses"]) == {0, *settings["responses"]}


def test_the_verdict_has_all_statements_and_finds_what_is_true(frame):
    answers = scale.verdict(frame, frame.attrs["settings"])
    assert len(answers) == len(scale.contrasts(scale.SETTINGS))
    assert all(answer.word != "not run" for answer in answers)
    with pytest.raises(ValueError, match="must have the declared cells"):
        scale.verdict(frame[frame["responses"] != 800], frame.attrs["settings"])


def test_predictions_can_hold_and_fail(frame):
    held = [one.check(frame).word for one in scale_answer.PREDICTIONS]
    assert set(held) <= {"held", "failed", "undecided"}
    by = {
        "weight_sd": "weight_sd_law", "explained": "explained_law", "corrected": None, "to_half": None,
    }  # fmt: skip
    made = frame.assign(**{name: frame[law] for name, law in by.items() if law})
    assert scale_answer.PREDICTIONS[3].check(made).word == "held"
    broken = made.assign(explained=made["explained_law"] - 0.2)
    assert scale_answer.PREDICTIONS[3].check(broken).word == "failed"
    far = frame.assign(to_half=frame["to_half"] * 0 + 0.5)
    assert scale_answer.PREDICTIONS[4].check(far).word == "failed"
    assert scale_answer.PREDICTIONS[7].check(far).word == "held"


def test_a_prediction_on_cells_fails_where_one_cell_fails():
    cells = [("a", 0.5, 0.4, 0.6), ("b", 2.0, 1.9, 2.1)]
    assert scale_answer.in_every_cell(cells, most=1.0).word == "failed"
    assert "b" in scale_answer.in_every_cell(cells, most=1.0).because
    assert scale_answer.in_every_cell(cells, most=3.0).word == "held"
    assert scale_answer.in_every_cell([("a", 0.5, 0.4, 1.6)], most=1.0).word == "undecided"


def test_the_answer_says_the_frame_s_numbers(frame):
    near = frame.assign(to_half=frame["to_half"] * 0 + 0.01)
    said = scale_answer.answer(near)
    assert "from the reference, from 1 tokens on" in said
    assert "it comes as near from n = 10 on" in said
    assert "Balanced-DPO ends where DPO at β/2 ends if lengths are equal" in said
    far = scale_answer.answer(frame.assign(to_half=frame["to_half"] * 0 + 0.7))
    assert "at none of these lengths" in far
    assert "Balanced-DPO does not end where DPO at β/2 ends" in far
    assert "70% of the way from DPO at β/2" in far


def test_language_models_say_how_far_lengths_explain_weights():
    tokens = np.array([10, 20, 30, 40])
    pairs = pd.DataFrame({
        "task": "hh", "size": "1M", "seed": 0, "method": "reference", "win_len": tokens, "lose_len": tokens[::-1],
        "win": -2.0 * tokens, "lose": -2.0 * tokens[::-1],
    })  # fmt: skip
    said = scale_answer.in_language_models(pairs)
    assert "100% on real pairs (mean length 25 tokens, coefficient of variation 0.45" in said


def test_from_on_is_where_it_stays_true():
    assert scale_answer.from_on([False, True, False, True, True]) == 3
    assert scale_answer.from_on([True, True]) == 0
    assert scale_answer.from_on([True, False]) is None
