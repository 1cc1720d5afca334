"""The items of a study: prompts with two systems' texts, read from files of samples; and attention checks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, takewhile
from pathlib import Path
from typing import Any

from gradlab.store.json_lines import read_lines
from gradlab.store.provenance import fingerprint
from gradlab.study.plan import Plan
from gradlab.study.texts import LONGEST_NOTE, check_spellings, quoted, readable, telling

SAMPLES = (
    "a file of samples has one JSON object per line: a prompt, and samples: {system: text, …} or the response alone"
)
PROMPTS = "a file of prompts has one JSON object per line, with prompt and stratum"
ONE = "all prompts"  # the stratum of a plan without a file of prompts


@dataclass(frozen=True)
class StudyItem:
    """An item: a prompt, and the texts of the systems a and b."""

    key: str
    """A hash of prompt, systems and texts: an answer holds for the texts that the rater saw, and for no others."""
    prompt: str
    stratum: str
    a: str
    b: str
    text_a: str
    text_b: str

    @property
    def texts(self) -> dict[str, str]:
        """Return the text of each system."""
        return {self.a: self.text_a, self.b: self.text_b}

    @property
    def identical(self) -> bool:
        """Return whether both texts look alike: white space at their ends is not seen."""
        return self.text_a.strip() == self.text_b.strip()


@dataclass(frozen=True)
class AttentionCheck:
    """A check of attention: a prompt with an answer that fits it, and one that nobody who reads can prefer."""

    prompt: str
    good: str
    bad: str

    @property
    def key(self) -> str:
        """Return the key that stands in answers."""
        return fingerprint("attention", self.prompt, self.good, self.bad)


CHECKS = (
    AttentionCheck(
        "How many days does a week have?",
        "A week has seven days, from Monday to Sunday.",
        "The harbour closes when the wind turns, so bring the green ladder.",
    ),
    AttentionCheck(
        "What should I do if a pan on the stove catches fire?",
        "Turn off the heat and put a lid on the pan. Never pour water on burning oil. If it spreads, leave the room.",
        "stove stove stove pan the the stove pan pan the stove the",
    ),
    AttentionCheck(
        "Write one sentence about the sea.",
        "In the early light the sea lay so still that the boats seemed to hang in the air.",
        "This page was left empty by mistake; please select the other response.",
    ),
    AttentionCheck(
        "What is the opposite of north?",
        "The opposite of north is south.",
        "Seven of them were blue and the rest had never been counted.",
    ),
    AttentionCheck(
        "How do I boil an egg?",
        "Lower the egg into boiling water and wait seven minutes for a soft yolk, or ten for a firm one; then cool it.",
        "egg? egg! ... eg gegg ge gge geg",
    ),
    AttentionCheck(
        "Name a fruit that is usually yellow.",
        "A banana is usually yellow.",
        "According to the timetable, the second tram leaves before the first one has been built.",
    ),
)


def items_of(plan: Plan, sources: Mapping[str, Path | str], prompts: Path | str | None = None) -> list[StudyItem]:
    """Return the items that the plan's raters see, chosen by its seed, and balanced over pairs and strata.

    sources  the file of samples of each system. prompts: the plan's file of prompts.

    Each chosen prompt is used for all pairs of systems that are compared, and strata take turns. Items with
    identical texts, where the plan counts them as ties, come last and beyond ``plan.items``: those that the draw meets
    on its way to as many different ones, so that each stratum and pair has its own share of them.

    ValueError or OSError in one line: for samples that reveal their system, for identical ones where the plan refuses
    them, for prompts that stand twice or differ only in white space, for texts that nobody could read, and for fewer
    items than the raters need.
    """
    texts = {system: samples_of(system, source) for system, source in sources.items()}
    strata = strata_of(prompts) if prompts is not None else None
    check_spellings([*((sources[system], by) for system, by in texts.items()), (prompts, strata or ())])
    shared = [prompt for prompt in next(iter(texts.values())) if all(prompt in by for by in texts.values())]
    if strata is not None:
        shared = [prompt for prompt in shared if prompt in strata]
    items = [
        StudyItem(
            fingerprint(prompt, sorted([[a, texts[a][prompt]], [b, texts[b][prompt]]])), prompt,
            strata[prompt] if strata is not None else ONE, a, b, texts[a][prompt], texts[b][prompt],
        )
        for prompt in _in_turn(shared, strata, plan.seed) for a, b in plan.compared
    ]  # fmt: skip
    for item in items:
        _check_blind(item, [*plan.systems])
    same = [item for item in items if item.identical]
    if same and plan.design.identical == "refuse":
        raise ValueError(
            f"samples must differ: {len(same)} of {len(items)} items have the same text from both systems, the first "
            f"from {same[0].a} and {same[0].b} for {quoted(same[0].prompt)}; remove these prompts, or set "
            'design.identical to "tie"'
        )
    different = [item for item in items if not item.identical]
    check_number(plan, len(different), len(shared))
    if plan.items == len(different):
        return different + same
    met = takewhile(lambda item: item is not different[plan.items], items)
    return different[: plan.items] + [item for item in met if item.identical]


def check_number(plan: Plan, items: int, prompts: int) -> None:
    """Raise ValueError where so many items, from so many prompts, are fewer than the plan's raters need."""
    if items < plan.items:
        raise ValueError(
            f"systems must share enough prompts: {len(plan.raters)} raters with {plan.design.items_per_rater} items, "
            f"{plan.design.raters_per_item} raters per item, need {plan.items} items, and there are {items} "
            f"({prompts} prompts, {len(plan.compared)} pairs of systems)"
        )


def words(text: str) -> int:
    """Return the number of words of a text, by which lengths are compared."""
    return len(text.split())


def samples_of(system: str, source: Path | str) -> dict[str, str]:
    """Return a system's text for each prompt of a file of samples."""
    lines, torn = read_lines(source, SAMPLES)
    if torn:
        raise ValueError(f"{source} ends within a line; {SAMPLES}")
    texts: dict[str, str] = {}
    for number, line in lines:
        place = f"{source}, line {number}"
        if "prompt" not in line and "samples" not in line and "response" not in line:
            continue  # a line about the file
        prompt, text = line.get("prompt"), _text(line, system)
        if text is None:
            continue
        prompt = readable(f"{place}: prompt", prompt)
        text = readable(f"{place}: the sample of {system!r}", text)
        _check_first(prompt, texts, place)
        texts[prompt] = text
    if not texts:
        raise ValueError(f"{source} must hold samples of {system!r}, and holds none; {SAMPLES}")
    return texts


def _text(line: Mapping[str, Any], system: str) -> Any:
    samples = line.get("samples")
    if isinstance(samples, Mapping):
        return samples.get(system)
    return line.get("response")


def strata_of(path: Path | str) -> dict[str, str]:
    """Return the stratum of each prompt in a file of prompts."""
    lines, torn = read_lines(path, PROMPTS)
    if torn:
        raise ValueError(f"{path} ends within a line; {PROMPTS}")
    strata: dict[str, str] = {}
    for number, line in lines:
        place = f"{path}, line {number}"
        prompt = readable(f"{place}: prompt", line.get("prompt"))
        stratum = readable(f"{place}: stratum", line.get("stratum"), LONGEST_NOTE)
        _check_first(prompt, strata, place)
        strata[prompt] = stratum.strip()
    return strata


def _in_turn(prompts: Iterable[str], strata: Mapping[str, str] | None, seed: int) -> list[str]:
    """Return the prompts in an order that the seed decides, in which the strata take turns as long as they last."""
    drawn = sorted(prompts, key=lambda prompt: fingerprint("items", seed, prompt))
    by_stratum: dict[str, list[str]] = {}
    for prompt in drawn:
        by_stratum.setdefault(strata[prompt] if strata is not None else ONE, []).append(prompt)
    names = cycle(sorted(by_stratum))
    ordered: list[str] = []
    while len(ordered) < len(drawn):
        left = by_stratum[next(names)]
        if left:
            ordered.append(left.pop(0))
    return ordered


def _check_first(prompt: str, former: Iterable[str], place: str) -> None:
    """Raise ValueError where a prompt of a file has stood in a line above."""
    if prompt in former:
        raise ValueError(f"{place} has a prompt that stands above already: {quoted(prompt)}")


def _check_blind(item: StudyItem, systems: Sequence[str]) -> None:
    """Raise ValueError where a text tells a rater which system wrote it."""
    for system, text in item.texts.items():
        told = telling(text, systems)
        if told is not None:
            raise ValueError(
                f"samples must not reveal their system: {system}'s text for {quoted(item.prompt)} {told}; remove the "
                "prompt or the label, or call the system otherwise if the word is an ordinary one"
            )
