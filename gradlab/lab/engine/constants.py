"""How a kernel's constants follow from a loss's hyper-parameters, so that a page can move them without Python.

A trace keeps the numbers of a loss apart from its operations. Each of them is fitted as one short formula in one
hyper-parameter, on a few values, and checked on others. Where no such formula holds there are no laws.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from itertools import product
from typing import Any, NamedTuple

import torch

from gradlab.lab.engine.trace import Trace, derivative
from gradlab.losses import PairLoss
from gradlab.losses.registry import numbers_of

# Places in a slider's range, or multiples of a default without a slider. They are irregular on purpose: no two
# formulas agree on all of them, and none is a special value, such as λ = ½, at which the trace may be another.
_SHARES = (0.37, 0.11, 0.71, 0.94)
_FORMS = (*product((0.0, 1.0), (1.0, -1.0, 2.0, -2.0, 0.5)), (-0.5, -1.0), (0.0, 0.0), (-1.0, 0.0))  # shift and power
_TOLERANCE = 1e-12


class Law(NamedTuple):
    """A constant as factor · (h + shift)^power + offset of one hyper-parameter h; ``name`` is None for a fixed one.

    Power 0 stands for ln |h + shift|.
    """

    name: str | None
    factor: float
    shift: float
    power: float
    offset: float

    def at(self, hyper: Mapping[str, float]) -> float:
        """Return the constant at these hyper-parameters."""
        if self.name is None:
            return self.offset
        return self.factor * _place(hyper[self.name], self.shift, self.power) + self.offset


def laws(loss: PairLoss, dtype: torch.dtype) -> tuple[PairLoss, tuple[Law, ...], dict[str, float]] | None:
    """Return the loss at other hyper-parameters, the laws of its trace's constants, and whom these serve.

    The hyper-parameters of the first have no special value. The laws have the constants' order. The last are the
    hyper-parameters that a page may move, by name, with their values in ``loss``.

    None where a constant follows no law, or where the operations depend on a hyper-parameter. Raises NotFusable as
    ``derivative`` does.
    """
    values = _values(loss)
    if values is None:
        return None
    middle = {name: tried[0] for name, tried in values.items()}
    traced = _traced(loss, middle, dtype)
    if traced is None:
        return None
    trace, constants = traced
    found: list[Law] = [Law(None, 0.0, 0.0, 1.0, constant) for constant in constants]
    for name, tried in values.items():
        moved = [traced, *(_traced(loss, {**middle, name: value}, dtype) for value in tried[1:])]
        if any(one is None or one[0] != trace for one in moved):
            return None
        for number, constant in enumerate(constants):
            outcomes = [one[1][number] for one in moved if one is not None]
            if all(outcome == constant for outcome in outcomes):
                continue
            law = _fitted(name, tried, outcomes)
            if law is None or found[number].name is not None:
                return None
            found[number] = law
    general = replace(loss, **middle)  # type: ignore[type-var]
    served = {name: numbers_of(loss)[name] for name in values}
    return (general, tuple(found), served) if _holds(loss, values, found, trace, dtype) else None


def _values(loss: PairLoss) -> dict[str, list[float]] | None:
    """Return several values of every hyper-parameter that is a real number; None for a loss that has no such fields."""
    if not is_dataclass(loss):
        return None
    values = {}
    known = numbers_of(loss)
    for field in fields(loss):
        default, slider = known.get(field.name), field.metadata.get("slider")
        if not isinstance(default, float):
            continue  # a page does not move switches and whole numbers
        if slider is None:
            values[field.name] = [default * 2 * share for share in _SHARES]
        else:
            places = [slider.low + (slider.high - slider.low) * share for share in _SHARES]
            values[field.name] = [10**place if slider.log else place for place in places]
    return values


def _traced(loss: Any, hyper: Mapping[str, float], dtype: torch.dtype) -> tuple[Trace, list[float]] | None:
    """Return trace and constants at these hyper-parameters; None where the loss does not take them."""
    try:
        return derivative(replace(loss, **hyper), dtype)
    except (ValueError, TypeError):
        return None


def _fitted(name: str, values: list[float], outcomes: list[float]) -> Law | None:
    """Return the law that all outcomes obey; its factor and offset come from two of them."""
    for shift, power in _FORMS:
        if any(value + shift == 0 or (value + shift < 0 and power % 1) for value in values):
            continue
        places = [_place(value, shift, power) for value in values]
        factor = _round((outcomes[1] - outcomes[0]) / (places[1] - places[0]))
        law = Law(name, factor, shift, power, _round(outcomes[0] - factor * places[0]))
        if all(_near(law.at({name: value}), outcome) for value, outcome in zip(values, outcomes, strict=True)):
            return law
    return None


def _place(value: float, shift: float, power: float) -> float:
    """Return (value + shift)^power; for power 0, ln |value + shift|."""
    return math.log(abs(value + shift)) if power == 0 else (value + shift) ** power


def _holds(
    loss: PairLoss, values: Mapping[str, list[float]], found: list[Law], trace: Trace, dtype: torch.dtype
) -> bool:
    """Say whether the laws hold where all hyper-parameters move at once."""

    def points() -> Iterator[dict[str, float]]:
        for at in range(1, len(_SHARES)):
            yield {name: tried[(at + number) % len(tried)] for number, (name, tried) in enumerate(values.items())}

    for hyper in points():
        traced = _traced(loss, hyper, dtype)
        if traced is None or traced[0] != trace:
            return False
        if not all(_near(law.at(hyper), constant) for law, constant in zip(found, traced[1], strict=True)):
            return False
    return True


def _round(value: float) -> float:
    """Return the short number that rounding has moved this one away from, if there is one."""
    short = round(value, 9)
    return short if _near(short, value) else value


def _near(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
