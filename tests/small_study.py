"""A small study for tests: two systems on some prompts, and raters who answer by a rule."""

import dataclasses
import json

from gradlab.study.answers import answer_line
from gradlab.study.assignment import GOOD, assign
from gradlab.study.frozen import freeze
from gradlab.study.plan import Design, Goal, Plan, Primary

QUESTION = Goal(name="helpful", question="Which response helps more?")
TWO_GOALS = (
    Goal(name="help", question="Which response helps more?"),
    Goal(name="harm", question="Which response does less harm?"),
)


def plan(number=24, **changes):
    """Return a plan of three raters."""
    usual = {
        "title": "a small study", "systems": {"dpo": "samples.jsonl", "bdpo": "samples.jsonl"},
        "goals": (QUESTION,), "primary": Primary(a="dpo", b="bdpo", goal="helpful", margin=0.05),
        "raters": (raters := changes.get("raters", ("ada", "ben", "cleo"))),
        "design": Design(
            items_per_rater=2 * number // max(len(raters), 1), raters_per_item=2, repeats=0.25, attention=2
        ), "seed": 3,
    }  # fmt: skip
    return Plan(**{**usual, **changes})


def write_samples(folder, prompts=24, systems=("dpo", "bdpo"), text=lambda system, place: None):
    """Write a file of samples; ``text`` may give others than the usual ones."""
    lines = [
        {"prompt": f"question {place}", "samples": {
            system: text(system, place) or f"answer {place} in style {number}" + " and so on" * number
            for number, system in enumerate(systems)
        }}
        for place in range(prompts)
    ]  # fmt: skip
    file = folder / "samples.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def study(folder, number=24, **changes):
    """Return a frozen study of so many prompts."""
    write_samples(folder, number)
    return freeze(plan(number, **changes), folder)


def two_goals_study(folder):
    """Return a frozen study of two goals, of which the first decides."""
    return study(folder, goals=TWO_GOALS, primary=dataclasses.replace(plan().primary, goal=TWO_GOALS[0].name))


def answers_of(study, choose=lambda task: "left", path=None):
    """Return the lines by which every rater answers every task and goal; attention checks rightly by the first goal.

    By the other goals both answers of a check are equally good, as nonsense does no harm.
    """
    lines = []
    for tasks in assign(study).values():
        for task in tasks:
            right = "left" if task.left == GOOD else "right"
            for number, goal in enumerate(study.plan.goals):
                fitting = "tie" if number and study.plan.design.ties else right
                choice = fitting if task.kind == "attention" else choose(task)
                lines.append(answer_line(study, task, goal.name, choice, seconds=4.0))
    if path is not None:
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return lines


def write_paper_samples(plan, folder, strata=("harmlessness", "helpfulness")):
    """Write files of samples and of prompts that the plan of the protocol can be frozen with."""
    (folder / "samples").mkdir(parents=True)
    prompts = [{"prompt": f"question {place}", "stratum": strata[place % 2]} for place in range(360)]
    for system, file in plan.systems.items():
        lines = [{"prompt": of["prompt"], "response": f"response {len(system)} to {of['prompt']}"} for of in prompts]
        (folder / file).write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "prompts.jsonl").write_text("".join(json.dumps(of) + "\n" for of in prompts))
