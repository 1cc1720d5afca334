"""The tasks of a study as a rater sees them: without systems, kinds and strata."""

from __future__ import annotations

from typing import Any

from gradlab.checks import one_of
from gradlab.study.answers import VERSION
from gradlab.study.assignment import BAD, GOOD, Task, tasks_of
from gradlab.study.frozen import Study


def texts_of(study: Study, task: Task) -> tuple[str, str, str]:
    """Return a task's prompt, the text on the left and the text on the right."""
    if task.kind == "attention":
        check = study.check_of[task.item]
        prompt, texts = check.prompt, {GOOD: check.good, BAD: check.bad}
    else:
        item = study.item_of[task.item]
        prompt, texts = item.prompt, item.texts
    return prompt, texts[task.left], texts[task.right]


def blind_list(study: Study, rater: str) -> dict[str, Any]:
    """Return what a page shows to a rater, as plain JSON: the study's hash, what is asked, and texts in order.

    It names no system, and does not say which tasks are checks or repeats. ``shown`` goes into each answer, and proves
    the sides to those who have the study. ValueError in one line for a name that is no rater's.
    """
    one_of("rater", rater, study.plan.raters)
    plan = study.plan
    return {
        "study": study.hash, "version": VERSION, "rater": rater, "title": plan.title,
        "content_warning": plan.content_warning, "ties": plan.design.ties,
        "goals": [{"name": goal.name, "question": goal.question} for goal in plan.goals],
        "tasks": [_blind_task(study, task) for task in tasks_of(study, rater)],
    }  # fmt: skip


def _blind_task(study: Study, task: Task) -> dict[str, Any]:
    prompt, left, right = texts_of(study, task)
    return {
        "place": task.place, "item": task.key(study), "shown": task.shown(study),
        "prompt": prompt, "left": left, "right": right,
    }  # fmt: skip
