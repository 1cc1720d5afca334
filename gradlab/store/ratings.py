"""Blind ratings: two systems' samples side by side, and answers on disk as they come."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from gradlab.checks import one_of
from gradlab.stats.agreement import ALL
from gradlab.store.json_lines import GrowingLines, append_line, read_lines
from gradlab.store.provenance import fingerprint

CHOICES = ("left", "right", "tie", "skip")
UNDO = "undo"  # a line that takes back this rater's answer to this item
SAMPLES = "a file of samples has one JSON object per line with a prompt and samples: {system: text, …}"
ANSWERS = "a file of answers has one JSON object per line with rater, item, left, right and choice"


@dataclass(frozen=True)
class Item:
    """One prompt and the texts that two systems wrote for it."""

    key: str
    """A hash of systems, prompt and texts: an answer holds for the texts that the rater saw, and for no others."""
    prompt: str
    texts: tuple[str, str]


@dataclass(frozen=True)
class Comparison:
    """Two systems on all prompts for which both have a sample."""

    systems: tuple[str, str]
    """A and B."""
    items: tuple[Item, ...]
    left_out: int
    """Prompts for which one of the two has no sample."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One rater's answer to one item: the systems on the two sides, and the choice."""

    rater: str
    item: str
    left: str
    right: str
    choice: str


_FIELDS = tuple(field.name for field in fields(Answer))


def read_comparison(path: Path | str, a: str = "", b: str = "") -> Comparison:
    """Return the comparison of systems ``a`` and ``b`` in a file of samples, by default of the first two named there.

    The file has one object per line with ``prompt`` and ``samples``; a first line without a prompt is about the file.
    A prompt without a sample of both, or with null in place of one, is left out and counted. ValueError or OSError
    with one line that names file, line and field.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is no file; {SAMPLES}")
    lines, torn = read_lines(path, SAMPLES)
    if torn:
        raise ValueError(f"{path} ends within a line; {SAMPLES}")
    if lines and "prompt" not in lines[0][1] and "samples" not in lines[0][1]:
        lines.pop(0)
    rows = [(number, *_checked_sample(row, f"{path}, line {number}")) for number, row in lines]
    systems = list(dict.fromkeys(system for _, _, samples in rows for system in samples))
    if len(systems) < 2:
        raise ValueError(f"{path} names {len(systems)} systems, two are needed; {SAMPLES}")
    a = one_of("system A", a or next(system for system in systems if system != b), systems)
    b = one_of("system B", b or next(system for system in systems if system != a), systems)
    if a == b:
        raise ValueError(f"system A and system B must differ, got {a!r} twice")
    items: dict[str, Item] = {}
    for number, prompt, samples in rows:
        if a in samples and b in samples:
            item = Item(_key(prompt, samples, a, b), prompt, (samples[a], samples[b]))
            if item.key in items:
                raise ValueError(f"{path}, line {number}, repeats a prompt with the same samples")
            items[item.key] = item
    if not items:
        raise ValueError(f"{path} has no prompt with samples of both {a!r} and {b!r}")
    return Comparison((a, b), tuple(items.values()), len(rows) - len(items))


def shuffled(comparison: Comparison, rater: str, seed: int | str = 0) -> list[Item]:
    """Return the items in this rater's order, which depends on seed, rater and item alone."""
    return sorted(comparison.items, key=lambda item: fingerprint("order", str(seed), rater, item.key))


def sides(comparison: Comparison, item: Item, rater: str, seed: int | str = 0) -> tuple[int, int]:
    """Return which system, 0 for A and 1 for B, this rater sees on the left and which on the right.

    The sides are the same whichever of the two systems is called A.
    """
    by_name = sorted((0, 1), key=lambda index: comparison.systems[index])
    first = int(fingerprint("side", str(seed), rater, item.key), 16) % 2
    return by_name[first], by_name[1 - first]


def append_answer(path: Path | str, rater: str, item: str, left: str, right: str, choice: str) -> None:
    """Append one answer, or take this rater's answer to this item back (the choice ``undo``); on disk on return."""
    one_of("choice", choice, (*CHOICES, UNDO))
    if rater == ALL:
        raise ValueError(f"rater must be another name than {ALL!r}, which stands for all of them")
    line = {"rater": rater, "item": item, "left": left, "right": right, "choice": choice}
    append_line(path, line, durable=True)


def read_answers(path: Path | str, comparison: Comparison) -> pd.DataFrame:
    """Return the answers that stand, in the order in which they came; none where there is no file yet.

    Columns: ``rater``, ``item``, ``left``, ``right`` (systems), ``choice``, and ``score`` (1 for B, 0 for A, ½ for a
    tie, NaN for a skip). Answers to other items, such as another pair of systems', are left out. A rater's later
    answer to an item replaces the earlier one. A last line cut short counts as not written.
    ValueError names file, line and field.
    """
    return AnswerFile(path, comparison).frame()


class AnswerFile:
    """The answers that stand in a file to which raters append; ``update`` reads only what came since the last time."""

    def __init__(self, path: Path | str, comparison: Comparison) -> None:
        """Read the answers to the comparison's items; there need not be a file yet."""
        self._path, self._systems = path, comparison.systems
        self._items = {item.key for item in comparison.items}
        self._lines = GrowingLines(path, ANSWERS)
        self._answers: dict[tuple[str, str], Answer] = {}  # by rater and item, in the order in which they came
        self._by_rater: dict[str, dict[str, Answer]] = {}
        self.update()

    def update(self) -> None:
        """Read what was appended; where the file was changed otherwise, read it all. ValueError as in read_answers."""
        lines, follows = self._lines.read()
        if not follows:
            self._answers, self._by_rater = {}, {}
        try:
            for number, line in lines:
                self._take(line, f"{self._path}, line {number}")
        except ValueError:
            self._lines = GrowingLines(self._path, ANSWERS)  # the next update finds the fault again
            self._answers, self._by_rater = {}, {}
            raise

    def of(self, rater: str) -> Mapping[str, Answer]:
        """Return a rater's answers by item, in the order in which they came."""
        return self._by_rater.get(rater, {})

    def numbers(self) -> dict[str, int]:
        """Return how many items each rater has answered."""
        return {rater: len(answers) for rater, answers in self._by_rater.items() if answers}

    def frame(self) -> pd.DataFrame:
        """Return the answers as ``read_answers`` does."""
        answers = self._answers.values()
        columns = {name: [getattr(answer, name) for answer in answers] for name in _FIELDS}
        return pd.DataFrame({**columns, "score": [_score(answer, self._systems[1]) for answer in answers]})

    def _take(self, line: dict[str, Any], place: str) -> None:
        """Let one line of the file count."""
        for name in _FIELDS:
            if not isinstance(line.get(name), str):
                raise ValueError(f"{place}: {name} must be a text, got {line.get(name)!r}; {ANSWERS}")
        one_of(f"{place}: choice", line["choice"], (*CHOICES, UNDO))
        if line["rater"] == ALL:
            raise ValueError(f"{place}: rater must be another name than {ALL!r}")
        if line["item"] not in self._items:
            return
        if {line["left"], line["right"]} != set(self._systems):
            raise ValueError(f"{place}: left and right must be {' and '.join(self._systems)}")
        answer = Answer(*(line[name] for name in _FIELDS))
        of_rater = self._by_rater.setdefault(answer.rater, {})
        of_rater.pop(answer.item, None)
        self._answers.pop((answer.rater, answer.item), None)
        if answer.choice != UNDO:
            of_rater[answer.item] = self._answers[answer.rater, answer.item] = answer


def _checked_sample(row: dict[str, Any], place: str) -> tuple[str, dict[str, str]]:
    prompt, samples = row.get("prompt"), row.get("samples")
    if not isinstance(prompt, str):
        raise ValueError(f"{place}: prompt must be a text, got {prompt!r}; {SAMPLES}")
    if not isinstance(samples, dict) or not all(
        isinstance(text, str | None) and name.strip() == name for name, text in samples.items()
    ):
        raise ValueError(f"{place}: samples must give a text for each system; {SAMPLES}")
    return prompt, {name: text for name, text in samples.items() if text is not None}


def _key(prompt: str, samples: dict[str, str], a: str, b: str) -> str:
    """Return the key of an item, the same whichever of the two systems is called A."""
    return fingerprint(prompt, sorted((system, samples[system]) for system in (a, b)))


def _score(answer: Answer, b: str) -> float:
    if answer.choice in ("left", "right"):
        return float((answer.left if answer.choice == "left" else answer.right) == b)
    return 0.5 if answer.choice == "tie" else math.nan
