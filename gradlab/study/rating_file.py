"""A rater's file of answers while it grows: each line is held against the study before it is appended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock

from gradlab.checks import of_kind, one_of, resolved
from gradlab.store.json_lines import read_lines
from gradlab.study.answers import LINE, UNDO, answer_line, append, open_tasks, read_answers
from gradlab.study.assignment import Task, tasks_of
from gradlab.study.frozen import Study


class RatingFile:
    """Answers of one rater, in a file that may be there already and that other windows may write to."""

    def __init__(self, study: Study, rater: str, path: Path | str | None = None, folder: Path | str = ".") -> None:
        """Take a file, by default ``RATER.answers.jsonl`` in ``folder``; nothing is written yet.

        ValueError in one line for a name that is no rater's and for a file of another study; OSError for a folder that
        is not there.
        """
        self.study, self.rater = study, one_of("rater", rater, study.plan.raters)
        self.path = Path(folder) / file_of(rater) if path is None else Path(path)
        self.tasks = tasks_of(study, rater)
        if not resolved("answers", self.path).parent.is_dir():
            raise FileNotFoundError(f"answers must be a file in a folder that is there, got {self.path}")
        self.standing()

    def lines(self) -> list[dict[str, Any]]:
        """Return the rater's lines in the file, in order; [] before the first answer."""
        if not self.path.exists():
            return []
        return [line for _, line in read_lines(self.path, LINE)[0] if line.get("rater") == self.rater]

    def standing(self) -> pd.DataFrame:
        """Return the answers of the rater that stand, in the order in which they were given, see ``Answers.frame``.

        ValueError in one line where the file holds something that is not the study's.
        """
        frame = read_answers(self.study, [self.path] if self.path.exists() else []).frame
        return frame[frame["rater"] == self.rater]

    def open(self, standing: pd.DataFrame | None = None) -> tuple[Task, list[str]] | None:
        """Return the task that is to be answered now, with the goals that are open; None where all are answered."""
        given = self.standing() if standing is None else standing
        left = open_tasks(self.study, self.tasks, given)
        if not left:
            return None
        answered = set(given[given["place"] == left[0].place]["goal"])
        return left[0], [goal.name for goal in self.study.plan.goals if goal.name not in answered]

    def take(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Append lines, all or none: answers to the task that is open now, or withdrawals of the last task's.

        ValueError in one line for a line about another task, and for one that ``answer_line`` would not write.
        """
        with FileLock(self.path.with_name(f".{self.path.name}.rating.lock")):  # from reading to writing
            standing = self.standing()
            checked = [self._checked(line, standing) for line in lines]
            if len({(line["place"], line["goal"]) for line in checked}) < len(checked):
                raise ValueError("lines must answer each question once")
            for line in checked:
                append(self.path, line)

    def _checked(self, line: Mapping[str, Any], standing: pd.DataFrame) -> dict[str, Any]:
        """Return the line as ``answer_line`` writes it."""
        given = of_kind("line", line, Mapping, "an answer")
        undo = given.get("choice") == UNDO
        task, goals = self.last(standing) if undo else self.open_now(standing)
        if given.get("place") != task.place:
            which = "the one answered last" if undo else "the one that is open"
            raise ValueError(f"place must be {task.place}, {which}; got {given.get('place')!r}: the answers went on")
        whole = answer_line(
            self.study, task, one_of("goal", given.get("goal"), goals), given["choice"],  # type: ignore[arg-type]
            seconds=given.get("seconds"), reason=of_kind("reason", given.get("reason"), str, "a text"),
            time=of_kind("time", given.get("time"), str, "a text"),
        )  # fmt: skip
        for name in {**whole, **given}:
            if whole.get(name) != given.get(name):
                raise ValueError(f"{name} must be {whole.get(name)!r}, got {given.get(name)!r}")
        return whole

    def open_now(self, standing: pd.DataFrame) -> tuple[Task, list[str]]:
        """Return what ``open`` does; ValueError where all tasks are answered."""
        found = self.open(standing)
        if found is None:
            raise ValueError(f"{self.rater} has answered all {len(self.tasks)} tasks")
        return found

    def last(self, standing: pd.DataFrame) -> tuple[Task, list[str]]:
        """Return the task that was answered last, with its answered goals; ValueError before the first answer."""
        if standing.empty:
            raise ValueError(f"{self.rater} has no answer to take back")
        place = standing["place"].iloc[-1]
        return self.tasks[place], list(standing[standing["place"] == place]["goal"])


def file_of(rater: str) -> str:
    """Return the name of a rater's file of answers."""
    return f"{rater}.answers.jsonl"
