"""The expected truths of a case, by quadrature: what its intervals should cover."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from functools import cache

import numpy as np
import pandas as pd

from gradlab.study.raters import RaterModel
from gradlab.study.strengths import strengths
from gradlab.study.validation.settings import SPREAD, THIRD, A, B, Case

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(21)  # of a standard normal's expectation
_ROWS = 20_000  # answers per pair of systems that stand for a population


def worth_of(case: Case) -> float:
    """Return the log odds by which b is better than a."""
    return case.model.worth_of(0.5 + case.effect)


@cache
def truths(case: Case) -> dict[str, float]:
    """Return the expected ``win-rate``, that at ``equal length``, and ``left`` over right, of careful raters.

    For three systems also ``strength NAME``: the strength that the same estimate finds from the population of answers.
    """
    return {**_rates(case.model, worth_of(case), case.longer), **({} if case.third is None else _strengths(case))}


def truths_of(case: Case, leaning: Mapping[str, float], answers: Mapping[str, int]) -> dict[str, float]:
    """Return the expected rates of these very raters, by how much each leans to b and how many answers each gave."""
    alone = dataclasses.replace(case.model, raters=0.0)
    each = {rater: _rates(alone, worth_of(case) + leaning[rater], case.longer) for rater in answers}
    total = sum(answers.values())
    return {
        name: sum(number * each[rater][name] for rater, number in answers.items()) / total
        for name in ("win-rate", "equal length", "left")
    }


def _rates(model: RaterModel, worth: float, longer: float) -> dict[str, float]:
    weights = _WEIGHTS / _WEIGHTS.sum()
    more = longer + math.sqrt(2) * SPREAD * _NODES  # of two lengths that are drawn independently
    level = dataclasses.replace(model, position=0.0)
    on_left, on_right = (
        float(weights @ [level.expected(worth + side * model.position / 2, value) for value in more])
        for side in (1, -1)
    )
    return {
        "win-rate": (on_left + on_right) / 2, "equal length": model.expected(worth),
        "left": 0.5 + (on_left - on_right) / 2,
    }  # fmt: skip


def _strengths(case: Case) -> dict[str, float]:
    worth = {A: 0.0, B: worth_of(case), THIRD: case.third or 0.0}
    rows = []
    for a, b in ((A, B), (A, THIRD), (B, THIRD)):
        for chance, score in zip(case.model.chances(worth[b] - worth[a]), (1.0, 0.5, 0.0), strict=True):
            rows += [{"a": a, "b": b, "score": score, "rater": 0, "prompt": 0}] * round(_ROWS * chance)
    frame, _ = strengths(pd.DataFrame(rows), list(worth))
    return {f"strength {row.system}": float(row.strength) for row in frame.itertuples()}  # type: ignore[arg-type]
