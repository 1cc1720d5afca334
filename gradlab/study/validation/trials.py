"""Simulated studies of a case, each from its frozen plan to its verdict, and their findings."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from gradlab.store.files import write_whole
from gradlab.study.answers import Answers, read_answers
from gradlab.study.frozen import Study
from gradlab.study.items import StudyItem
from gradlab.study.methods import CAUTIONS
from gradlab.study.planned_power import power
from gradlab.study.raters import people, simulated
from gradlab.study.rates import Rate
from gradlab.study.results import Results
from gradlab.study.texts import json_lines
from gradlab.study.validation.plans import STRATA, plan_of_case, seed_of, study_of_case
from gradlab.study.validation.settings import THIRD, A, B, Case
from gradlab.study.validation.truths import truths, truths_of, worth_of

STUDY = "study"  # the kind of a row on the study as a whole


def trials(case: Case, first: int, number: int, per_study: int, seed: int) -> pd.DataFrame:
    """Return what so many simulated studies of a case found, from the ``first`` on.

    per_study  simulations that share a frozen study, with its texts and lists.

    Per study there is a row of ``kind`` ``study``: ``word`` of the verdict, ``beyond`` (1 where the interval lies
    beyond the margin), ``careless`` raters and ``caught`` ones, ``careful`` raters who are left out, and ``warned``,
    the names of the cautions that said something. And a row per interval, of kind ``win-rate``, ``equal length``,
    ``left`` or ``strength NAME``: ``estimate``, ``low``, ``high``, ``truth``.
    """
    rows = []
    for block in range(first, first + number, per_study):
        study = study_of_case(case, seed_of(seed, case.name, "study", block))
        for place in range(block, min(block + per_study, first + number)):
            found = _trial(case, study, seed_of(seed, case.name, "answers", place))
            rows += [{"case": case.name, "number": place, **row} for row in found]
    return pd.DataFrame(rows)


def answered(study: Study, answers: list[dict[str, Any]]) -> Answers:
    """Return answers as they are read from a file."""
    with tempfile.TemporaryDirectory(prefix="gradlab-study-") as held:
        file = Path(held) / "answers.jsonl"
        write_whole({file: json_lines(answers)})
        return read_answers(study, [file])


def promised(case: Case, simulations: int, seed: int) -> pd.DataFrame:
    """Return what ``power`` promises for a case, in one row."""
    table = power(
        plan_of_case(case), effects=[case.effect], simulations=simulations, model=case.model,
        seed=seed_of(seed, case.name, "power"),
    ).frame  # fmt: skip
    return table.assign(case=case.name)


def _trial(case: Case, study: Study, seed: int) -> list[dict[str, Any]]:
    results = Results(answered(study, simulated(study, _worth(case), case.model, seed)))
    leaning, careless = people(study.plan.raters, case.model, seed)
    truth = truths(case)
    if case.population == "these":
        number = results.items["rater"].value_counts()
        truth = truths_of(case, leaning, {str(rater): int(count) for rater, count in number.items()})
    verdict, out = results.verdict, set(results.conduct.out)
    warned = [name for name in case.biases if CAUTIONS[name](results)]
    whole = {
        "kind": STUDY, "word": verdict.word, "warned": " ".join(warned),
        "beyond": float(verdict.rate.low > 0.5 + verdict.margin),
        "careless": float(sum(careless.values())),
        "caught": float(sum(careless[rater] for rater in out)),
        "careful": float(sum(not careless[rater] for rater in out)),
    }  # fmt: skip
    rates: dict[str, Rate] = {
        "win-rate": verdict.rate, "equal length": results.equal_length.rate, "left": results.left,
    }  # fmt: skip
    found = [(name, rate.rate, rate.low, rate.high) for name, rate in rates.items()]
    if case.third is not None:
        frame, _ = results.strengths[study.plan.primary.goal]
        found += [
            (f"strength {row['system']}", row["strength"], row["low"], row["high"]) for row in frame.to_dict("records")
        ]
    return [whole, *(
        {"kind": name, "estimate": float(value), "low": float(low), "high": float(high), "truth": truth[name]}
        for name, value, low, high in found
    )]  # fmt: skip


def _worth(case: Case) -> dict[str, float] | Callable[[StudyItem], float]:
    worth = worth_of(case)
    if case.opposite:
        return lambda item: worth if item.stratum == STRATA[0] else -worth
    return {A: 0.0, B: worth, **({} if case.third is None else {THIRD: case.third})}
