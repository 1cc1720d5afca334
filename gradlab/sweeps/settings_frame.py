"""The settings of a sweep: from a TOML file to a frame, and from its rows to world, loss and training.

A settings frame has one row per run, and a column for each setting that is not left at its default: arguments of
``gaussian_world``, a ``loss`` with its hyper-parameters, ``policy``, arguments of ``fit``, and ``seed``, which draws a
run's world and data.
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from gradlab.checks import count, one_of, shown, toml_file
from gradlab.lab import metrics
from gradlab.lab.runs import Runs
from gradlab.lab.training import Training
from gradlab.lab.world import gaussian_world
from gradlab.losses import BatchLoss, PairLoss, hyper_parameters, is_own, named_loss, registered_name

WORLD = {
    name: argument.default for name, argument in inspect.signature(gaussian_world).parameters.items() if name != "seed"
}
_TRAINING = (
    "policy", "optimizer", "learning_rate", "steps", "pairs", "batch", "labels", "sampler", "sampler_every",
    "reference_every", "record", "dtype",
)  # fmt: skip
RENAMED = {"utility": "expected_utility", "loss": "training_loss"}  # metrics that are named as a setting is
MOST_RUNS = 10_000_000


def read_settings(path: Path | str) -> pd.DataFrame:
    """Return the settings frame of a TOML file.

    A loss is named as in the registry, or as FILE.py:CLASS or MODULE:CLASS, which is then registered.

    At its top level, and in any number of ``[[grid]]`` tables, a key is a setting, or ``seeds``, how many from 0 on;
    a value, or a list of values. A grid is every combination of its lists and the top level's, and grids add up; a run
    that two grids ask for is run once. Raises ValueError, in one line that names file and key.
    """
    path = Path(path)
    document = toml_file("file", path)
    try:
        document = with_own_losses(document)
        return check_settings(_expand(document))
    except (ValueError, TypeError) as error:  # of a class that is no loss, a TypeError
        raise ValueError(f"{path}: {error}") from None


def with_own_losses(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document in which losses of a user's own files, as FILE.py:CLASS, are registered, and named so."""

    def named(value: Any) -> Any:
        if isinstance(value, list):
            return [named(part) for part in value]
        return registered_name(value) if isinstance(value, str) and is_own(value) else value

    own = {**document, "loss": named(document["loss"])} if "loss" in document else dict(document)
    grids = document.get("grid")
    if isinstance(grids, list):
        own["grid"] = [with_own_losses(grid) if isinstance(grid, dict) else grid for grid in grids]
    return own


def setting_names() -> tuple[str, ...]:
    """Return the names that a setting may have: those of the training, the world, and every registered loss."""
    others = (*_TRAINING, *WORLD, "seed")
    hyper = hyper_parameters(taken=("loss", "seeds", *others), batches=True)
    results = {"run", "step", "error", *(RENAMED.get(name, name) for name in metric_names())}
    for name in results & hyper.keys():
        (loss, *_) = hyper[name].defaults
        raise ValueError(f"{name} of {loss} must have another name, since a sweep has a column called {name}")
    return ("loss", *hyper, *others)


def metric_names() -> list[str]:
    """Return the columns of ``Fit.history``, without step and run."""
    nothing = torch.zeros(1, 2)
    return [*metrics.summary(nothing, nothing, nothing == 0, nothing, beta=1.0), "loss", "held_out_loss"]


def check_settings(settings: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with a fresh index and nullable types; ValueError unless every row describes a training.

    A missing value, such as NaN, leaves a setting at its default.
    """
    if not isinstance(settings, pd.DataFrame) or len(settings) == 0:
        raise ValueError(f"settings must be a data frame with one row per run, got {shown(settings)}")
    known = setting_names()
    for name in settings:
        one_of("a setting", name, known)
    if not settings.columns.is_unique:
        raise ValueError(f"settings must be columns of different names, got {list(settings)}")
    plain = {name: _plain(str(name), settings[name]) for name in settings}
    settings = pd.DataFrame(plain, index=range(len(settings)))
    if "seed" not in settings:
        settings["seed"] = 0
    worlds, trainings = set(), set()
    for row in rows_of(settings.drop_duplicates([name for name in settings if name != "seed"] or None)):
        world, training = world_arguments(row), {name: row[name] for name in row if name not in {*WORLD, "seed"}}
        for given, seen, check in ((world, worlds, _check_world), (training, trainings, _check_training)):
            if repr(given) not in seen:
                check(given, row.get("seed", 0))
                seen.add(repr(given))
    for seed in settings["seed"].dropna().unique():
        count("seed", seed)
    return settings.convert_dtypes()


def rows_of(settings: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield the settings of each row that are not left at their defaults, as plain Python values."""
    for values in zip(*(settings[name].tolist() for name in settings), strict=True):
        yield {str(name): value for name, value in zip(settings, values, strict=True) if not pd.isna(value)}


def loss_of(given: Mapping[str, Any]) -> PairLoss | BatchLoss:
    """Return the loss that the settings name."""
    hyper = {name: given[name] for name in hyper_parameters(batches=True) if name in given}
    return named_loss(given.get("loss", "dpo"), **hyper)


def world_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of ``gaussian_world`` among the settings, without the seed."""
    return {name: given[name] for name in WORLD if name in given}


def training_of(given: Mapping[str, Any]) -> Training:
    """Return the recipe that the settings ask for: the defaults of ``Training``, but only the end recorded."""
    return Training(**{"record": 1, **{name: given[name] for name in _TRAINING if name in given}})


def _expand(document: Mapping[str, Any]) -> pd.DataFrame:
    """Return every combination of the lists of a TOML document, see ``read_settings``."""
    shared = {key: value for key, value in document.items() if key != "grid"}
    grids = document.get("grid", [{}])
    if not isinstance(grids, list) or not grids or not all(isinstance(grid, dict) for grid in grids):
        raise ValueError(f"grid must be one or more tables, each headed [[grid]], got {grids!r}")
    tables = [_lists(shared) | _lists(grid) for grid in grids]
    for table in tables:  # seeds last: runs that differ in nothing else come together
        table["seed"] = table.pop("seed", [0])
    total = sum(math.prod(map(len, table.values())) for table in tables)
    if total > MOST_RUNS:
        raise ValueError(f"the grids ask for {total:,} runs; at most {MOST_RUNS:,} are accepted")
    parts = [pd.DataFrame(itertools.product(*table.values()), columns=list(table), dtype=object) for table in tables]
    return pd.concat(parts, ignore_index=True).drop_duplicates(ignore_index=True)


def _lists(grid: Mapping[str, Any]) -> dict[str, Sequence[Any]]:
    """Return the lists of a table, with a single value as a list of length 1 and ``seeds`` as ``seed``."""
    if "seeds" in grid and "seed" in grid:
        raise ValueError("seed and seeds must not both be given: seeds = 3 is short for seed = [0, 1, 2]")
    lists: dict[str, Sequence[Any]] = {}
    for name, value in grid.items():
        if name == "seeds":
            lists["seed"] = range(count("seeds", value, least=1, most=MOST_RUNS))
            continue
        one_of("a setting", name, (*setting_names(), "seeds"))
        lists[name] = value if isinstance(value, list) else [value]
        if len(lists[name]) == 0 or any(type(item) not in (int, float, str) or item != item for item in lists[name]):
            raise ValueError(f"{name} must be a number, a text, or a list of such, got {value!r}")
    return lists


def _plain(name: str, column: pd.Series) -> pd.Series:
    """Return the column as plain Python numbers and text, with a fresh index; ValueError for anything else."""
    try:
        values = (column if column.dtype == object else column.convert_dtypes()).tolist()
        for value in values:
            missing = value is None or value is pd.NA or (isinstance(value, float) and value != value)
            if not missing and (isinstance(value, bool) or not isinstance(value, (int, float, str, np.number))):
                raise TypeError(f"must hold numbers or text, got {value!r}")
            if isinstance(value, (int, np.integer)) and abs(int(value)) >= 2**63:
                raise TypeError(f"must fit into 64 bits, got {value}")
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} {error}") from None
    plain = [value.item() if isinstance(value, np.number) else value for value in values]
    return pd.Series(plain, dtype=object)


def _check_training(given: dict[str, Any], seed: int) -> None:
    loss_of(given)
    training = training_of(given)
    Runs.of(gaussian_world(2, 2), training.pairs, training.labels, seed)


def _check_world(given: dict[str, Any], seed: int) -> None:
    gaussian_world(**given, seed=seed)
