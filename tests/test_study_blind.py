"""What a rater sees names no system, no kind of task and no stratum, and is what the answers are held against."""

import dataclasses
import json
import re

import pytest
import small_study
from small_study import plan, study, write_samples

from gradlab.store.provenance import fingerprint
from gradlab.study.answers import answers_of
from gradlab.study.assignment import GOOD, tasks_of
from gradlab.study.blind import blind_list, texts_of
from gradlab.study.frozen import freeze, read_study
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


def test_with_a_salt_nothing_in_a_list_can_be_computed_by_a_rater_who_has_gradlab(tmp_path):
    """Whoever knows the plan, the texts of a page and the systems' names finds neither sides nor checks nor repeats."""
    plain = study(tmp_path)
    made = freeze(plain.plan, tmp_path, salt="a secret")
    known = dataclasses.replace(made, salt="")  # what can be guessed without the file
    vars(known)["hash"] = made.hash  # which stands on the page
    for rater in made.plan.raters:
        page = blind_list(made, rater)
        assert "a secret" not in json.dumps(page)
        keys = [one["item"] for one in page["tasks"]]
        assert len({*keys}) == len(keys), "an item that comes back has another key"
        assert not {*keys} & {*made.item_of, *made.check_of}
        for one, task in zip(page["tasks"], tasks_of(made, rater), strict=True):
            assert one["shown"] not in {replaced.shown(known) for replaced in (
                task, dataclasses.replace(task, left=task.right, right=task.left)
            )}  # fmt: skip
        guessed = {task.item: task.left for task in tasks_of(known, rater) if task.kind == "item"}
        first = {task.item: task.left for task in tasks_of(made, rater) if task.kind == "item"}
        assert guessed != first


def test_answers_of_a_study_with_a_salt_are_read_as_all_others_are(tmp_path):
    study(tmp_path)
    made = freeze(plan(), tmp_path, salt="a secret")
    made.write(tmp_path / "study.json")
    again = read_study(tmp_path / "study.json")
    assert (again, again.hash) == (made, made.hash)
    lines = small_study.answers_of(again, lambda task: "left" if task.left == "bdpo" else "right")
    frame = answers_of(made, [("here", line) for line in lines]).frame
    assert set(frame[frame["kind"] == "item"]["item"]) == {item.key for item in made.shown}
    assert (frame["score"] == 1).all()
    other = freeze(plan(), tmp_path, salt="another one")
    with pytest.raises(ValueError, match="another plan's"):
        answers_of(other, [("here", lines[0])])
    page = json.loads((tmp_path / "study.json").read_text())
    assert page["format"] == 2, "earlier versions would draw other sides"


def test_a_study_without_a_salt_keeps_the_keys_and_sides_that_it_had(tmp_path):
    made = study(tmp_path)
    for task in tasks_of(made, "ada"):
        about = (task.rater, task.place, task.item, task.left, task.right)
        assert task.shown(made) == fingerprint("shown", made.hash, *about)
        assert task.key(made) == task.item
    made.write(tmp_path / "study.json")
    page = json.loads((tmp_path / "study.json").read_text())
    assert page["format"] == 1
    assert "salt" not in page


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
