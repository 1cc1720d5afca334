"""Sweeps: thousands of independent trainings from one frame of settings, a row a run, streamed to disk and resumable.

A settings frame has a column for each setting that is not left at its default: arguments of ``gaussian_world``, a
``loss`` with its hyper-parameters, ``policy``, arguments of ``fit``, and ``seed``, which draws a run's world and data.
Runs that differ in world and seed alone are trained together, in blocks; a block is what is saved, and what is lost
when a process is killed.
"""

from __future__ import annotations

import inspect
import itertools
import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout

from gradlab import metrics
from gradlab.artifacts import (
    definitions_hash,
    fingerprint,
    load_frame,
    load_manifest,
    merge_frames,
    save_frame,
    source_hash,
    versions,
)
from gradlab.checks import count, one_of
from gradlab.descent import Descent, recorded_steps
from gradlab.losses import PairLoss, hyper_parameters, pair_loss
from gradlab.parts import Part, run_parts
from gradlab.policy import tabular_policy
from gradlab.runs import Runs
from gradlab.training import fit
from gradlab.world import World, gaussian_world

_WORLD = [name for name in inspect.signature(gaussian_world).parameters if name != "seed"]
_FIT = ("optimizer", "learning_rate", "steps", "pairs", "batch", "labels", "record")
_DTYPES = {"float64": torch.float64, "float32": torch.float32}
SETTINGS = ("loss", *hyper_parameters(), "policy", *_FIT, "dtype", *_WORLD, "seed")
_OF_A_RUN = {"run", "seed", *_WORLD} - {"prompts", "responses"}  # what may differ within a block
_RENAMED = {"utility": "expected_utility", "loss": "training_loss"}  # metrics that are named as a setting is
MOST_RUNS = 10_000_000
# Of a block: ordered pairs in memory, about 20 MB; and those times steps, some seconds of work.
_BLOCK_SLOTS, _BLOCK_WORK = 2**20, 2**30


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
    varied = settings.drop(columns="seed", errors="ignore")
    for _, row in settings.loc[~varied.duplicated()].iterrows() if len(varied.columns) else settings[:1].iterrows():
        _check(_given(row))
    for seed in settings["seed"].dropna().unique() if "seed" in settings else ():
        count("seed", seed)
    return settings


@dataclass(frozen=True)
class Status:
    """How far a sweep is. Counts are of runs; ``seconds_left`` is NaN where nothing is known."""

    runs: int
    done: int
    failed: int
    blocks: int
    blocks_done: int
    running: bool
    seconds_left: float

    def __str__(self) -> str:
        """In one line."""
        parts = [f"{self.done:,} of {self.runs:,} runs in {self.blocks_done:,} of {self.blocks:,} blocks"]
        if self.failed:
            parts.append(f"{self.failed:,} of them stopped being finite (see the column error)")
        if self.done == self.runs:
            return "; ".join([*parts, "finished"])
        parts.append("running" if self.running else "not running: the same command goes on")
        if self.seconds_left == self.seconds_left:
            parts.append(f"about {timedelta(seconds=round(self.seconds_left))} of work left")
        return "; ".join(parts)


def run_sweep(
    settings: pd.DataFrame,
    folder: Path | str,
    *,
    workers: int | None = None,
    backend: str = "loky",
    options: Mapping[str, Any] | None = None,
    fresh: bool = False,
    progress: bool = True,
) -> Path:
    """Train every run of the settings frame; where the results lie, ``folder``/runs.parquet.

    workers, backend, options  as in ``gradlab.parts.run_parts``; no bit depends on them.
    fresh  begin anew where the folder holds a sweep; False: go on with it, if it is the same one.

    A row of the result is a run: its number ``run`` in the settings frame, its settings, and the metrics at its end,
    as in ``Fit.history``, but ``expected_utility`` and ``training_loss`` are so called, since ``utility`` and ``loss``
    are settings. With ``record`` > 1 there is a row for each recorded step. A run whose policy stops being finite has
    NaN there, and says so in ``error``. Rows come in blocks of equal training settings.

    Raises ValueError for settings that are none, or a folder that holds another sweep; OSError for a full disk, or
    workers that die again and again: what is finished is kept.
    """
    settings, folder = check_settings(settings), Path(folder)
    key = _key(settings)
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        if fresh:
            _forget(folder)
        if (folder / "settings.json").exists():
            _same(folder, key)
        else:
            save_frame(settings, folder / "settings.parquet", {"key": key}, overwrite=True)
        target = folder / "runs.parquet"
        if Part({}, target, key).is_done():
            return target
        parts = _parts(settings, folder, key)
        run_parts(
            train_block, parts, label=folder.name, unit="run", workers=workers, backend=backend, options=options,
            progress=progress,
        )  # fmt: skip
        merge_frames([part.file for part in parts], target, {"key": key})
        _remove_blocks(folder)
    return target


def sweep_status(folder: Path | str) -> Status:
    """How far the sweep in a folder is, while it runs or not. Raises ValueError where there is none."""
    folder = Path(folder)
    if not (folder / "settings.parquet").exists():
        raise ValueError(f"folder must hold a sweep, with its settings.parquet; {str(folder)!r} does not")
    settings, manifest = load_frame(folder / "settings.parquet")
    parts = _parts(settings, folder, manifest["key"])
    if Part({}, folder / "runs.parquet", manifest["key"]).is_done():
        done, frame = parts, load_frame(folder / "runs.parquet")[0][["run", "error"]]
    else:
        done = [part for part in parts if part.is_done()]
        frame = pd.concat([pd.DataFrame({"run": [], "error": []}), *(_errors(part) for part in done)])
    failed = frame.loc[frame["error"].notna(), "run"].nunique()
    left = 0.0 if len(done) == len(parts) else (len(parts) - len(done)) * _seconds_a_block(done)
    return Status(
        len(settings), sum(part.size for part in done), failed, len(parts), len(done), _is_running(folder), left
    )


def train_block(settings: pd.DataFrame) -> pd.DataFrame:
    """Train the runs of one block, rows of a settings frame with the column ``run``; rows as in ``run_sweep``."""
    common = _given(settings.iloc[0])
    worlds = [gaussian_world(**_world(given), seed=given.get("seed", 0)) for given in map(_given, _rows(settings))]
    loss, arguments = _loss(common), _training(common)
    seeds = settings["seed"].fillna(0).astype(int).tolist() if "seed" in settings else [0] * len(settings)
    history = _train(worlds, loss, seeds, arguments)
    if arguments["record"] == 1:
        history = history[history["step"] > 0]
    runs, error = history["run"], history["error"].astype("string")
    numbers = history.reindex(columns=["step", *_metrics()]).rename(columns=_RENAMED).assign(error=error)
    return settings.iloc[runs].reset_index(drop=True).join(numbers.reset_index(drop=True))


def _train(worlds: Sequence[World], loss: PairLoss, seeds: Sequence[int], arguments: dict[str, Any]) -> pd.DataFrame:
    """The history of a block. Where a policy stops being finite, halves are tried, until the run is found."""
    try:
        return fit(worlds, loss, seed=list(seeds), **arguments).history.assign(error=None)
    except FloatingPointError as error:
        if len(worlds) == 1:
            steps = recorded_steps(arguments["steps"], arguments["record"])
            return pd.DataFrame({"step": steps, "run": 0, "error": str(error)})
    half = len(worlds) // 2
    first = _train(worlds[:half], loss, seeds[:half], arguments)
    second = _train(worlds[half:], loss, seeds[half:], arguments)
    return pd.concat([first, second.assign(run=second["run"] + half)], ignore_index=True)


def _metrics() -> list[str]:
    """The columns of ``Fit.history``, without step and run."""
    nothing = torch.zeros(1, 2)
    return [*metrics.summary(nothing, nothing, nothing == 0, nothing, beta=1.0), "loss", "held_out_loss"]


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
    _loss(given)
    arguments = _training(given)
    Descent(arguments["optimizer"], arguments["learning_rate"], "cpu", arguments["dtype"], progress=False)
    recorded_steps(arguments["steps"], arguments["record"])
    if arguments["batch"] is not None:
        count("batch", arguments["batch"], least=1)
    world = gaussian_world(**_world(given), seed=given.get("seed", 0))
    Runs.of(world, arguments["pairs"], arguments["labels"], given.get("seed", 0))


def _given(row: pd.Series) -> dict[str, Any]:
    """The settings of a row that are not left at their defaults, as Python's own types."""
    return {
        str(name): value.item() if isinstance(value, np.generic) else value
        for name, value in row.items()
        if not pd.isna(value)
    }


def _rows(settings: pd.DataFrame) -> Iterator[pd.Series]:
    return (row for _, row in settings.iterrows())


def _loss(given: Mapping[str, Any]) -> PairLoss:
    hyper = {name: given[name] for name in hyper_parameters() if name in given}
    return pair_loss(given.get("loss", "dpo"), **hyper)


def _world(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: given[name] for name in _WORLD if name in given}


def _training(given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of ``fit``: its own defaults, but only the end recorded."""
    defaults = {name: inspect.signature(fit).parameters[name].default for name in _FIT}
    arguments = {**defaults, "record": 1, **{name: given[name] for name in _FIT if name in given}}
    dtype = one_of("dtype", given.get("dtype", "float64"), _DTYPES)
    return {**arguments, "policy": tabular_policy(given.get("policy", "free")), "dtype": _DTYPES[dtype]}


def _parts(settings: pd.DataFrame, folder: Path, key: str) -> list[Part]:
    """The blocks of a sweep, always the same ones."""
    settings = settings.assign(run=np.arange(len(settings)))
    common = [name for name in settings if name not in _OF_A_RUN]
    groups = [rows for _, rows in settings.groupby(common, dropna=False, sort=False)] if common else [settings]
    blocks = [
        group[first : first + width]
        for group in groups
        for width in [_width(group)]
        for first in range(0, len(group), width)
    ]
    return [
        Part({"settings": block}, folder / "blocks" / f"{number:06}.parquet", f"{key} {number}", len(block))
        for number, block in enumerate(blocks)
    ]


def _width(group: pd.DataFrame) -> int:
    """How many runs of a group make a block."""
    given = _given(group.iloc[0])
    world = inspect.signature(gaussian_world).parameters
    prompts, responses = (given.get(name, world[name].default) for name in ("prompts", "responses"))
    slots = prompts * responses**2
    return int(max(1, min(_BLOCK_SLOTS // slots, _BLOCK_WORK // (slots * _training(given)["steps"]))))


def _key(settings: pd.DataFrame) -> str:
    """What a sweep's numbers depend on."""
    sources = source_hash(__name__, without=["gradlab.parts", "gradlab.artifacts"])
    code = definitions_hash(__name__, ["train_block"])
    return fingerprint(settings.to_json(orient="split"), sources, code, versions())


def _same(folder: Path, key: str) -> None:
    if load_manifest(folder / "settings.parquet").get("key") != key:
        raise ValueError(
            f"folder {str(folder)!r} holds a sweep of other settings, or by other sources or versions; "
            "name another folder, or begin anew (--fresh)"
        )


def _forget(folder: Path) -> None:
    _remove_blocks(folder)
    for name in ("settings", "runs"):
        for suffix in (".json", ".parquet"):
            (folder / name).with_suffix(suffix).unlink(missing_ok=True)


def _remove_blocks(folder: Path) -> None:
    for file in (folder / "blocks").glob("*"):
        file.unlink()
    if (folder / "blocks").exists():
        (folder / "blocks").rmdir()


def _errors(part: Part) -> pd.DataFrame:
    return pd.read_parquet(part.file, columns=["run", "error"])


def _seconds_a_block(done: Sequence[Part]) -> float:
    """The median time between one finished block and the next, so that pauses do not count."""
    finished = np.sort([part.file.stat().st_mtime for part in done])
    return float(np.median(np.diff(finished))) if len(finished) > 1 else math.nan


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which ends with the process however that ends."""
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"folder {str(folder)!r} holds a sweep that another process is running") from None
    try:
        yield
    finally:
        lock.release()


def _is_running(folder: Path) -> bool:
    try:
        with FileLock(folder / ".lock", timeout=0):
            return False
    except Timeout:
        return True
