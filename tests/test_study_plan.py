"""The plan of a study, its items and its hash: what is decided before the first answer, and what is refused."""

import dataclasses
import json
from collections import Counter

import numpy as np
import pytest
import small_study

from gradlab.study.frozen import freeze, read_study
from gradlab.study.items import ONE
from gradlab.study.plan import Analysis, Design, Exclusions, Goal, Plan, Primary, Stop, as_page, plan_of


def test_a_plan_is_read_as_it_was_written(tmp_path):
    plan = small_study.plan(stop=Stop(rule="precision", half_width=0.08), content_warning="harsh words")
    plan.write(tmp_path / "plan.toml")
    assert Plan.read(tmp_path / "plan.toml") == plan


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"systems": {"dpo": "a.jsonl"}}, "systems must name two or more"),
        ({"systems": {" dpo": "a", "bdpo": "b"}}, "without white space"),
        ({"raters": ()}, "raters must be one or more"),
        ({"raters": ("ada", "ada")}, "'ada' twice"),
        ({"raters": ("all raters",)}, "stands for all"),
        ({"judges": ("ada",)}, "'ada' twice"),
        ({"goals": ()}, "goals must be one or more"),
        ({"primary": Primary(a="dpo", b="ppo", goal="helpful", margin=0.05)}, "primary.b must be one of dpo, bdpo"),
        ({"primary": Primary(a="dpo", b="dpo", goal="helpful", margin=0.05)}, "must differ"),
        ({"primary": Primary(a="dpo", b="bdpo", goal="harmless", margin=0.05)}, "primary.goal must be one of helpful"),
        ({"primary": Primary(a="dpo", b="bdpo", goal="helpful", margin=0)}, "primary.margin must"),
        ({"primary": Primary(a="dpo", b="bdpo", goal="helpful", margin=0.5)}, "primary.margin must"),
        ({"pairs": (("dpo", "dpo"),)}, "two different systems"),
        ({"pairs": (("dpo", "bdpo"), ("bdpo", "dpo"))}, "each stand once"),
        ({"design": Design(raters_per_item=4)}, "at most the number of raters, 3, got 4"),
        ({"design": Design(items_per_rater=0)}, "design.items_per_rater must"),
        ({"design": Design(repeats=1.5)}, "design.repeats must"),
        ({"design": Design(ties="yes")}, "design.ties must be true or false"),
        ({"design": Design(identical="drop")}, "design.identical must be one of refuse, tie"),
        ({"exclusions": Exclusions(one_side=0.4)}, "exclusions.one_side must"),
        ({"stop": Stop(rule="never")}, "stop.rule must be one of fixed, precision"),
        ({"stop": Stop(rule="precision")}, "stop.half_width must"),
        ({"stop": Stop(half_width=0.1)}, "stop.half_width must be left out"),
        ({"analysis": Analysis(population="all")}, "analysis.population must be one of like these, these"),
        ({"analysis": Analysis(pool_judges="no")}, "analysis.pool_judges must be true or false, got 'no'"),
        ({"analysis": Analysis(strata="no")}, "analysis.strata must be true or false"),
        ({"analysis": Analysis(position=0.5)}, "analysis.position must be true or false"),
        ({"prompts": 5}, "prompts must be a file of prompts, got 5"),
        ({"prompts": ""}, "prompts must be a file of prompts, got ''"),
        ({"seed": -1}, "seed must"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_in_one_line(changes, said):
    with pytest.raises(ValueError, match=said) as error:
        small_study.plan(**changes)
    assert "\n" not in str(error.value)


def test_a_file_with_unknown_or_missing_fields_is_refused():
    page = as_page(small_study.plan())
    with pytest.raises(ValueError, match=r"PLAN: field must be one of .*margin.*; got 'primary.margn'"):
        plan_of({**page, "primary": {**page["primary"], "margn": 1}}, "PLAN")
    primary = {name: value for name, value in page["primary"].items() if name != "margin"}
    with pytest.raises(ValueError, match=r"primary\.margin must be given"):  # a plan without a margin
        plan_of({**page, "primary": primary})
    with pytest.raises(ValueError, match="goals must be"):
        plan_of({**page, "goals": "helpful"})


def test_the_primary_pair_comes_first_and_every_pair_once():
    plan = small_study.plan(
        systems={"sft": "s", "dpo": "s", "bdpo": "s"}, primary=Primary(a="dpo", b="bdpo", goal="helpful", margin=0.1)
    )
    assert plan.compared == (("dpo", "bdpo"), ("sft", "dpo"), ("sft", "bdpo"))


def test_items_are_drawn_by_the_seed_and_strata_take_turns(tmp_path):
    small_study.write_samples(tmp_path, 40)
    strata = [
        {"prompt": f"question {place}", "stratum": "harmless" if place < 10 else "helpful"} for place in range(40)
    ]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in strata))
    plan = small_study.plan(prompts="prompts.jsonl", design=Design(items_per_rater=14, raters_per_item=2))
    study = freeze(plan, tmp_path)
    counts = {name: sum(item.stratum == name for item in study.items) for name in ("harmless", "helpful")}
    assert len(study.items) == 21
    assert counts == {"harmless": 10, "helpful": 11}
    other = freeze(dataclasses.replace(plan, seed=4), tmp_path)
    assert {item.key for item in other.items} != {item.key for item in study.items}


def test_a_frozen_study_is_read_back_and_any_change_gives_another_hash(tmp_path):
    study = small_study.study(tmp_path)
    study.write(tmp_path / "study.json")
    assert read_study(tmp_path / "study.json") == study
    assert {item.stratum for item in study.items} == {ONE}
    changed = small_study.plan(exclusions=Exclusions(attention=0.6))
    assert freeze(changed, tmp_path).hash != study.hash
    small_study.write_samples(tmp_path, text=lambda system, place: f"{place} by {len(system)}")
    assert freeze(study.plan, tmp_path).hash != study.hash


def test_a_study_never_takes_the_place_of_another(tmp_path):
    study = small_study.study(tmp_path)
    study.write(tmp_path / "study.json")
    study.write(tmp_path / "study.json")  # the same one
    with pytest.raises(FileExistsError, match="a changed plan needs another file"):
        freeze(small_study.plan(seed=9), tmp_path).write(tmp_path / "study.json")
    (tmp_path / "other.json").write_text("notes")
    with pytest.raises(FileExistsError):
        study.write(tmp_path / "other.json")
    assert (tmp_path / "other.json").read_text() == "notes"


def test_a_study_that_was_edited_is_refused(tmp_path):
    small_study.study(tmp_path).write(tmp_path / "study.json")
    text = (tmp_path / "study.json").read_text()
    (tmp_path / "study.json").write_text(text.replace("0.05", "0.15"))
    with pytest.raises(ValueError, match="no frozen study as it was written"):
        read_study(tmp_path / "study.json")


def test_samples_that_cannot_be_compared_are_refused(tmp_path):
    plan = small_study.plan()
    small_study.write_samples(tmp_path, text=lambda system, place: "the same" if place == 5 else None)
    with pytest.raises(ValueError, match=r"1 of 24 items have the same text .* 'question 5'"):
        freeze(plan, tmp_path)
    small_study.write_samples(tmp_path, text=lambda system, place: f"I am {system.upper()}!" if place == 7 else None)
    with pytest.raises(ValueError, match=r"must not reveal their system: .* 'question 7'"):
        freeze(plan, tmp_path)
    small_study.write_samples(tmp_path, prompts=23)
    with pytest.raises(ValueError, match="need 24 items, and there are 23"):
        freeze(plan, tmp_path)
    file = small_study.write_samples(tmp_path)
    file.write_text(file.read_text() + file.read_text().splitlines()[0] + "\n")
    with pytest.raises(ValueError, match="line 25 has a prompt that stands above already"):
        freeze(plan, tmp_path)
    file.write_text(small_study.write_samples(tmp_path).read_text()[:-5])
    with pytest.raises(ValueError, match="ends within a line"):
        freeze(plan, tmp_path)
    with pytest.raises(ValueError, match="is a folder"):
        freeze(small_study.plan(systems={"dpo": ".", "bdpo": "samples.jsonl"}), tmp_path)


def test_a_name_within_a_word_reveals_nothing(tmp_path):
    small_study.write_samples(tmp_path, text=lambda system, place: f"{place} adpoint {len(system)}")
    assert len(freeze(small_study.plan(), tmp_path).items) == 24


def test_identical_samples_count_as_ties_where_the_plan_says_so(tmp_path):
    small_study.write_samples(tmp_path, 26, text=lambda system, place: "the same" if place in (5, 6) else None)
    design = Design(items_per_rater=8, raters_per_item=2, identical="tie")
    number = [len(freeze(small_study.plan(design=design, seed=seed), tmp_path).items) for seed in range(40)]
    assert {*number} == {12, 13, 14}
    assert np.mean(number) == pytest.approx(13, abs=0.5)  # half of the two that do not differ: 12 of 24 are shown


def test_each_stratum_has_its_own_share_of_identical_texts(tmp_path):
    """A small stratum is used up, and all its identical texts count; a large one is not."""
    same = range(20)
    small_study.write_samples(tmp_path, 660, text=lambda system, place: "the same" if place in same else None)
    strata = [{"prompt": f"question {place}", "stratum": "small" if place < 60 else "large"} for place in range(660)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in strata))
    design = Design(items_per_rater=80, raters_per_item=2, identical="tie")
    study = freeze(small_study.plan(design=design, prompts="prompts.jsonl"), tmp_path)
    shown = Counter(item.stratum for item in study.shown)
    assert shown == {"small": 40, "large": 80}
    assert Counter(item.stratum for item in study.items if item.identical) == {"small": 20}


def test_goals_have_names_of_their_own():
    with pytest.raises(ValueError, match="'helpful' twice"):
        small_study.plan(goals=(small_study.QUESTION, Goal(name="helpful", question="again?")))
