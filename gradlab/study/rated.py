"""Exchanged tasks: what a tool for rating carries about a task, and what it gives back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gradlab.checks import shown
from gradlab.study.answers import check_study
from gradlab.study.blind import blind_list
from gradlab.study.frozen import Study

EXPORT = 1  # of what is carried; raised where an export of a former version could not be read
TIE, SKIP = "Both are equally good", "I cannot or do not want to say"  # what raters read
REASON = "Reason, if you skip"


@dataclass(frozen=True)
class Rated:
    """A task that somebody has rated in a tool.

    where      its place in the export, for errors.
    about      what gradlab gave the tool to carry.
    annotator  what the tool calls the person: one name, or several.
    given      by goal, a choice and a reason.
    """

    where: str
    about: Mapping[str, Any]
    annotator: tuple[str, ...]
    given: Mapping[str, tuple[str, str]]
    seconds: float | None = None
    time: str = ""


def carried_tasks(study: Study, rater: str) -> Iterable[tuple[dict[str, str], dict[str, Any]]]:
    """Return the texts of each of a rater's tasks, and what the tool carries about the task."""
    page = blind_list(study, rater)
    of_all = {"export": EXPORT, "study": page["study"], "version": page["version"], "rater": rater}
    for task in page["tasks"]:
        yield (
            {name: task[name] for name in ("prompt", "left", "right")},
            {**of_all, **{name: task[name] for name in ("place", "item", "shown")}},
        )


def checked_about(study: Study, given: Any, where: str) -> Mapping[str, Any]:
    """Return what a tool has carried; ValueError unless this version of gradlab wrote it for this study."""
    about = given if isinstance(given, Mapping) else {}
    if "study" not in about or "export" not in about:
        raise ValueError(f"{where} is no task of a study: it lacks what gradlab study export gave it to carry")
    if about["export"] != EXPORT:
        raise ValueError(f"{where}: export must be {EXPORT}, got {shown(about['export'])}: another version's")
    check_study(study, about["study"], where)
    return about


def aside(study: Study) -> dict[str, str]:
    """Return the answers beside left and right, each with what raters read."""
    return ({"tie": TIE} if study.plan.design.ties else {}) | {"skip": SKIP}


def numbered_goals(study: Study) -> dict[str, str]:
    """Return the goals' names by the names that their questions have in a tool: goal1, goal2, ….

    A tool's names are narrower than a plan's.
    """
    return {f"goal{number}": goal.name for number, goal in enumerate(study.plan.goals, 1)}
