"""The plans and texts of simulated studies: each is written, read, frozen and read again, as a real one is."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gradlab.store.files import write_whole
from gradlab.store.provenance import fingerprint
from gradlab.streams import Purpose, stream
from gradlab.study.frozen import Study, freeze, read_study
from gradlab.study.plan import Analysis, Design, Goal, Plan, Primary
from gradlab.study.texts import json_lines
from gradlab.study.validation.settings import MARGIN, SPREAD, THIRD, WORDS, A, B, Case

GOAL = Goal(name="better", question="Which response is better?")
STRATA = ("first", "second")
_WORD = {A: "one", B: "two", THIRD: "three"}  # of which a system's texts are made: they differ at equal length too


def seed_of(*parts: Any) -> int:
    """Return the seed that these parts name; equal parts give equal seeds on every machine."""
    return int(fingerprint("study validation", *parts), 16)


def plan_of_case(case: Case, seed: int = 0) -> Plan:
    """Return the plan of a case."""
    systems = [A, B, *([] if case.third is None else [THIRD])]
    return Plan(
        title="a simulated study", systems=dict.fromkeys(systems, "samples.jsonl"), goals=(GOAL,),
        primary=Primary(a=A, b=B, goal=GOAL.name, margin=MARGIN), raters=raters_named(case.raters),
        prompts="prompts.jsonl", design=case.design, exclusions=case.exclusions,
        analysis=Analysis(population=case.population), seed=seed % 2**31,
    )  # fmt: skip


def raters_named(number: int) -> tuple[str, ...]:
    """Return so many pseudonyms."""
    return tuple(f"r{place:02d}" for place in range(1, number + 1))


def study_of_case(case: Case, seed: int) -> Study:
    """Return a study of a case; the seed draws the lengths of texts, items and sides."""
    plan = plan_of_case(case, seed)
    draw = stream(seed, Purpose.SIMULATED, 0)
    number = -(-plan.items // len(plan.compared))
    mean = {A: 0.0, B: case.longer, THIRD: 0.0}
    lengths = {
        system: np.maximum(np.exp(np.log(WORDS) + mean[system] + SPREAD * draw.normal(size=number)).round(), 1)
        for system in plan.systems
    }
    texts = {
        f"question {place}": {system: " ".join([_WORD[system]] * int(of[place])) for system, of in lengths.items()}
        for place in range(number)
    }
    strata = {prompt: STRATA[place % 2 if case.opposite else 0] for place, prompt in enumerate(texts)}
    return through_files(plan, texts, strata)


def through_files(plan: Plan, texts: Mapping[str, Mapping[str, str]], strata: Mapping[str, str]) -> Study:
    """Return the study of a plan and texts, (prompt → system → text), by way of all files that a study has."""
    with tempfile.TemporaryDirectory(prefix="gradlab-study-") as held:
        folder = Path(held)
        samples = ({"prompt": prompt, "samples": dict(of)} for prompt, of in texts.items())
        prompts = ({"prompt": prompt, "stratum": name} for prompt, name in strata.items())
        write_whole({folder / "samples.jsonl": json_lines(samples), folder / "prompts.jsonl": json_lines(prompts)})
        plan.write(folder / "plan.toml")
        freeze(Plan.read(folder / "plan.toml"), folder).write(folder / "study.json")
        return read_study(folder / "study.json")


def plan_for(number: int, raters: int, per_item: int, seed: int) -> Plan:
    """Return a plan in which raters see as many of so many prompts as are dealt evenly, in one stratum."""
    return Plan(
        title="a simulated study", systems=dict.fromkeys((A, B), "samples.jsonl"), goals=(GOAL,),
        primary=Primary(a=A, b=B, goal=GOAL.name, margin=MARGIN), raters=raters_named(raters),
        prompts="prompts.jsonl", seed=seed % 2**31,
        design=Design(items_per_rater=number * per_item // raters, raters_per_item=per_item),
    )  # fmt: skip
