"""Assignment: who sees which item, where in the list, and which system on which side; balanced, blind, seeded."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import pandas as pd

from gradlab.checks import one_of
from gradlab.store.provenance import fingerprint
from gradlab.study.frozen import Study

Kind = Literal["item", "repeat", "attention"]
GOOD, BAD = "good", "bad"  # what stands in place of systems in an attention check


@dataclass(frozen=True)
class Task:
    """One thing that a rater is asked: an item, an item for the second time, or an attention check."""

    rater: str
    place: int
    """Its place in the rater's list, from 0."""
    kind: Kind
    item: str
    """Key of an item or of an attention check."""
    left: str
    right: str
    """Systems, or ``GOOD`` and ``BAD``."""

    def shown(self, study: Study) -> str:
        """Return a hash that stands in this task's answers for the sides: it proves them, and names no system."""
        return _shown(study.hash, study.salt, self)

    def key(self, study: Study) -> str:
        """Return what stands in this task's answers for the item: where the study has a salt, a hash of this place.

        An item's own key is made of its systems and texts, so that whoever has gradlab could tell who wrote which; and
        it would show that an item comes back.
        """
        return _key(study.hash, study.salt, self) if study.salt else self.item


@lru_cache(maxsize=2**16)  # an answer asks for it when it is written, and twice when it is read
def _shown(study: str, salt: str, task: Task) -> str:
    return fingerprint("shown", study, *filter(None, [salt]), task.rater, task.place, task.item, task.left, task.right)


@lru_cache(maxsize=2**16)
def _key(study: str, salt: str, task: Task) -> str:
    return fingerprint("place", study, salt, task.rater, task.place, task.item)


def assign(study: Study) -> dict[str, tuple[Task, ...]]:
    """Return each rater's tasks, in order; equal studies give equal lists on every machine.

    - Each item is seen by ``design.raters_per_item`` raters, and raters have equally many items, give or take one.
    - Of the share ``design.both_orders`` of the items, as many raters see one order as the other, give or take one; of
      the others, the sides are drawn for each rater.
    - A rater sees the share ``design.repeats`` of the items a second time, at the end, with sides exchanged.
    - Attention checks stand at random places.
    - A judge that is a model sees every item twice, the second time with sides exchanged, and no attention checks.
    """
    return dict(_lists(study))


@lru_cache(maxsize=4)  # a page per rater, and the reading of answers, ask for the same lists again
def _lists(study: Study) -> dict[str, tuple[Task, ...]]:
    raters_of = _dealt([item.key for item in study.shown], study.plan.raters, study)
    left_of = {
        (item.key, rater): side
        for item in study.shown
        for rater, side in zip(raters_of[item.key], _sides(item.key, raters_of[item.key], study), strict=True)
    }
    lists = {}
    for rater in study.plan.raters:
        keys = _drawn([key for key, raters in raters_of.items() if rater in raters], study, "order", rater)
        first = {key: left_of[key, rater] for key in keys}
        again = _drawn(keys, study, "repeats", rater)[: round(study.plan.design.repeats * len(keys))]
        lists[rater] = _listed(rater, _with_checks(_twice(first, again), rater, study), study)
    for judge in study.plan.judges:
        first = {item.key: _lot(study, "side", item.key, judge) < 0.5 for item in study.shown}
        lists[judge] = _listed(judge, _twice(first, list(first)), study)
    return lists


def tasks_of(study: Study, rater: str) -> tuple[Task, ...]:
    """Return one rater's tasks; ValueError for a name that is not in the plan."""
    return assign(study)[one_of("rater", rater, (*study.plan.raters, *study.plan.judges))]


def as_frame(lists: dict[str, tuple[Task, ...]]) -> pd.DataFrame:
    """Return all tasks, one per row, with the fields of ``Task`` as columns."""
    return pd.DataFrame([vars(task) for tasks in lists.values() for task in tasks], columns=list(Task.__annotations__))


def _dealt(keys: Sequence[str], raters: Sequence[str], study: Study) -> dict[str, list[str]]:
    """Return the raters of each item: always those who have the fewest items so far, the nearest ones by lot."""
    having: dict[str, int] = defaultdict(int)
    dealt: dict[str, list[str]] = {}
    for key in keys:
        by_load = sorted(raters, key=lambda rater, key=key: (having[rater], _lot(study, "raters", key, rater)))
        dealt[key] = by_load[: study.plan.design.raters_per_item]
        for rater in dealt[key]:
            having[rater] += 1
    return dealt


def _sides(key: str, raters: Sequence[str], study: Study) -> list[bool]:
    """Return for each rater of an item whether system a stands on the left."""
    both = _lot(study, "both orders", key) < study.plan.design.both_orders
    first = _lot(study, "first order", key) < 0.5
    return [
        first is (place % 2 == 0) if both else _lot(study, "side", key, rater) < 0.5
        for place, rater in enumerate(raters)
    ]


_Drawn = tuple[str, Kind, bool]  # a key, its kind, and whether a, or the good answer, stands on the left


def _twice(first: dict[str, bool], again: Sequence[str]) -> list[_Drawn]:
    """Return items with their side, then some of them again with sides exchanged."""
    return [*((key, "item", left) for key, left in first.items()), *((key, "repeat", not first[key]) for key in again)]


def _listed(rater: str, drawn: Sequence[_Drawn], study: Study) -> tuple[Task, ...]:
    return tuple(
        Task(rater, place, kind, key, *_named(study, key, kind, a_left=a_left))
        for place, (key, kind, a_left) in enumerate(drawn)
    )


def _with_checks(tasks: list[_Drawn], rater: str, study: Study) -> list[_Drawn]:
    """Return the tasks with the attention checks among them, none of them first."""
    checks = _drawn([check.key for check in study.checks], study, "checks", rater)
    placed = list(tasks)
    for number in range(study.plan.design.attention):
        key = checks[number % len(checks)]
        place = 1 + math.floor(_lot(study, "check place", rater, number) * len(placed))
        placed.insert(place, (key, "attention", _lot(study, "check side", rater, number) < 0.5))
    return placed


def _named(study: Study, key: str, kind: str, *, a_left: bool) -> tuple[str, str]:
    first, second = (GOOD, BAD) if kind == "attention" else (study.item_of[key].a, study.item_of[key].b)
    return (first, second) if a_left else (second, first)


def _drawn(keys: Sequence[str], study: Study, *what: str) -> list[str]:
    return sorted(keys, key=lambda key: _lot(study, *what, key))


def _lot(study: Study, *what: str | int) -> float:
    """Return a number in [0, 1) that study, seed, salt and these words decide, the same on every machine."""
    return int(fingerprint(study.plan.seed, study.hash, *filter(None, [study.salt]), *what), 16) / 16**16
