"""A look before a study's end: widths and counts that say whether it may stop, and never which system is ahead."""

from __future__ import annotations

from dataclasses import dataclass

from gradlab.study.answers import Answers
from gradlab.study.assignment import assign
from gradlab.study.results import Results


@dataclass(frozen=True)
class Interim:
    """The facts that may be known before the end of a study; exchanging all answers between the systems changes none.

    may_stop    whether the plan's stop rule is met. reason: why, or why not, in words.
    half_width  half the width of the primary interval, NaN where nobody has answered.
    wanted      the half-width at which the rule ends the study; None for ``fixed``.
    items, of   items of the primary question that are answered by raters who count, and all of them.
    open        tasks of raters, repeats and attention checks not counted, that lack an answer to a goal.
    """

    may_stop: bool
    reason: str
    half_width: float
    wanted: float | None
    items: int
    of: int
    open: int


def interim(answers: Answers) -> Interim:
    """Return whether the plan's rule lets the study stop, by the answers so far.

    ``fixed``: when every item is answered. ``precision``: when the half-width is at most ``stop.half_width`` with
    ``stop.least_items`` items answered, or when every item is answered. Repeats and attention checks do not count.
    Where raters are a sample of others, answers of two or more must count: an interval of one rater's is of prompts
    alone. Source: ours.
    """
    results, plan, stop = Results(answers), answers.study.plan, answers.study.plan.stop
    primary = plan.primary
    rate = results.rate(primary.a, primary.b, primary.goal)
    half = (rate.high - rate.low) / 2
    counted = results.of(primary.a, primary.b, primary.goal)
    items = int(counted.loc[counted["score"].notna(), "item"].nunique())
    of = sum((item.a, item.b) == (primary.a, primary.b) for item in answers.study.shown)
    left = _open_tasks(answers)
    may_stop, reason = True, "every item is answered by all its raters"
    if left:
        may_stop, reason = False, f"{left} tasks are open"
        if stop.rule == "precision" and stop.half_width is not None:
            width = f"the half-width of the primary interval is {half:.1%}, and at most {stop.half_width:.1%} is wanted"
            first = None
            if items < stop.least_items:
                first = f"{items} items are answered, and {stop.least_items} are needed first"
            elif rate.raters < 2 and plan.analysis.population == "like these":
                first = "one rater's answers count, and those of a second are needed first for raters like these"
            may_stop, reason = first is None and half <= stop.half_width, first or width
    return Interim(may_stop, reason, half, stop.half_width, items, of, left)


def interim_in_words(look: Interim) -> str:
    """Return a look as one line that says nothing about the direction."""
    word = "The study may stop" if look.may_stop else "The study goes on"
    return f"{word}: {look.reason}; {look.items} of {look.of} items of the primary question have answers that count."


def _open_tasks(answers: Answers) -> int:
    """Return how many first showings of items to people lack an answer to one of the goals; a skip is an answer."""
    plan, given = answers.study.plan, answers.of("item").groupby(["rater", "place"])["goal"].nunique().to_dict()
    return sum(
        given.get((rater, task.place), 0) < len(plan.goals)
        for rater, tasks in assign(answers.study).items() if rater in plan.raters
        for task in tasks if task.kind == "item"
    )  # fmt: skip
