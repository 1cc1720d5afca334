"""Exchange with other tools for rating: a study's tasks as such a tool reads them, and its export as lines of answers.

A tool gets texts and questions, and for each task what a line of answers must carry: the study's hash, the rater, the
place, and the hash that proves the sides. It learns neither the systems nor which tasks are checks or repeats. Answers
that come back are held against the study exactly as gradlab's own lines are.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradlab.checks import input_file, one_of, utf8
from gradlab.store.files import write_once
from gradlab.store.json_lines import read_lines
from gradlab.study import argilla, label_studio
from gradlab.study.answers import answer_line, answers_of
from gradlab.study.assignment import Task, assign
from gradlab.study.frozen import Study
from gradlab.study.rated import Rated

FORMS = {"label-studio": label_studio, "argilla": argilla}


@dataclass(frozen=True)
class Imported:
    """The answers of a tool's export.

    lines  as ``answer_line`` gives them, in the order of the export.
    notes  what the export lacks, a line per rater; and how many answers stand twice.
    """

    lines: tuple[dict[str, Any], ...]
    notes: tuple[str, ...] = ()


def export(study: Study, form: str, folder: Path | str, rater: str | None = None) -> list[Path]:
    """Write the files by which a tool shows a study's tasks: one file per rater, and one that sets the tool up.

    form   ``label-studio``: JSON of tasks, and a labelling config (see ``gradlab.study.label_studio``). ``argilla``:
           JSON lines of records, and settings (see ``gradlab.study.argilla``).
    rater  one rater only; left out: all. Sides differ between raters, so that each needs a project or data set.

    All files are written or none. ValueError for an unknown form or rater; FileExistsError where a file of such a name
    holds something else, such as another study's tasks or what the tool gave back.
    """
    tool = FORMS[one_of("form", form, FORMS)]
    raters = study.plan.raters if rater is None else (one_of("rater", rater, study.plan.raters),)
    target = Path(folder)
    files = {target / name: text for name, text in tool.setup(study).items()}
    files |= {target / f"{name}.{tool.SUFFIX}": tool.tasks(study, name) for name in raters}
    write_once(files)
    return list(files)


def imported(study: Study, form: str, path: Path | str, raters: Mapping[str, str] | None = None) -> Imported:
    """Return the answers in the export of a tool; the file is only read.

    raters  the pseudonym of each annotator, by what the tool calls them (number, address or identifier); left out:
            annotators are called by their pseudonyms.

    ValueError in one line that names file and task: for another plan, another version of this exchange or of the tool's
    format, unknown tasks, raters and annotators, annotators of another rater's task, an answer that says two things,
    and two different answers to one task. What is missing is noted.
    """
    tool = FORMS[one_of("form", form, FORMS)]
    table = dict(raters or {})
    for annotator, rater in table.items():
        one_of(f"raters[{annotator!r}]", rater, study.plan.raters)
    lists = assign(study)
    tasks = {(task.rater, task.place): task for rater in study.plan.raters for task in lists[rater]}
    placed = []
    for rated in tool.rated(study, _page(path, tool.EXPORTS), str(path)):
        _check_annotator(rated, table)
        placed += [(rated.where, line) for line in _lines(rated, tasks, study)]
    answers = answers_of(study, placed)
    kept = {(line["rater"], line["place"], line["goal"]): line for _, line in placed}
    return Imported(tuple(kept.values()), (*answers.notes, *_missing(study, lists, kept)))


def _page(path: Path | str, kind: str) -> list[Any]:
    """Return the objects of a file: a JSON list, an object with ``items``, or JSON lines."""
    content = input_file("file", path).read_bytes()
    utf8(path, content)
    try:
        page = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        if content.lstrip()[:1] != b"{":
            raise ValueError(f"{path} is torn or no JSON; {kind}") from None
        lines, torn = read_lines(path, kind)
        if torn:
            raise ValueError(f"{path} ends within a line; {kind}") from None
        return [line for _, line in lines]
    if isinstance(page, Mapping):
        page = page.get("items", [page])
    if not isinstance(page, list) or not all(isinstance(one, dict) for one in page):
        raise ValueError(f"{path} holds no list of objects; {kind}")
    return page


def _check_annotator(rated: Rated, table: Mapping[str, str]) -> None:
    """Raise ValueError unless the annotator stands for the rater whose task this is."""
    rater = rated.about.get("rater")
    known = [table[name] for name in rated.annotator if name in table] or [*rated.annotator]
    if rater in known:
        return
    annotator = rated.annotator[-1] if rated.annotator else "nobody"
    if any(name in table for name in rated.annotator):
        raise ValueError(f"{rated.where}: annotator {annotator!r} stands for {known[0]}, and the task is {rater}'s")
    raise ValueError(
        f"{rated.where}: annotator {annotator!r} must have a rater's pseudonym, given by raters such as "
        f"{{{annotator!r}: {rater!r}}}"
    )


def _lines(rated: Rated, tasks: Mapping[tuple[Any, Any], Task], study: Study) -> Iterable[dict[str, Any]]:
    """Return a line per goal that was answered, with what the tool carried about the task.

    The first has the task's seconds: a tool has one clock for all goals, and ``conduct`` adds them up.
    """
    carried = {name: rated.about.get(name) for name in ("study", "version", "rater", "place", "item", "shown")}
    plain = isinstance(carried["rater"], str) and type(carried["place"]) is int
    task = tasks.get((carried["rater"], carried["place"])) if plain else None
    for number, (goal, (choice, reason)) in enumerate(rated.given.items()):
        seconds = None if number else rated.seconds
        if task is None:  # which answers_of will say, in its words
            yield {**carried, "goal": goal, "choice": choice}
            continue
        try:
            line = answer_line(study, task, goal, choice, seconds=seconds, reason=reason, time=rated.time)
        except ValueError as error:
            raise ValueError(f"{rated.where}: {error}") from None
        yield {**line, **carried}


def _missing(study: Study, lists: Mapping[str, Sequence[Task]], kept: Collection[tuple[str, int, str]]) -> list[str]:
    """Return notes on missing answers: one line per rater who has answered something."""
    notes = [] if kept else ["the export holds no answer"]
    for rater in dict.fromkeys(rater for rater, _, _ in kept):
        asked = [(rater, task.place, goal.name) for task in lists[rater] for goal in study.plan.goals]
        missing = [one for one in asked if one not in kept]
        if missing:
            notes.append(
                f"{len(missing)} of {len(asked)} answers of {rater} are missing, the first at place {missing[0][1]} "
                f"for {missing[0][2]!r}"
            )
    return notes
