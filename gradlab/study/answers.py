"""Answers of a study: one JSON line per answer, appended as they come; reading holds each against the plan."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd

from gradlab.checks import between, one_of, shown
from gradlab.store.json_lines import append_line, read_lines
from gradlab.study.assignment import BAD, GOOD, Kind, Task, assign
from gradlab.study.frozen import Study
from gradlab.study.items import StudyItem, words
from gradlab.study.texts import LONGEST_NOTE, readable

VERSION = 1  # of a line; raised where a former version could not be read
Choice = Literal["left", "right", "tie", "skip"]
SCORED = "each response scored alone"  # reason of a judge that cannot lean to a side
UNDO = "undo"  # a line that takes back this rater's answer at this place
_Placed = tuple[str, dict[str, Any]]  # a line, after the place that errors name
LINE = "a file of answers has one JSON object per line, as gradlab study writes them"
COLUMNS = (
    "rater", "place", "kind", "item", "prompt", "stratum", "a", "b", "goal", "left", "right", "choice", "score",
    "b_left", "longer", "seconds", "reason", "judge",
)  # fmt: skip


@dataclass(frozen=True)
class Answers:
    """The answers that stand, held against their study.

    frame  one row per rater, place and goal, with ``COLUMNS``: ``score`` is 1 where b is preferred, 0 where a is, ½ for
           a tie, NaN for a skip (in an attention check b is its good answer); ``b_left`` says whether b stood on the
           left; ``longer`` is log(words of b/words of a); ``judge`` says whether a model answered.
    notes  what was left out, in words: torn last lines and repeated ones.
    """

    study: Study
    frame: pd.DataFrame
    notes: tuple[str, ...] = ()

    def of(self, kind: str) -> pd.DataFrame:
        """Return the rows of one kind of task."""
        return self.frame[self.frame["kind"] == one_of("kind", kind, get_args(Kind))]


_Key = tuple[str, int, str]  # rater, place and goal


@dataclass
class _Standing:
    """The answers that stand so far, by rater, place and goal, and the lines that were taken.

    A rater who saves answers twice sends two files, of which the later one goes on from the earlier: lines of a file
    that others have had as often are not taken again, or else an old file would undo what the new one took back.
    """

    study: Study
    tasks: dict[tuple[str, int], Task]
    rows: dict[_Key, dict[str, Any]] = field(default_factory=dict)
    repeated: int = 0
    taken: Counter[tuple[Any, ...]] = field(default_factory=Counter)
    of_others: Counter[tuple[Any, ...]] = field(default_factory=Counter)
    of_file: Counter[tuple[Any, ...]] = field(default_factory=Counter)
    file: int = 0
    in_file: dict[_Key, dict[str, Any]] = field(default_factory=dict)
    """The answers that stand by the lines of the present file alone."""

    def next_file(self, number: int) -> None:
        """Begin with another file."""
        self.of_others, self.of_file, self.file, self.in_file = self.taken.copy(), Counter(), number, {}

    def known(self, line: tuple[Any, ...]) -> bool:
        """Return whether a line was taken before; one without a time may stand twice in a file, an undo between."""
        self.of_file[line] += 1
        known = self.of_file[line] <= self.of_others[line] or bool(line[-1] and self.taken[line])
        self.taken[line] += not known
        return known


def answer_line(
    study: Study, task: Task, goal: str, choice: str, *, seconds: float | None = None, reason: str = "", time: str = ""
) -> dict[str, Any]:
    """Return the line of one answer, or of its withdrawal (``undo``); ValueError for a choice that the plan forbids.

    It names no system, so that a rater who reads the file stays blind.
    """
    allowed = [*(word for word in get_args(Choice) if word != "tie" or study.plan.design.ties), UNDO]
    one_of("choice", choice, allowed)
    one_of("goal", goal, [known.name for known in study.plan.goals])
    return {
        "study": study.hash, "version": VERSION, "rater": task.rater, "place": task.place, "item": task.key(study),
        "shown": task.shown(study), "goal": goal, "choice": choice,
        "reason": readable("reason", reason, LONGEST_NOTE, empty=True),
        "seconds": None if seconds is None else between("seconds", seconds, 0),
        "time": readable("time", time, LONGEST_NOTE, empty=True),
    }  # fmt: skip


def append(path: Path | str, line: dict[str, Any]) -> None:
    """Append one line, whole; on the disk on return."""
    append_line(path, line, durable=True)


def read_answers(study: Study, paths: Iterable[Path | str]) -> Answers:
    """Return the answers in some files, held against the study. The files are only read.

    Equal lines count once: a rater's earlier file changes nothing beside a later one, whichever is read first. Files
    that both go on are read in the order in which they fit.

    ValueError in one line that names file and line: for another study's answer, an unknown rater, item or goal, sides
    that were not assigned, a choice that the plan forbids, another version, and two different answers to one task.
    """
    notes = []

    def lines_of(path: Path | str) -> Iterator[_Placed]:
        lines, torn = read_lines(path, LINE)
        yield from ((f"{path}, line {number}", line) for number, line in lines)
        if torn:
            notes.append(f"the last line of {path} was cut short, and counts as not written")

    answers = _answers(study, map(lines_of, paths))
    return replace(answers, notes=(*notes, *answers.notes))


def answers_of(study: Study, lines: Iterable[_Placed]) -> Answers:
    """Return the answers in some lines, each with the place that errors name; ValueError as in ``read_answers``."""
    return _answers(study, [lines])


class _UnfitError(ValueError):
    """A line does not go on from what another file says: ``file`` is the one that holds the line, by its number."""

    def __init__(self, said: str, file: int, other: int) -> None:
        super().__init__(said)
        self.file, self.other = file, other


def _answers(study: Study, files: Iterable[Iterable[_Placed]]) -> Answers:
    """Return the answers in the lines of some files; one that does not go on from another is read before it."""
    tasks = {(task.rater, task.place): task for tasks in assign(study).values() for task in tasks}
    read = [list(lines) for lines in files]
    order, tried, first = list(range(len(read))), set[tuple[int, ...]](), None
    while tuple(order) not in tried:
        tried.add(tuple(order))
        standing = _Standing(study, tasks)
        try:
            for number in order:
                standing.next_file(number)
                for place, line in read[number]:
                    _take(standing, line, place)
            return _found(standing)
        except _UnfitError as error:
            first = first or error
            order.remove(error.file)
            order.insert(order.index(error.other) if error.other in order else len(order), error.file)
    raise ValueError(str(first))


def _found(standing: _Standing) -> Answers:
    """Return the answers that stand when all lines are taken."""
    twice = standing.repeated
    said = "1 line stands twice, and counts once" if twice == 1 else f"{twice} lines stand twice, and count once"
    notes = [said] if twice else []
    return Answers(standing.study, _frame(standing.study, standing.rows.values()), tuple(notes))


def check_study(study: Study, given: Any, place: str) -> None:
    """Raise ValueError unless a line carries this study's hash."""
    if given != study.hash:
        raise ValueError(f"{place}: study must be {study.hash[:12]}…, got {_short(given)}: another plan's")


def _take(standing: _Standing, line: dict[str, Any], place: str) -> None:
    """Let one line count."""
    study = standing.study
    check_study(study, line.get("study"), place)
    if type(line.get("version")) is not int or line["version"] != VERSION:
        raise ValueError(f"{place}: version must be {VERSION}, got {shown(line.get('version'))}")
    rater = one_of(f"{place}: rater", line.get("rater"), (*study.plan.raters, *study.plan.judges))
    task = standing.tasks.get((rater, line["place"])) if type(line.get("place")) is int else None
    if task is None:
        raise ValueError(f"{place}: place must be one of {rater}'s tasks, got {shown(line.get('place'))}")
    for name, assigned in (("item", task.key(study)), ("shown", task.shown(study))):
        if line.get(name) != assigned:
            raise ValueError(
                f"{place}: {name} must be {assigned!r} as assigned to {task.rater} at place {task.place}, "
                f"got {shown(line.get(name))}"
            )
    try:
        whole = answer_line(
            study, task, line.get("goal"), line.get("choice"), seconds=line.get("seconds"),  # type: ignore[arg-type]
            reason=line.get("reason") or "", time=line.get("time") or "",
        )  # fmt: skip
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None
    _count(standing, task, whole, place)


def _count(standing: _Standing, task: Task, whole: dict[str, Any], place: str) -> None:
    """Let a checked line count."""
    key = (task.rater, task.place, whole["goal"])
    line = tuple(whole.values())  # the time is the last of them
    known, there = standing.known(line), standing.rows.get(key)
    former = standing.in_file.get(key)  # what this file has there so far
    if not known or standing.of_file[line] == 1:  # else it stands twice in this file
        standing.in_file.pop(key, None)
        if whole["choice"] != UNDO:
            standing.in_file[key] = whole
    of_task = f"place {task.place} for {whole['goal']!r}"
    if known or (there and whole.items() <= there.items()):
        standing.repeated += 1
    elif whole["choice"] == UNDO and former and there and not former.items() <= there.items():
        said = (
            f"{place}: {task.rater} takes back {former['choice']} at {of_task}, and another file has {there['choice']}"
        )
        raise _UnfitError(f"{said} there; leave one of the two files out", standing.file, there["file"])
    elif whole["choice"] == UNDO:
        standing.rows.pop(key, None)
    elif there is None:
        facts = {"of": task.item, "kind": task.kind, "left": task.left, "right": task.right, "file": standing.file}
        standing.rows[key] = {**whole, **facts}
    else:
        how = "otherwise" if there["choice"] != whole["choice"] else "with another time or reason"
        said = f"{place}: {task.rater} has answered {of_task} already, {how} ({there['choice']})"
        raise _UnfitError(f"{said}; an answer is changed by taking it back first", standing.file, there["file"])


def _frame(study: Study, rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame([_row(study, row) for row in rows], columns=list(COLUMNS))
    kinds = {"place": int, "score": float, "b_left": bool, "longer": float, "seconds": float, "judge": bool}
    return frame.astype(kinds)  # also where there is no row to tell


def _row(study: Study, row: dict[str, Any]) -> dict[str, Any]:
    """Return one answer as a row of the frame."""
    kept = {name: row[name] for name in ("rater", "place", "kind", "goal", "left", "right", "choice", "reason")}
    if row["kind"] == "attention":
        about = {"prompt": study.check_of[row["of"]].prompt, "stratum": "", "a": BAD, "b": GOOD, "longer": math.nan}
    else:
        item = study.item_of[row["of"]]
        about = {"prompt": item.prompt, "stratum": item.stratum, "a": item.a, "b": item.b, "longer": longer(item)}
    seconds = math.nan if row["seconds"] is None else row["seconds"]
    return {
        **kept, **about, "item": row["of"], "seconds": seconds, "judge": row["rater"] in study.plan.judges,
        "score": score(row["choice"], row["left"], about["b"]), "b_left": row["left"] == about["b"],
    }  # fmt: skip


def longer(item: StudyItem) -> float:
    """Return an item's log(words of b/words of a); an empty text counts as one word."""
    return math.log(max(words(item.text_b), 1) / max(words(item.text_a), 1))


def score(choice: str, left: str, b: str) -> float:
    """Return 1 where b is preferred, 0 where the other is, ½ for a tie, NaN for a skip."""
    if choice in ("left", "right"):
        return float((choice == "left") == (left == b))
    return 0.5 if choice == "tie" else math.nan


def _short(value: Any) -> str:
    return shown(value if not isinstance(value, str) or len(value) <= 12 else f"{value[:12]}…")


def open_tasks(study: Study, tasks: Sequence[Task], answered: pd.DataFrame) -> list[Task]:
    """Return a rater's tasks that lack an answer for one of the goals, in order."""
    given = answered.groupby("place")["goal"].nunique()
    return [task for task in tasks if given.get(task.place, 0) < len(study.plan.goals)]
