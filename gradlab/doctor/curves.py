"""A training log in numbers, as the doctor's rules read it: curves, facts about the loss, and the loss's start."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from gradlab.doctor.findings import Unjudged
from gradlab.doctor.log_columns import PPO_COLUMNS, is_known, is_loss
from gradlab.doctor.loss_facts import LossFacts, loss_facts
from gradlab.doctor.thresholds import LATE, START_PROBLEM
from gradlab.doctor.training_log import positive_number

LN2 = math.log(2)


class Curve(NamedTuple):
    """The finite values of a column, with their steps."""

    steps: np.ndarray
    values: np.ndarray

    def after(self, step: float) -> Curve:
        """Return the part of the curve after a step."""
        later = self.steps > step
        return Curve(self.steps[later], self.values[later])

    def last(self, number: int) -> Curve:
        """Return the last rows."""
        return Curve(self.steps[-number:], self.values[-number:])

    def late(self) -> Curve:
        """Return the last part, of ``tail`` rows."""
        return self.last(tail(len(self.steps)))

    def where(self) -> str:
        """Return the range of the steps, in words."""
        first, last = step_text(self.steps[0]), step_text(self.steps[-1])
        return f"step {last}" if first == last else f"steps {first} to {last}"


# Columns that a log of given responses may have too: at TRL, the entropy of every training, and KTO's KL.
_OF_GIVEN_RESPONSES = {"entropy", "kl"}


@dataclass(frozen=True)
class Log:
    """A log in numbers: its known columns, by step, and the settings and notes of ``read_log``."""

    columns: Mapping[str, np.ndarray]
    steps: np.ndarray
    settings: Mapping[str, Any]
    notes: Sequence[str]
    not_finite: Mapping[str, str]
    other_losses: Mapping[str, np.ndarray]
    """Columns that gradlab does not know, and whose names say that they are losses."""
    unknown: Sequence[str]
    """The names of all columns that gradlab does not know."""

    @classmethod
    def of(cls, log: pd.DataFrame, which: str = "log") -> Log:
        """Return the log's known columns as floats, in the order of the steps.

        ValueError, with the name ``which``, for a frame without steps, and for steps that are not whole numbers.
        """
        if "step" not in log:
            raise ValueError(f"{which} must have a column step, got {', '.join(map(str, log.columns)) or 'none'}")
        steps = whole_steps(f"steps of {which}", _floats(log, "step"))
        order = np.argsort(steps, kind="stable")
        order = order[np.isfinite(steps[order])]
        names = [name for name in dict.fromkeys(log.columns) if isinstance(name, str)]
        known = [name for name in names if is_known(name)]
        unknown = [name for name in names if not is_known(name)]
        settings, notes, not_finite = (log.attrs.get(name) for name in ("settings", "notes", "not_finite"))
        return cls(
            columns={name: _floats(log, name)[order] for name in known if name != "step"},
            steps=steps[order],
            settings=settings if isinstance(settings, dict) else {},
            notes=[str(note) for note in notes] if isinstance(notes, list) else [],
            not_finite=not_finite if isinstance(not_finite, dict) else {},
            other_losses={name: _floats(log, name)[order] for name in unknown if is_loss(name)},
            unknown=unknown,
        )

    def curve(self, name: str) -> Curve:
        """Return the finite values of a column; empty where the log has none."""
        values = self.columns.get(name, np.full(len(self.steps), math.nan))
        there = np.isfinite(values)
        return Curve(self.steps[there], values[there])

    def need(self, name: str, least: int) -> Curve:
        """Return a column's curve; raise ``Unjudged`` where it has fewer than ``least`` values."""
        curve = self.curve(name)
        if not len(curve.steps):
            raise Unjudged(f"the log has no {name}")
        if len(curve.steps) < least:
            raise Unjudged(f"the log has {len(curve.steps)} of {name}; {least} are needed")
        return curve

    def number(self, key: str) -> float | None:
        """Return a positive number from the settings, or None."""
        return positive_number(self.settings.get(key))

    def share(self, key: str) -> float | None:
        """Return a number from 0 to 1 from the settings, or None."""
        value = self.settings.get(key)
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return None
        return float(value) if 0 <= value <= 1 else None

    @property
    def samples(self) -> bool:
        """Return whether the training is known to sample responses: by its loss, or by columns of samples alone."""
        sampled = PPO_COLUMNS.keys() - _OF_GIVEN_RESPONSES
        return self.loss == "ppo" or any(
            len(self.curve(name).steps) for name in self.columns if name.removeprefix("validation_") in sampled
        )

    @property
    def loss(self) -> str | None:
        """Return the loss's name in lower case, or None where the settings do not say it."""
        name = self.settings.get("loss")
        return name.lower() if isinstance(name, str) else None

    @functools.cached_property
    def facts(self) -> LossFacts:
        """Return the facts about the loss."""
        return loss_facts(self.settings)

    def start(self) -> tuple[float, str] | None:
        """Return the loss at π = π_ref by the settings, and its name in words; None where it is not known."""
        value, equation = self.facts.start_value, self.facts.start_equation
        if value is None or self._starts_elsewhere:
            return None
        plain = f"{value:.4g}"
        return value, "ln 2" if value == LN2 else f"{equation} = {plain}" if equation not in ("", plain) else plain

    @property
    def _starts_elsewhere(self) -> bool:
        """Return whether the settings name another model as the start than as the reference."""
        start, reference = (self.settings.get(name) for name in ("start", "reference"))
        return start is not None and reference is not None and start != reference

    def supposed_start(self) -> tuple[float, str] | None:
        """Return ``start``; where the settings do not say it, ln 2 if the log begins near ln 2."""
        known = self.start()
        first = self.curve("loss").values[:1]
        if known or self._starts_elsewhere or self.facts.logistic is False or not len(first):
            return known
        return (LN2, "ln 2") if abs(first[0] - LN2) < START_PROBLEM * LN2 else None


def whole_steps(name: str, steps: np.ndarray) -> np.ndarray:
    """Return ``steps`` if all finite ones are whole numbers; otherwise epochs, say, would pass for steps."""
    finite = steps[np.isfinite(steps)]
    odd = finite[finite % 1 != 0]
    if len(odd):
        raise ValueError(f"{name} must be whole numbers, got {step_text(odd[0])}")
    return steps


def step_text(step: float) -> str:
    """Return a step as a person would write it."""
    return f"{step:.15g}"


def tail(rows: int) -> int:
    """Return the number of rows in the last part: a fifth of all, and at least ``LATE``."""
    return max(LATE, rows // 5)


def _floats(log: pd.DataFrame, name: str) -> np.ndarray:
    column = log.loc[:, [column == name for column in log.columns]].iloc[:, 0]
    if column.dtype == object:  # pandas refuses lists and the like
        column = column.map(lambda value: value if isinstance(value, (str, int, float)) else None)
    return pd.to_numeric(column, errors="coerce").to_numpy(dtype=float, na_value=math.nan)
