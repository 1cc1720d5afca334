"""A look before the end of a study: widths and counts decide, and nothing tells which system is ahead."""

import dataclasses
import json

import pytest
import small_study

from gradlab.study.answers import read_answers
from gradlab.study.assignment import assign
from gradlab.study.plan import Analysis, Stop
from gradlab.study.stopping import interim, interim_in_words


def _answers(study, folder, choose, *, share=1.0):
    lines = small_study.answers_of(study, choose)
    last = {rater: len(tasks) * share for rater, tasks in assign(study).items()}
    kept = [line for line in lines if line["place"] < last[line["rater"]]]
    (folder / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    return read_answers(study, [folder / "answers.jsonl"])


def _for(system, task):
    """Prefer a system in two of three items, the other one elsewhere."""
    for_it = int(task.item[:4], 16) % 3 > 0
    return "left" if (task.left == system) == for_it else "right"


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    stop = Stop(rule="precision", half_width=0.4, least_items=10)
    return small_study.study(tmp_path_factory.mktemp("study"), 30, stop=stop)


def test_a_fixed_study_stops_when_every_task_is_answered(tmp_path):
    study = small_study.study(tmp_path, 12)
    half = interim(_answers(study, tmp_path, lambda task: "left", share=0.5))
    assert not half.may_stop
    assert half.open > 0
    whole = interim(_answers(study, tmp_path, lambda task: "skip"))
    assert whole.may_stop
    assert (whole.open, whole.items, whole.of) == (0, 0, 12)


def test_precision_stops_at_the_width_and_not_before_the_least_items(wide, tmp_path):
    look = interim(_answers(wide, tmp_path, lambda task: _for("bdpo", task), share=0.7))
    assert look.may_stop
    assert look.open > 0
    assert look.half_width <= 0.4
    few = interim(_answers(wide, tmp_path, lambda task: _for("bdpo", task), share=0.15))
    assert not few.may_stop
    assert "are needed first" in few.reason
    narrow = dataclasses.replace(wide.plan, stop=Stop(rule="precision", half_width=0.01, least_items=10))
    other = dataclasses.replace(wide, plan=narrow)
    assert not interim(_answers(other, tmp_path, lambda task: _for("bdpo", task), share=0.7)).may_stop
    assert interim(_answers(other, tmp_path, lambda task: _for("bdpo", task))).may_stop, "the items are used up"


@pytest.mark.parametrize(("population", "may_stop"), [("like these", False), ("these", True)])
def test_precision_waits_for_a_second_rater_where_raters_are_a_sample(tmp_path, population, may_stop):
    stop, analysis = Stop(rule="precision", half_width=0.4, least_items=10), Analysis(population=population)
    study = small_study.study(tmp_path, 30, stop=stop, analysis=analysis)
    (tmp_path / "answers.jsonl").write_text("".join(
        json.dumps(line) + "\n"
        for line in small_study.answers_of(study, lambda task: _for("bdpo", task)) if line["rater"] == "ada"
    ))  # fmt: skip
    look = interim(read_answers(study, [tmp_path / "answers.jsonl"]))
    assert look.half_width <= 0.4
    assert look.may_stop == may_stop
    assert ("those of a second are needed first" in look.reason) != may_stop


def test_a_look_is_the_same_where_the_systems_are_exchanged(wide, tmp_path):
    one, other = (
        interim(_answers(wide, tmp_path, lambda task, system=system: _for(system, task), share=0.7))
        for system in ("dpo", "bdpo")
    )
    assert one.half_width == pytest.approx(other.half_width, rel=1e-9)
    assert interim_in_words(one) == interim_in_words(other)
    assert not any(name in interim_in_words(one) for name in ("dpo", "bdpo"))


def test_without_answers_the_study_goes_on(wide, tmp_path):
    look = interim(_answers(wide, tmp_path, lambda task: "left", share=0.0))
    assert not look.may_stop
    assert look.items == 0
