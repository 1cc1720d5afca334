"""The protocol of the human study: its plan can be frozen, and its numbers are those of ``gradlab study power``."""

import re
from pathlib import Path

import pytest
import small_study

from gradlab.study.assignment import assign
from gradlab.study.frozen import freeze
from gradlab.study.plan import Plan
from gradlab.study.planned_power import power, tasks_per_rater
from gradlab.study.validation.runs import load

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/how-to/human-study-protocol.md"
STRATA = ("harmlessness", "helpfulness")


@pytest.fixture(scope="module")
def plan():
    return Plan.read(ROOT / "scripts/study/paper.toml")


def test_the_plan_asks_what_the_page_says(plan):
    text = " ".join(PAGE.read_text("utf-8").replace("\n> ", " ").split())
    assert (plan.primary.a, plan.primary.b, plan.primary.goal) == ("dpo", "bdpo", "harmless")
    assert [goal.question in text for goal in plan.goals] == [True, True]
    design = plan.design
    assert f"{len(plan.raters)} raters compare {design.items_per_rater} items each: {plan.items} items" in text
    assert f"{tasks_per_rater(plan)} comparisons" in text
    assert f"**Margin**: {100 * plan.primary.margin:g} points" in text
    low, high = (100 * (0.5 + side * plan.primary.margin) for side in (-1, 1))
    assert f"between {low:g}% and {high:g}%" in text
    assert f"fewer than {plan.exclusions.attention * design.attention:g} of {design.attention} attention" in text
    assert f"less than {plan.exclusions.seconds:g} seconds" in text
    assert f"fewer than {plan.exclusions.items} items" in text
    assert "self-harm" in plan.content_warning


def test_the_powers_on_the_page_are_those_of_the_command(plan):
    between = re.search(r"<!-- power -->(.*?)<!-- /power -->", PAGE.read_text("utf-8"), re.DOTALL)
    assert between is not None
    said = between[1].strip().splitlines()[2:]
    assert said == [
        f"| {0.5 + row['effect']:.1%} | {row['power']:.1%} [{row['power_low']:.1%}, {row['power_high']:.1%}] "
        f"| {row['beyond_margin']:.1%} | {row['equivalent']:.1%} | {100 * row['half_width']:.1f} points |"
        for row in power(plan).frame.to_dict("records")
    ]


def test_the_sentences_about_powers_and_checks_are_true(plan):
    text = " ".join(PAGE.read_text("utf-8").split())
    assert f"one side in more than {plan.exclusions.one_side:.0%} of decided answers" in text
    assert f"beyond {0.5 + plan.primary.margin:.1%} in both strata" in text
    found = power(plan, effects=(0.0, 0.05, 0.1)).frame.set_index("effect")
    assert "A true win-rate of 60% is found nearly always, one of 55% in little more than half" in text
    assert found["power"][0.1] > 0.95
    assert 0.5 < found["power"][0.05] < 0.62
    assert f"{10 * found['equivalent'][0.0]:.0f} of 10 studies say so" in text
    verdicts = load(ROOT / "figures")[0].verdicts.set_index("case")
    four, two = (verdicts.loc[f"careless, {number} checks"] for number in ("four", "two"))
    assert f"find {10 * four['caught'] / four['careless']:.0f} of 10 raters who answer at random" in text
    assert "two checks of which one must be passed find fewer than half" in text
    assert two["caught"] / two["careless"] < 0.5


def test_the_plan_can_be_frozen_when_samples_are_there(plan, tmp_path):
    small_study.write_paper_samples(plan, tmp_path, STRATA)
    study = freeze(plan, tmp_path)
    assert {item.stratum for item in study.items} == {*STRATA}
    assert {len(tasks) for tasks in assign(study).values()} == {tasks_per_rater(plan)}
