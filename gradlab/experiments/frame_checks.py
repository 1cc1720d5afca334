"""What a frame must have to be judged: its columns, a row for each declared combination, and finite numbers."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from gradlab.arrays import check_columns
from gradlab.stats.population import named

Levels = Mapping[str, Iterable[object]]


def picked(frame: pd.DataFrame, where: str) -> pd.DataFrame:
    """Return the rows that a query picks, all rows for an empty one; ValueError where the frame lacks a column."""
    try:
        return frame.query(where) if where else frame
    except pd.errors.UndefinedVariableError as error:
        raise ValueError(f"frame must have the columns of {where!r}, got one where {error}") from None


def check_rows(frame: pd.DataFrame, keys: Sequence[str], values: Sequence[str], cells: Levels | None = None) -> None:
    """Raise ValueError, in one line, for a frame that is not whole.

    keys    columns that name a row: no two rows have the same.
    values  columns of finite numbers.
    cells   columns with the values that they must have: each combination must be there.
    """
    check_columns("frame", frame, list(dict.fromkeys([*keys, *values, *(cells or {})])))
    check_numbers(frame, values)
    twice = frame[frame.duplicated(list(keys))]
    if len(twice):
        raise ValueError(f"frame must have one row for each {', '.join(keys)}, got two at {named(keys, twice)}")
    wrong = frame[~frame[list(values)].apply(np.isfinite).all(axis=1)]
    if len(wrong):
        raise ValueError(f"frame must have finite {', '.join(values)}, got others at {named(keys, wrong)}")
    if not cells:
        return
    wanted = pd.DataFrame(itertools.product(*cells.values()), columns=list(cells))
    both = wanted.merge(frame[list(cells)].drop_duplicates(), how="left", indicator=True)
    missing = both[both["_merge"] == "left_only"]
    if len(missing):
        raise ValueError(f"frame must have the declared cells; {named(list(cells), missing)} is missing")


def check_numbers(frame: pd.DataFrame, columns: Iterable[str]) -> None:
    """Raise ValueError where one of these columns is there and does not hold numbers."""
    for column in columns:
        kind = frame[column].dtype if column in frame else float
        if not pd.api.types.is_numeric_dtype(kind) or pd.api.types.is_bool_dtype(kind):
            raise ValueError(f"frame must have numbers in {column}, got {kind}")


def check_levels(frame: pd.DataFrame, levels: Levels) -> None:
    """Raise ValueError where a column has not all of its declared values, or another one."""
    for column, values in levels.items():
        check_columns("frame", frame, [column])
        there, wanted = set(frame[column]), set(values)
        if there != wanted:
            wrong = sorted(map(str, (wanted - there) or (there - wanted)))
            state = "is missing" if wanted - there else "is not declared"
            raise ValueError(f"frame must have the declared values of {column}; {wrong[0]} {state}")


def factors_of(frame: pd.DataFrame, world: str, names: Sequence[str], worlds: pd.Series) -> pd.DataFrame:
    """Return a row of factors per world, in the order of ``worlds``; ValueError where one varies in a world."""
    check_columns("frame", frame, [world, *names])
    values = frame[[world, *names]].drop_duplicates()
    if values[world].duplicated().any():
        raise ValueError(f"frame must have one value of {', '.join(names)} per {world}, got several")
    return values.set_index(world).loc[worlds].reset_index(drop=True)
