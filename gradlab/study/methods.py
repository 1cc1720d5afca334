"""The methods of a study in sentences, ready for a paper; its verdict as a sentence, and cautions to read beside it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable

import pandas as pd

from gradlab.study.assignment import Kind, assign
from gradlab.study.frozen import Study
from gradlab.study.plan import Plan
from gradlab.study.rates import Rate
from gradlab.study.results import Results
from gradlab.study.stopping import interim

WORDS = {
    "holds throughout": "{b} is preferred, beyond the margin in at least 95% of the strata, and reversed in none",
    "holds on average": "{b} is preferred on average",
    "reversed": "{a} is preferred, and not {b}",
    "no practical difference": "Neither is preferred: the difference is smaller than the margin",
    "mixed": "{b} is preferred in some strata and {a} in others, each beyond the margin",
    "undecided": "The answers do not decide it",
    "not run": "Nobody has answered the primary question yet",
}

BEYOND = "One system's response was the longer one in every answer: a rate at equal length goes beyond what was rated."


def methods(results: Results) -> str:
    """Return the paragraph on methods."""
    plan, study = results.plan, results.answers.study
    design, primary = plan.design, plan.primary
    systems = " and ".join([", ".join([*plan.systems][:-1]), [*plan.systems][-1]])
    goal = next(goal for goal in plan.goals if goal.name == primary.goal)
    sentences = [
        f"{_who(results)} compared responses of {systems} to {_first_seen(results)['prompt'].nunique()} prompts, "
        f"two at a time and blind.",
        _identical(study),
        f"The plan was frozen before the first answer (SHA-256 {study.hash[:16]}…), and each answer carries its hash.",
        _assigned(results),
        _seen(results),
        _shown_beside(results, "repeat", "item", "were to come back with sides exchanged"),
        _shown_beside(results, "attention", "attention check", "were to stand among them"),
        _given(results),
        f"Raters could {'call both equally good, or ' if design.ties else ''}skip an item.",
        f"The primary question was {goal.question!r}, of {primary.b} against {primary.a}, with a margin of "
        f"{primary.margin:.1%} beyond one half.",
        f"The win-rate is the mean over prompts, ties as one half; its 95% interval treats {_samples(plan)}, with "
        "variance components by moments and Satterthwaite's degrees of freedom.",
        "Verdicts follow from the interval by fixed rules: a difference from one half by a t test at 5%, equivalence "
        "by two one-sided tests at the margin.",
        "Other goals and pairs of systems are secondary, with Holm's correction over them."
        if len(results.rates) > 1 else "",
        _left_out(results),
        _stop(plan),
    ]  # fmt: skip
    return " ".join(sentence for sentence in sentences if sentence)


def verdict_in_words(results: Results) -> str:
    """Return the verdict as one sentence."""
    verdict, primary = results.verdict, results.plan.primary
    if verdict.word == "not run" and (raters := results.answered):
        return f"No answer counts: the plan's rules leave out all {raters} raters who answered."
    words = WORDS[verdict.word].format(a=primary.a, b=primary.b)
    numbers = f" ({rate_in_words(verdict.rate)})" if verdict.rate.answers else ""
    return f"{words}{numbers}."


def rate_in_words(rate: Rate) -> str:
    """Return a rate with its interval and what it rests on."""
    if not rate.answers or math.isnan(rate.rate):
        return "no answers"
    return f"{rate.rate:.1%} [{rate.low:.1%}, {rate.high:.1%}], {rate.raters} raters, {rate.prompts} prompts"


def cautions(results: Results) -> list[str]:
    """Return what a reader must know beside the verdict: leanings, disagreement, carelessness, few raters."""
    if not results.verdict.rate.answers:
        return []
    return [*_before_the_end(results), *(said for caution in CAUTIONS.values() for said in caution(results))]


def _before_the_end(results: Results) -> list[str]:
    look = interim(results.answers)
    if look.may_stop:
        return []
    return [
        f"The study has not ended by the plan's rule ({look.reason}): this is a look before the end, and a study that "
        "ends where a look pleases shows nothing."
    ]


def _on_sides(results: Results) -> list[str]:
    left = results.left
    if left.low <= 0.5 <= left.high:
        return []
    side = "left" if left.rate > 0.5 else "right"
    return [
        f"Raters lean to the {side} side ({rate_in_words(left)}); sides were drawn, so that this adds noise and no "
        "bias."
    ]


def _on_length(results: Results) -> list[str]:
    length = results.equal_length
    if math.isnan(length.slope) or length.low <= 0 <= length.high:
        return []
    longer = "longer" if length.slope > 0 else "shorter"
    said = [
        f"Raters lean to {longer} responses; if both were equally long, the win-rate would be "
        f"{rate_in_words(length.rate)}."
    ]
    if length.beyond:
        said.append(BEYOND)
    if (length.rate.rate - 0.5) * (results.verdict.rate.rate - 0.5) < 0:
        said.append("At equal length the preference points the other way: length decides here.")
    return said


def _on_drift(results: Results) -> list[str]:
    drift, b = results.drift, results.plan.primary.b
    if math.isnan(drift.low) or drift.low <= 0 <= drift.high:
        return []
    return [
        f"Answers change along the lists: by a straight line, {b} was preferred in {drift.start:.1%} of comparisons "
        f"at the beginning and in {drift.end:.1%} at the end (change [{drift.low:+.1%}, {drift.high:+.1%}]). Tired "
        "raters answer at random, which draws the win-rate towards one half."
    ]


def _on_agreement(results: Results) -> list[str]:
    return [
        f"Raters hardly agree on {one.goal}: α {one.alpha:.2f} [{one.low:.2f}, {one.high:.2f}] over {one.items} items."
        for one in results.agreement
        if one.alpha < 0.2 and not math.isnan(one.low)
    ]


def _on_raters(results: Results) -> list[str]:
    raters = results.verdict.rate.raters
    if raters >= 5 or results.plan.analysis.population != "like these":
        return []
    if raters == 1:
        return ["One rater says nothing about others: the interval is of prompts alone, and holds for this rater."]
    return [f"{raters} raters say little about others; the interval is as wide as that makes it."]


def _on_choices(results: Results) -> list[str]:
    moved = results.sensitivity.iloc[1:]
    other = moved[(moved["rate"] - 0.5) * (results.verdict.rate.rate - 0.5) < 0]
    return [f"With another choice ({choice}) the sign turns." for choice in other["choice"]]


CAUTIONS: dict[str, Callable[[Results], list[str]]] = {
    "sides": _on_sides, "length": _on_length, "drift": _on_drift, "agreement": _on_agreement, "raters": _on_raters,
    "choices": _on_choices,
}  # fmt: skip
"""The parts of ``cautions`` by name; each returns sentences where there is something to say."""


def _who(results: Results) -> str:
    """Return how many of the plan's raters answered."""
    of, came = len(results.plan.raters), int((results.conduct.frame["items"] > 0).sum())
    return f"{of} raters" if came == of else f"{came} of {of} raters"


def _identical(study: Study) -> str:
    """Return how many items nobody was to see, as both their texts are the same."""
    number = len(study.items) - len(study.shown)
    return f"Identical texts, of {_number(number, 'item')}, count as ties and were shown to nobody." if number else ""


def _first_seen(results: Results) -> pd.DataFrame:
    """Return people's first answers to each item, skips too, one row per rater and item: each has seen the item."""
    items = results.answers.of("item")
    return items[~items["judge"]].drop_duplicates(["rater", "place"])


def _tasks(results: Results, kind: Kind) -> dict[str, list[str]]:
    """Return the items or checks of one kind of task that each rater was assigned."""
    lists = assign(results.answers.study)
    return {rater: [task.item for task in lists[rater] if task.kind == kind] for rater in results.plan.raters}


def _assigned(results: Results) -> str:
    """Return how many items raters were assigned, and how sides were drawn: a single rater has one side per item."""
    design = results.plan.design
    balanced = f", balanced over the raters of {design.both_orders:.0%} of the items"
    of_raters = _tasks(results, "item")
    of_items = Counter(item for items in of_raters.values() for item in items)
    return (
        f"Each rater was assigned {_range(map(len, of_raters.values()), 'item')}, each item to "
        f"{_range(of_items.values(), 'rater')}; sides were drawn per rater and item"
        f"{balanced if design.raters_per_item > 1 and design.both_orders else ''}."
    )


def _seen(results: Results) -> str:
    """Return what the raters saw who came, and how many items were seen in both orders."""
    seen = _first_seen(results)
    if seen.empty:
        return ""
    by_item, shown = seen.groupby("item"), [item.key for item in results.answers.study.shown]
    raters = by_item["rater"].nunique().reindex(shown, fill_value=0)
    both = int((by_item["b_left"].nunique() == 2).sum())
    return (
        f"Those who answered saw {_range(seen.groupby('rater').size(), 'item')} each; each item was seen by "
        f"{_range(raters, 'rater')}, {both / len(shown):.0%} of the items in both orders."
    )


def _shown_beside(results: Results, kind: Kind, noun: str, words: str) -> str:
    """Return how many repeats or attention checks per rater there were, and how many were answered."""
    each = [len(tasks) for tasks in _tasks(results, kind).values()]
    given = results.answers.of(kind)
    answered = len(given[~given["judge"]].drop_duplicates(["rater", "place"]))
    return f"{_range(each, noun)} per rater {words}; {answered} of {sum(each)} were answered." if any(each) else ""


def _range(numbers: Iterable[int], noun: str) -> str:
    """Return the least and the greatest of some numbers, with the noun that they count."""
    every = [*numbers]
    least, most = min(every), max(every)
    return f"{least} to {_number(most, noun)}" if least < most else _number(most, noun)


def _number(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _given(results: Results) -> str:
    """Return how many of the planned answers of people came in, and how many of them are skips."""
    plan, items = results.plan, results.answers.of("item")
    given = items[~items["judge"]]
    of = len(plan.goals) * sum(map(len, _tasks(results, "item").values()))
    skips = int((given["choice"] == "skip").sum())
    return f"{len(given):,} of {of:,} answers to items were given, {skips:,} of them skips."


def _samples(plan: Plan) -> str:
    if plan.analysis.population == "like these":
        return "raters and prompts as samples, crossed with one another"
    return "prompts as a sample, and these raters as all there are"


def _left_out(results: Results) -> str:
    frame = results.conduct.frame
    out = frame[frame["left_out"] != ""]
    if out.empty:
        return "No rater was left out by the plan's rules."
    reasons = "; ".join(f"{row.rater} {row.left_out}" for row in out.itertuples())
    return f"By the plan's rules {len(out)} of {len(frame)} raters were left out ({reasons})."


def _stop(plan: Plan) -> str:
    if plan.stop.rule == "fixed":
        return "The number of items was fixed beforehand."
    return (
        f"The study was to end when the half-width of the primary interval was at most {plan.stop.half_width:.1%}, or "
        "the items were used up; the rule sees widths, never signs."
    )
