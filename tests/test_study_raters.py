"""Simulated raters: their chances are those of their expected answer, and who they are can be asked."""

import json

import pytest
import small_study

from gradlab.study.answers import read_answers
from gradlab.study.raters import RaterModel, people, simulated


def test_chances_are_those_of_the_expected_rate_and_sum_to_one():
    model = RaterModel(tie=0.7, position=0.5, length=0.4)
    for_b, tie, for_a = model.chances(0.6, 0.3)
    assert for_b + tie + for_a == pytest.approx(1, abs=1e-12)
    assert for_b + tie / 2 == pytest.approx(model.expected(0.6, 0.3), abs=1e-12)
    assert RaterModel(tie=0.0).chances(0.6)[1] == pytest.approx(0, abs=1e-12)


def test_people_are_those_who_answer(tmp_path):
    study = small_study.study(tmp_path, 300)
    model = RaterModel(raters=4.0, prompts=0.0, careless=0.4)
    file = tmp_path / "answers.jsonl"
    lines = simulated(study, {"dpo": 0.0, "bdpo": 0.0}, model, seed=5)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    leaning, careless = people(study.plan.raters, model, seed=5)
    for rater, rows in read_answers(study, [file]).of("item").groupby("rater"):
        name = str(rater)
        expected = 0.5 if careless[name] else RaterModel(raters=0.0, prompts=0.0).expected(leaning[name])
        assert abs(rows["score"].mean() - expected) < 0.14  # of 200 answers, whose error is 0.035 at most
