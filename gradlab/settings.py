"""What a run of a sweep is: from a TOML file to a frame of settings, and from its rows to world, loss and training.

A settings frame has a row a run, and a column for each setting that is not left at its default: arguments of
``gaussian_world``, a ``loss`` with its hyper-parameters, ``policy``, arguments of ``fit``, and ``seed``, which draws a
run's world and data.
"""

from __future__ import annotations

import inspect
import itertools
import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from gradlab.checks import count, one_of
from gradlab.descent import Descent, recorded_steps
from gradlab.losses import PairLoss, hyper_parameters, pair_loss
from gradlab.policy import tabular_policy
from gradlab.runs import Runs
from gradlab.training import fit
from gradlab.world import gaussian_world

WORLD = {name: one.default for name, one in inspect.signature(gaussian_world).parameters.items() if name != "seed"}
_FIT = ("optimizer", "learning_rate", "steps", "pairs", "batch", "labels", "record")
_DTYPES = {"float64": torch.float64, "float32": torch.float32}
SETTINGS = ("loss", *hyper_parameters(), "policy", *_FIT, "dtype", *WORLD, "seed")
MOST_RUNS = 10_000_000


def read_settings(path: Path | str) -> pd.DataFrame:
    """The settings frame of a TOML file.

    At its top level, and in any number of ``[[grid]]`` tables, a key is a setting, or ``seeds``, how many from 0 on;
    a value, or a list of values. A grid is every combination of its own lists and the top level's, and grids add up;
    a run that is asked for twice is run once. Raises ValueError, in one line that names file and key.
    """
    path = Path(path)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML: {error}") from None
    try:
        return check_settings(_expand(document))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def check_settings(settings: pd.DataFrame) -> pd.DataFrame:
    """The frame with a fresh index and nullable types, once every row is known to be a training; else ValueError."""
    if len(settings) == 0:
        raise ValueError("a sweep needs at least one run")
    for name in settings:
        one_of("a setting", name, SETTINGS)
    settings = settings.reset_index(drop=True).convert_dtypes()
    varied = [name for name in settings if name != "seed"]
    for row in rows_of(settings.drop_duplicates(varied) if varied else settings[:1]):
        _check(row)
    for seed in settings["seed"].dropna().unique() if "seed" in settings else ():
        count("seed", seed)
    return settings


def rows_of(settings: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Of each row the settings that are not left at their defaults, as Python's own types."""
    return (_given(row) for _, row in settings.iterrows())


def loss_of(given: Mapping[str, Any]) -> PairLoss:
    """The loss that the settings name."""
    hyper = {name: given[name] for name in hyper_parameters() if name in given}
    return pair_loss(given.get("loss", "dpo"), **hyper)


def world_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of ``gaussian_world``, without the seed."""
    return {name: given[name] for name in WORLD if name in given}


def fit_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of ``fit``: its own defaults, but only the end recorded."""
    defaults = {name: inspect.signature(fit).parameters[name].default for name in _FIT}
    arguments = {**defaults, "record": 1, **{name: given[name] for name in _FIT if name in given}}
    dtype = one_of("dtype", given.get("dtype", "float64"), _DTYPES)
    return {**arguments, "policy": tabular_policy(given.get("policy", "free")), "dtype": _DTYPES[dtype]}


def _expand(document: Mapping[str, Any]) -> pd.DataFrame:
    """Every combination of the lists of a TOML document, see ``read_settings``."""
    shared = {key: value for key, value in document.items() if key != "grid"}
    grids = document.get("grid", [{}])
    if not isinstance(grids, list) or not grids or not all(isinstance(grid, dict) for grid in grids):
        raise ValueError(f"grid must be one or more tables, each headed [[grid]], got {grids!r}")
    tables = [_lists({**shared, **grid}) for grid in grids]
    total = sum(math.prod(map(len, table.values())) for table in tables)
    if total > MOST_RUNS:
        raise ValueError(f"the grids ask for {total:,} runs; at most {MOST_RUNS:,} are accepted")
    parts = [pd.DataFrame(itertools.product(*table.values()), columns=list(table), dtype=object) for table in tables]
    return pd.concat(parts, ignore_index=True).drop_duplicates(ignore_index=True)


def _lists(grid: Mapping[str, Any]) -> dict[str, Sequence[Any]]:
    """The lists of one grid, a single value as a list of one."""
    if "seeds" in grid and "seed" in grid:
        raise ValueError("seed and seeds must not both be given: seeds = 3 is short for seed = [0, 1, 2]")
    lists: dict[str, Sequence[Any]] = {}
    for name, value in grid.items():
        if name == "seeds":
            lists["seed"] = range(count("seeds", value, least=1))
            continue
        one_of("a setting", name, (*SETTINGS, "seeds"))
        lists[name] = value if isinstance(value, list) else [value]
        if len(lists[name]) == 0 or any(isinstance(one, (list, dict)) or one != one for one in lists[name]):
            raise ValueError(f"{name} must be a value or a list of values, got {value!r}")
    if "seed" in lists:
        lists["seed"] = lists.pop("seed")  # runs that differ in nothing else come together
    return lists


def _check(given: dict[str, Any]) -> None:
    """ValueError unless these settings are those of a training."""
    loss_of(given)
    arguments = fit_arguments(given)
    Descent(arguments["optimizer"], arguments["learning_rate"], "cpu", arguments["dtype"], progress=False)
    recorded_steps(arguments["steps"], arguments["record"])
    if arguments["batch"] is not None:
        count("batch", arguments["batch"], least=1)
    world = gaussian_world(**world_arguments(given), seed=given.get("seed", 0))
    Runs.of(world, arguments["pairs"], arguments["labels"], given.get("seed", 0))


def _given(row: pd.Series) -> dict[str, Any]:
    """The same of one row."""
    return {
        str(name): value.item() if isinstance(value, np.generic) else value
        for name, value in row.items()
        if not pd.isna(value)
    }
