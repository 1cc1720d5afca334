"""The numbers of a training log in columns, gathered row by row: 8 bytes per number, and no list of rows."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gradlab.doctor.log_columns import STEPS, Known, known_column, tells_kl_per_token
from gradlab.doctor.log_rows import place_of

_NAN = array("d", [math.nan])


def whole_step(value: Any, place: str) -> int:
    """Return a step of a file as a whole number; ValueError with the place for anything else."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{place}: step must be a number, got {value!r}") from None
    if not 0 <= number < 2**53 or number % 1:
        raise ValueError(f"{place}: step must be a whole number ≥ 0, got {value!r}")
    return int(number)


class Column:
    """One column of a file."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.known: Known | None = known_column(name)
        self.numbers = array("d")  # NaN where a row has none; up to the last row that has one
        self.others: dict[int, Any] = {}  # values that are no numbers, by row
        self.not_finite: int | None = None  # the first row whose number is not finite

    def put(self, row: int, value: Any) -> None:
        """Add the value of a row, in the order of the rows."""
        if type(value) is not float:
            if value is None or value == "":
                return
            number = self._number(value)
            if number is None:
                self.others[row] = value
                return
            value = number
        numbers = self.numbers
        if row > len(numbers):
            numbers.extend(_NAN * (row - len(numbers)))
        numbers.append(value)
        if self.not_finite is None and value - value != 0:
            self.not_finite = row

    def _number(self, value: Any) -> float | None:
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            return None
        try:
            return float(value)
        except (ValueError, OverflowError):
            return None

    def values(self, rows: int) -> np.ndarray:
        """Return a value per row: float64, or objects where some are no numbers."""
        numbers = np.full(rows, math.nan)
        numbers[: len(self.numbers)] = np.frombuffer(self.numbers) if self.numbers else []
        if self.known is not None and self.known.complement:
            numbers = 1 - numbers
        if not self.others:
            return numbers
        objects = numbers.astype(object)
        objects[np.isnan(numbers)] = None
        for row, value in self.others.items():
            objects[row] = value
        return objects


class Table:
    """The columns of a file, by the names in the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._columns: dict[str, Column] = {}
        self._places = array("q")  # the number of each row's line

    def add(self, number: int, row: Mapping[str, Any]) -> None:
        """Add a row, which is in line ``number``."""
        at = len(self._places)
        self._places.append(number)
        columns = self._columns
        for name, value in row.items():
            column = columns.get(name)
            if column is None:
                column = columns[name] = Column(name)
            column.put(at, value)

    def frame(self) -> tuple[pd.DataFrame, dict[str, str], list[str]]:
        """Return a row per step, in order, under gradlab's names; the places of what is not finite; and notes.

        ValueError with one line for two columns of one name, and for a value of a known column that is no number.
        """
        chosen = self._chosen()
        steps_of = [column for column in self._columns.values() if chosen[column.name] == "step"]
        self._check(chosen)
        steps = self._steps(steps_of)
        there = ~np.isnan(steps)
        notes = [f"{(~there).sum()} rows without a step are left out"] if not there.all() else []
        steps, said = self._updates(steps_of, steps)
        notes += said + self._steps_back(steps)
        not_finite = {
            chosen[name]: place_of(self._path, self._places[column.not_finite])
            for name, column in self._columns.items()
            if column.not_finite is not None and chosen[name]
        }
        columns = {"step": steps[there].astype(np.int64)}
        for name, column in list(self._columns.items()):
            if chosen[name] and chosen[name] != "step":
                columns[chosen[name]] = column.values(len(steps))[there]
            del self._columns[name]  # its memory
        return _by_step(pd.DataFrame(columns, copy=False)), not_finite, notes

    def _chosen(self) -> dict[str, str]:
        """Return the name in the frame of each column; "" for what is left out: W&B's bands."""
        best: dict[str, int] = {}
        ranked = {name: self._rank(column) for name, column in self._columns.items() if _kept(name)}
        for target, rank in ranked.values():
            best[target] = min(rank, best.get(target, rank))
        chosen = dict.fromkeys(self._columns, "")
        for name, (target, rank) in ranked.items():
            chosen[name] = target if rank == best[target] else name
        for target in set(chosen.values()) - {"", "step"}:
            same = sorted(name for name in chosen if chosen[name] == target)
            if len(same) > 1:
                raise ValueError(
                    f"{self._path} has {target} more than once, as {' and '.join(same)}; give one run, and one of each"
                )
        return chosen

    def _rank(self, column: Column) -> tuple[str, int]:
        if column.known is None:
            return column.name, 0
        name = column.known.name
        if name.removeprefix("validation_") == "kl" and not column.known.rank and self._kl_is_per_token():
            name += "_per_token"
        return ("step", STEPS.index(name)) if name in STEPS else (name, column.known.rank)

    def _kl_is_per_token(self) -> bool:
        return any(map(tells_kl_per_token, self._columns))

    def _check(self, chosen: Mapping[str, str]) -> None:
        """Raise ValueError for the first row with a known column that is no number."""
        faults = [
            (next(iter(column.others.items())), chosen[name])
            for name, column in self._columns.items()
            if column.others and column.known is not None and chosen[name] == self._rank(column)[0]
        ]
        if faults:
            (row, value), name = min(faults, key=lambda fault: fault[0][0])
            raise ValueError(f"{self._place(row)}: {name} must be a number, got {value!r}")

    def _steps(self, columns: Sequence[Column]) -> np.ndarray:
        """Return the step of each row, NaN where it has none."""
        steps = np.full(len(self._places), math.nan)
        for column in columns:
            values = column.values(len(steps))
            with np.errstate(invalid="ignore"):
                whole = (values >= 0) & (values < 2**53) & (values % 1 == 0)
            bad = [*np.flatnonzero(~whole & ~np.isnan(values))[:1], *({column.not_finite} - {None})]
            if bad:
                value = float(values[min(bad)])
                value = int(value) if value % 1 == 0 and abs(value) < 2**53 else value
                whole_step(value, self._place(int(min(bad))))
            both = ~np.isnan(steps) & ~np.isnan(values) & (steps != values)
            if both.any():
                names = " and ".join(sorted(column.name for column in columns))
                raise ValueError(f"{self._place(int(both.argmax()))} has two steps, as {names}; give one of them")
            steps = np.where(np.isnan(steps), values, steps)
        return steps

    def _updates(self, columns: Sequence[Column], steps: np.ndarray) -> tuple[np.ndarray, list[str]]:
        """Return steps that count updates where a log of the DPO authors' counts examples; and a note on it."""
        examples, updates = (self._columns.get(f"counters/{name}") for name in ("examples", "updates"))
        if not (columns and examples and updates) or columns[0].name.startswith("counters/updates"):
            return steps, []
        if examples.others or updates.others:  # counters that are no numbers
            return steps, []
        seen, done = (column.values(len(steps)) for column in (examples, updates))
        both = (seen > 0) & (done > 0)
        sizes = np.unique(seen[both] / done[both])
        if len(sizes) != 1 or sizes[0] % 1 or not np.array_equal(steps[both], seen[both]):
            return steps, []
        return np.floor(steps / sizes[0]), [f"steps are updates of {sizes[0]:.0f} examples, by counters/updates"]

    def _steps_back(self, steps: np.ndarray) -> list[str]:
        """Return a note where a step is below the step of a row before it."""
        rows = np.flatnonzero(~np.isnan(steps))
        back = np.flatnonzero(np.diff(steps[rows]) < 0)
        if not len(back):
            return []
        before, after = (int(steps[rows[at]]) for at in (back[0], back[0] + 1))
        place = place_of(self._path, self._places[rows[back[0] + 1]])
        return [f"steps go back, first from {before} to {after} at {place}: the later row of a step counts"]

    def _place(self, row: int) -> str:
        return f"{self._path}, {place_of(self._path, self._places[row])}"


def _kept(name: str) -> bool:
    return not name.endswith(("__MIN", "__MAX"))  # W&B's bands


def _by_step(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row per step, in order; rows of one step are joined, and the later value wins."""
    steps = frame["step"].to_numpy()
    if (np.diff(steps) > 0).all():
        return frame
    return frame.groupby("step", as_index=False, sort=True).last()
