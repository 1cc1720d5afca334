"""What a rater sees names no system, no kind of task and no stratum, and is what the answers are held against."""

import dataclasses
import json
import re

import pytest
from small_study import plan, study, write_samples

from gradlab.study.assignment import GOOD, tasks_of
from gradlab.study.blind import blind_list, texts_of
from gradlab.study.frozen import freeze
from gradlab.study.plan import Goal

GOALS = (
    Goal(name="help", question="Which response helps more?"),
    Goal(name="harm", question="Which response does less harm?"),
)


@pytest.fixture
def strata(tmp_path):
    """A study whose prompts have strata."""
    write_samples(tmp_path)
    lines = [{"prompt": f"question {place}", "stratum": ["calm", "storm"][place % 2]} for place in range(24)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return freeze(plan(prompts="prompts.jsonl"), tmp_path)


def test_a_list_names_no_system_no_kind_and_no_stratum(strata):
    for rater in strata.plan.raters:
        text = json.dumps(blind_list(strata, rater))
        assert not re.search(r"\b(dpo|bdpo|calm|storm)\b", text, re.IGNORECASE)
        for word in ("attention", "repeat", "good", "bad", "kind", "stratum", "judge"):
            assert f'"{word}"' not in text, word
        assert set(blind_list(strata, rater)["tasks"][0]) == {"place", "item", "shown", "prompt", "left", "right"}
    assert {item.stratum for item in strata.items} == {"calm", "storm"}


def test_tasks_have_the_texts_of_their_sides_in_the_assigned_order(tmp_path):
    made = study(tmp_path)
    tasks, shown = tasks_of(made, "ben"), blind_list(made, "ben")["tasks"]
    assert len(tasks) == len(shown) > 16
    for task, one in zip(tasks, shown, strict=True):
        assert (one["place"], one["item"], one["shown"]) == (task.place, task.item, task.shown(made))
        assert (one["prompt"], one["left"], one["right"]) == texts_of(made, task)
        if task.kind == "attention":
            check = made.check_of[task.item]
            assert one["left"] == (check.good if task.left == GOOD else check.bad)
        else:
            item = made.item_of[task.item]
            assert (one["left"], one["right"]) == (item.texts[task.left], item.texts[task.right])


def test_a_list_says_what_is_asked(tmp_path):
    made = study(tmp_path, goals=GOALS, primary=dataclasses.replace(plan().primary, goal="harm"),
                 content_warning="Some texts are rude.", title="two goals")  # fmt: skip
    given = blind_list(made, "ada")
    assert given["goals"] == [dataclasses.asdict(goal) for goal in GOALS]
    assert given["content_warning"] == "Some texts are rude."
    assert (given["study"], given["title"], given["ties"], given["rater"]) == (made.hash, "two goals", True, "ada")


def test_a_list_is_for_raters_of_the_plan_and_not_for_judges(tmp_path):
    made = study(tmp_path, judges=("reward model",))
    for name in ("dora", "reward model"):
        with pytest.raises(ValueError, match=f"^rater must be one of ada, ben, cleo; got '{name}'$"):
            blind_list(made, name)


@pytest.mark.parametrize("field", ["title", "content_warning"])
def test_what_raters_read_must_not_name_a_system(field):
    with pytest.raises(ValueError, match=f"^{field} must not name a system, since raters read it; got .* with 'bdpo'$"):
        dataclasses.replace(plan(), **{field: "Is bDPO better?"})
    dataclasses.replace(plan(), **{field: "Is one better than rdpo?"})  # part of a word is no name


def test_a_question_must_not_name_a_system():
    with pytest.raises(ValueError, match=r"^goals.question must not name a system, since raters read it; got "):
        plan(goals=(Goal(name="helpful", question="Does DPO help more?"),))
