"""Predictions and how they are marked; the page of the paper's open questions and next checks."""

import math
from dataclasses import replace
from pathlib import Path

import made_up
import pandas as pd
import pytest
from long_experiment import CLAIM, EXPERIMENT

from gradlab.experiments import EXPERIMENTS, frames, long_experiments
from gradlab.experiments.predictions import WORDS, Outcome, Prediction, by_interval
from gradlab.experiments.questions import cost
from gradlab.experiments.report import open_page, verdicts
from gradlab.experiments.report.claims import Claim
from gradlab.experiments.report.confidence import confidence
from gradlab.experiments.report.open_questions import QUESTIONS, TELLERS, OpenQuestion, Teller
from gradlab.experiments.report.sections import EVERY, OPEN_QUESTIONS, SECTIONS, by_section, section_of


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


def test_every_question_is_answered_by_experiments_that_tell_or_says_what_it_needs():
    assert all(set(one.experiments) <= set(TELLERS) and (one.experiments or one.needs) for one in QUESTIONS)
    assert set(TELLERS) == set(long_experiments()) == {name for one in QUESTIONS for name in one.experiments}
    assert {name for one in QUESTIONS for name in one.claims + one.beside} == {*OPEN_QUESTIONS.claims, "overhead"}
    assert all(teller.predictions for teller in TELLERS.values())


def test_every_claim_is_in_one_part_of_the_report():
    assert sum(len(section.claims) for section in SECTIONS) == len(EVERY)
    assert [name for _, names in by_section(EVERY) for name in names] == list(EVERY)
    assert all(name in section_of(name).claims for name in EVERY)
    assert by_section(["ratio"]) == [(SECTIONS[0], ["ratio"])]


# --- how sure an answer is ---


def settled(word, low=0.06, high=0.08, *, margin=0.01, baseline="dpo"):
    """A claim on one cell average with this interval."""
    row = replace(made_up.answers()[0], word=word, effect=(low + high) / 2, low=low, high=high)
    row = replace(row, statement=replace(row.statement, margin=margin, baseline=baseline))
    return verdicts.Settled("two-sides", Claim("c", "s", "o", "r", "w"), word, "", "", (row,), {})


def test_co_primaries_that_are_decided_against_each_other_are_as_sure_as_either():
    (one,), (other,) = settled("holds throughout").rows, settled("reversed", -0.02, -0.01).rows
    both = replace(settled("mixed"), rows=(one, other))
    assert confidence([both])[0] == "high"
    unsure = replace(both, rows=(one, replace(other, high=-0.001)))
    assert confidence([unsure])[0] == "medium"
    assert "*reversed*, and its interval ends 0.1 margins" in confidence([unsure])[1]


@pytest.mark.parametrize(
    ("one", "level"),
    [
        (settled("not run"), "none"), (settled("not judged"), "none"), (settled("undecided"), "low"),
        (settled("proved"), "certain"), (settled("refuted"), "certain"),
        (settled("holds on average", 0.005, 0.02), "high"), (settled("holds on average", 0.0049, 0.02), "medium"),
        (settled("holds throughout", 0.06, 0.08), "high"), (settled("reversed", -0.02, -0.005), "high"),
        (settled("reversed", -0.02, -0.004), "medium"), (settled("mixed", 0.06, 0.08), "medium"),
        (settled("no practical difference", -0.005, 0.005), "high"),
        (settled("no practical difference", -0.006, 0.001), "medium"),
    ],
)  # fmt: skip
def test_how_sure_an_answer_is_follows_word_and_interval(one, level):
    assert confidence([one])[0] == level
    assert confidence([settled("proved"), one])[0] == level  # the least sure claim counts
    stepped = {"certain": "medium", "high": "medium", "medium": "low"}.get(level, level)
    found, because = confidence([one], "it is asked of others")
    assert found == stepped
    assert ("less sure by a step, since it is asked of others" in because) == (stepped != level)


def test_nothing_measured_is_no_confidence():
    assert confidence([]) == ("none", "nothing here was measured for it")


# --- the page ---

CHECKS = {
    "It is more.": lambda frame: by_interval(1.0, 1.0, "it is 1", least=0.5),
    "It is less.": lambda frame: by_interval(1.0, 1.0, "it is 1", most=0.5),
    "It is there.": lambda frame: Outcome("held", f"{frame['absent'].mean()}"),
}


@pytest.fixture
def asked(monkeypatch):
    """A question on the long experiment, with two predictions and an answer, as the only question."""
    claim = Claim("bDPO has more.", "Nothing.", "All.", "A rule.", "Another value.", ("two-sides",), ("long",))
    monkeypatch.setitem(EXPERIMENTS, "long", EXPERIMENT)
    monkeypatch.setitem(OPEN_QUESTIONS.claims, CLAIM, claim)
    monkeypatch.setitem(EVERY, CLAIM, claim)
    question = OpenQuestion("Open question 9", "Which has more?", "nobody", ("long",), (CLAIM,),
                            controls=("Swapped names: the same.",), changes="Other responses.")  # fmt: skip
    monkeypatch.setattr(open_page, "QUESTIONS", (question,))
    predictions = [Prediction(text, check) for text, check in list(CHECKS.items())[:2]]
    tell = lambda frame: f"bDPO has more in {frame['number'].nunique()} cells. It is so."  # noqa: E731
    monkeypatch.setitem(TELLERS, "long", Teller(predictions, tell))
    return predictions


def made(folder, *, quick=False):
    frames.bring_up_to_date([EXPERIMENT], folder / "data", quick=quick, fresh=False, workers=1)


def page(folder, *, quick=False):
    return open_page.page(verdicts.judge_claims(folder, [CLAIM], quick=quick), folder, quick=quick)


def test_a_question_has_its_answer_its_confidence_and_how_predictions_came_out(asked, tmp_path):
    made(tmp_path)
    asked[1] = replace(asked[1], added="changed after the first results")
    told = page(tmp_path)
    assert "(#open-question-9). Which has more? | bDPO has more in 4 cells. | **high** | 1 held, 1 failed |" in told
    assert "**Answer.** bDPO has more in 4 cells. It is so." in told
    assert "| It is more. | **held** | it is 1 |" in told
    assert "| It is less. *Changed after the first results.* | **failed** | it is 1 |" in told
    assert "**What was predicted: 1 held, 1 failed.**" in told
    assert f"| [{CLAIM}](CLAIMS.md#{CLAIM}) | bDPO has 1 points more | **holds throughout** | 4 : 0 : 0 cells |" in told
    assert "- Swapped names: the same." in told
    assert f"Other responses. *{CLAIM}*: Another value." in told
    assert "[data/long.parquet](data/long.parquet)" in told
    assert "- `high`: the interval of every primary keeps half a margin" in told


@pytest.mark.parametrize("state", ["missing", "torn"])
def test_without_its_frame_a_question_is_not_run_and_no_prediction_is_marked(asked, tmp_path, state):
    if state == "torn":
        made(tmp_path)
        (tmp_path / "data/long.parquet").write_bytes(b"PAR1")
    told = page(tmp_path)
    why = "Not judged: the frame of long is damaged" if state == "torn" else "Not run: it needs a run of `gradlab"
    assert f"**Answer.** {why}" in told
    assert "**none**" in told
    assert "| It is more. | not run | — |" in told
    assert "| 2 not run |" in told


def test_what_a_whole_frame_cannot_say_is_one_line_and_a_quick_one_decides_nothing(asked, tmp_path):
    made(tmp_path)
    made(tmp_path / "quick", quick=True)
    asked.append(Prediction("It is there.", CHECKS["It is there."]))
    with pytest.raises(ValueError, match=r"^long: the prediction 'It is there\.' must be readable from its frame"):
        page(tmp_path)
    told = page(tmp_path / "quick", quick=True)
    assert "| It is there. | **undecided** | a quick run has too little for it |" in told
    assert "These are not results" in told


def test_what_was_timed_on_a_gpu_is_said_with_its_number_of_rounds(tmp_path):
    assert cost.at_seven_billion(tmp_path) == "No steps at 7 billion parameters are in this folder."
    rows = [{"part": "steps", "size": "7B, all weights", "round": at, "method": method, "seconds": time, "peak_mb": 2.0}
            for at in range(3) for method, time in (("cdpo", 1.0), ("bdpo", 1.25))]  # fmt: skip
    frames.save_frame(pd.DataFrame(rows), tmp_path / cost.LARGE, {"device": "GPU"})
    told = cost.at_seven_billion(tmp_path)
    assert "7B, all weights: 1.250 times as long, with 1.000 times the memory, 3 rounds" in told


def test_the_committed_page_has_a_section_per_question():
    text = (Path(__file__).parent.parent / "figures/OPEN-QUESTIONS.md").read_text("utf-8")
    for one in QUESTIONS:
        assert f"](#{open_page.anchor(one)}). {one.asked} |" in text
        assert f"\n## {one.name}\n\n**{one.asked}**" in text
