"""Judges that are models: they answer in both orders, and planted ones are seen for what they are."""

import json
import math
from typing import Any

import pytest
import small_study
from scipy.special import logit

from gradlab.llm.judge.study_judges import Pairwise, judged
from gradlab.store.provenance import fingerprint
from gradlab.study.answers import read_answers
from gradlab.study.assignment import assign
from gradlab.study.frozen import freeze
from gradlab.study.plan import Design, Goal
from gradlab.study.raters import RaterModel, simulated
from gradlab.study.report_page import report
from gradlab.study.results import Results


def _text(system, place):
    """Return texts of many lengths, of which neither system's are the longer in the mean."""
    return f"answer {place} by {len(system)}" + " word" * (int(fingerprint(system, place), 16) % 40)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    small_study.write_samples(folder, 300, text=_text)
    return freeze(small_study.plan(300, judges=("model", "other")), folder)


def _answers(study, folder, *lines):
    file = folder / "answers.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_answers(study, [file])


def _row(study, folder, lines) -> dict[str, Any]:
    table = Results(_answers(study, folder, *lines)).judges
    return next(row for row in table.to_dict("records") if row["judge"] == "model")  # type: ignore[return-value]


def _uniform(*words):
    return (int(fingerprint(*words), 16) + 0.5) / 16**16


def test_a_scored_judge_answers_every_item_alike_in_both_orders(study, tmp_path):
    lines = judged(study, "model", lambda prompts, responses: [len(text) for text in responses])
    assert len(lines) == 2 * len(study.shown)
    row = _row(study, tmp_path, lines)
    assert row["consistent"] == 1
    assert row["left"] == pytest.approx(0.5), "both orders count"
    assert row["scored"]


def test_the_report_says_that_scores_agree_by_construction(study, tmp_path):
    scored = judged(study, "model", lambda prompts, responses: [len(text) for text in responses])
    apart = judged(study, "other", Pairwise(lambda prompt, left, right: "left"))
    people = simulated(study, {"dpo": 0.0, "bdpo": 0.5})
    page = report(study, _answers(study, tmp_path, *people, *scored, *apart)).page()
    assert "model scores each response alone, so that both orders agree by construction" in page
    assert "other scores" not in page


def test_a_judge_that_prefers_the_longer_by_a_known_slope_is_found(study, tmp_path):
    def score(prompts, responses):  # with Gumbel noise, so that differences are logistic
        noise = (-math.log(-math.log(_uniform(*both))) for both in zip(prompts, responses, strict=True))
        return [1.5 * math.log(len(text.split())) + more for text, more in zip(responses, noise, strict=True)]

    row = _row(study, tmp_path, judged(study, "model", score))
    assert row["length"] == pytest.approx(1.5, abs=0.75)  # the standard error is about 0.25
    assert row["low"] < 0.5 < row["high"]


def test_a_judge_that_always_says_left_prefers_neither_system(study, tmp_path):
    row = _row(study, tmp_path, judged(study, "model", Pairwise(lambda prompt, left, right: "left")))
    assert (row["consistent"], row["left"], row["rate"]) == (0, 1, 0.5)
    assert not row["scored"]


def test_a_judge_that_leans_to_a_side_is_found_and_its_win_rate_is_free_of_it(study, tmp_path):
    def compare(prompt, left, right):
        felt = 1.0 + 2.0 * ("by 4" in left) - 2.0 * ("by 4" in right)  # "by 4" is bdpo's
        return "left" if felt + logit(_uniform(prompt, left, right)) > 0 else "right"

    row = _row(study, tmp_path, judged(study, "model", Pairwise(compare)))
    truth = (1 / (1 + math.exp(-3)) + 1 / (1 + math.exp(-1))) / 2
    assert row["low"] < truth < row["high"]
    left = (1 / (1 + math.exp(-3)) + 1 / (1 + math.exp(1))) / 2
    assert row["left"] == pytest.approx(left, abs=0.07)  # three standard errors of 600 answers
    assert row["consistent"] < 0.9


def test_a_judge_that_answers_as_people_do_agrees_with_them(study, tmp_path):
    people = simulated(study, {"dpo": 0.0, "bdpo": 0.5}, RaterModel(raters=0.0))
    votes, lists = {}, assign(study)
    for line in people:
        task = lists[line["rater"]][line["place"]]
        if task.kind == "item" and line["choice"] in ("left", "right"):
            votes.setdefault(task.item, []).append(task.left if line["choice"] == "left" else task.right)
    liked = {
        (study.item_of[key].prompt, study.item_of[key].texts[system]): names.count(system)
        for key, names in votes.items() for system in study.plan.systems
    }  # fmt: skip

    def score(prompts, responses):
        return [liked.get(both, 0) for both in zip(prompts, responses, strict=True)]

    row = _row(study, tmp_path, people + judged(study, "model", score))
    assert row["with_people"] == 1
    row = _row(study, tmp_path, people + judged(study, "model", lambda *both: [-one for one in score(*both)]))
    assert row["with_people"] == 0


def test_near_scores_are_ties_and_where_there_are_none_skips(study, tmp_path):
    lines = judged(study, "model", lambda prompts, responses: [len(text) for text in responses], tie=1e6)
    assert {line["choice"] for line in lines} == {"tie"}
    design = Design(items_per_rater=16, raters_per_item=2, ties=False)
    strict = small_study.study(tmp_path, design=design, judges=("model",))
    lines = judged(strict, "model", lambda prompts, responses: [0.0] * len(responses))
    assert {line["choice"] for line in lines} == {"skip"}


def test_a_judge_is_a_function_in_a_file_too(study, tmp_path):
    file = tmp_path / "judges.py"
    file.write_text(
        "def longer(prompts, responses):\n    return [float(len(text)) for text in responses]\n\n\n"
        "def first(prompt, left, right):\n    return 'left'\n"
    )
    assert judged(study, "model", f"{file}:longer") == judged(study, "model", lambda p, r: [float(len(t)) for t in r])
    assert {line["choice"] for line in judged(study, "model", f"pairwise:{file}:first")} == {"left"}


def test_a_judge_judges_by_the_primary_goal_or_by_another(tmp_path):
    goals = (small_study.QUESTION, Goal(name="harmless", question="Which does less harm?"))
    study = small_study.study(tmp_path, goals=goals, judges=("model",))
    judge = Pairwise(lambda prompt, left, right: "tie")
    assert {line["goal"] for line in judged(study, "model", judge)} == {"helpful"}
    assert {line["goal"] for line in judged(study, "model", judge, goal="harmless")} == {"harmless"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("ada", lambda p, r: r), "name must be one of model, other; got 'ada'"),
        (("model", lambda p, r: [1.0]), "must give one number per response"),
        (("model", lambda p, r: [math.nan] * len(r)), "must give finite numbers"),
        (("model", lambda p, r: 1 / 0), "failed: ZeroDivisionError"),
        (("model", Pairwise(lambda p, a, b: "both")), "judge model must return one of left, right, tie, got 'both'"),
        (("model", Pairwise(lambda p, a, b: 1 / 0)), "judge model failed: ZeroDivisionError"),
        (("model", "pairwise:nowhere.py:first"), "nowhere.py"),
    ],
)
def test_judges_that_say_something_else_are_refused(study, arguments, said):
    with pytest.raises((ValueError, OSError), match=said) as error:
        judged(study, *arguments)
    assert "\n" not in str(error.value)


def test_a_tie_below_zero_and_an_unknown_goal_are_refused(study):
    with pytest.raises(ValueError, match="tie must"):
        judged(study, "model", lambda p, r: [0.0] * len(r), tie=-1)
    with pytest.raises(ValueError, match="goal must be one of helpful"):
        judged(study, "model", lambda p, r: [0.0] * len(r), goal="honest")
