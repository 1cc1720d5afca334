"""Predictions and how they are marked; the page of the paper's open questions and next checks."""

import math

import pytest

from gradlab.experiments.predictions import WORDS, Outcome, by_interval
from gradlab.experiments.report.open_questions import QUESTIONS, hooks
from gradlab.experiments.report.sections import EVERY, SECTIONS, by_section, section_of


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(3.0, 5.0, "held"), (3.5, 4.0, "held"), (2.9, 4.0, "undecided"), (1.0, 2.9, "failed"), (5.1, 9.0, "failed"),
     (2.0, 9.0, "undecided"), (math.nan, math.nan, "undecided"), (3.0, math.nan, "undecided")],
)  # fmt: skip
def test_a_prediction_is_marked_by_the_whole_interval(low, high, word):
    assert by_interval(low, high, "as measured", least=3, most=5) == Outcome(word, "as measured")


def test_one_bound_is_enough():
    assert by_interval(0.1, 0.2, "so", least=0).word == "held"
    assert by_interval(0.1, 0.2, "so", most=0).word == "failed"


def test_an_outcome_has_one_of_three_words():
    with pytest.raises(ValueError, match=rf"^word must be one of {', '.join(WORDS)}, got 'true'$"):
        Outcome("true", "it is so")


def test_there_are_three_open_questions_and_three_next_checks():
    names = [f"{kind} {number}" for kind in ("Open question", "Next check") for number in (1, 2, 3)]
    assert [one.name for one in QUESTIONS] == names
    assert all(one.asked and one.source and (one.claims or one.needs) for one in QUESTIONS)


def test_an_experiment_without_predictions_has_no_hooks():
    assert hooks("grid") is None


def test_every_claim_is_in_one_part_of_the_report():
    assert sum(len(section.claims) for section in SECTIONS) == len(EVERY)
    assert [name for _, names in by_section(EVERY) for name in names] == list(EVERY)
    assert all(name in section_of(name).claims for name in EVERY)
    assert by_section(["ratio"]) == [(SECTIONS[0], ["ratio"])]
