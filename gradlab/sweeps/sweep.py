"""Sweeps: thousands of independent trainings from a frame with one row per run, saved block by block and resumable.

Runs that differ in world and seed alone are trained together, in blocks. A block is saved when it is finished; a killed
process loses only the block that it was training.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from gradlab.checks import output_folder
from gradlab.lab.descent import recorded_steps
from gradlab.lab.fit import fit
from gradlab.lab.samplers import NoWeight
from gradlab.lab.training import Training
from gradlab.lab.world import World, gaussian_world
from gradlab.losses import PairLoss
from gradlab.losses.definition import definition
from gradlab.losses.pair import KnownLoss
from gradlab.losses.registry import restore_losses, users_losses
from gradlab.store.artifacts import (
    STAMP,
    holds,
    load_frame,
    load_manifest,
    make_way,
    merge_frames,
    our_manifest,
    remove_frames,
    save_frame,
)
from gradlab.store.files import remove_leftovers
from gradlab.store.pool import Part, processes, run_parts
from gradlab.store.provenance import code_key, fingerprint
from gradlab.sweeps.settings_frame import (
    RENAMED,
    WORLD,
    check_settings,
    loss_of,
    metric_names,
    rows_of,
    training_of,
    world_arguments,
)

_OF_A_RUN = {"run", "seed", *WORLD} - {"prompts", "responses"}  # what may differ within a block
# Of a block: runs; ordered pairs in memory, about 20 MB; and those times steps, some seconds of work.
_BLOCK_RUNS, _BLOCK_SLOTS, _BLOCK_WORK = 1000, 2**20, 2**30


@dataclass(frozen=True)
class Status:
    """The progress of a sweep. Counts are of runs; ``seconds_left`` is NaN where nothing is known."""

    runs: int
    done: int
    failed: int
    blocks: int
    blocks_done: int
    running: bool
    seconds_left: float

    def __str__(self) -> str:
        """Return the progress in one line."""
        parts = [f"{self.done:,} of {self.runs:,} runs in {self.blocks_done:,} of {self.blocks:,} blocks"]
        if self.failed:
            parts.append(f"{self.failed:,} of them broke off (see the column error)")
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
    fresh: bool = False,
    progress: bool = True,
) -> Path:
    """Train every run of the settings frame; return the path of the results, ``folder``/runs.parquet.

    workers  processes, as in ``gradlab.store.pool.run_parts``; no bit depends on them, nor on joblib's backend.
    fresh    start again where the folder holds a sweep; False: go on with it, if it is the same one.

    A row of the result is a run: its number ``run`` in the settings frame, its settings, and the metrics at its end,
    as in ``Fit.history``, but ``expected_utility`` and ``training_loss`` are so called, since ``utility`` and ``loss``
    are settings. With ``record`` > 1 there is a row for each recorded step. A run whose policy stops being finite, or
    whose sampler gives weight to no pair, has NaN there, and says so in ``error``. Rows come in blocks of equal
    training settings.

    Raises ValueError for settings that are none, or a folder that holds something else; OSError for a full disk, or
    workers that die again and again: what is finished is kept.
    """
    settings, folder, workers = check_settings(settings), output_folder("folder", folder), processes(workers)
    key, target = _key(settings), folder / "runs.parquet"
    parts = _parts(settings, folder, key)
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        _claim(folder, settings, key, fresh)
        if not holds(target, key):
            run_parts(train_block, parts, label=folder.name, unit="run", workers=workers, progress=progress)
            merge_frames([part.file for part in parts], target, {"key": key})
        _remove_blocks(folder)
    return target


def sweep_status(folder: Path | str) -> Status:
    """Return the progress of the sweep in a folder, running or not. Raises ValueError where there is none."""
    folder = Path(folder)
    remove_leftovers(folder)
    if not (_is_of_a_sweep(folder / "settings.parquet") and (folder / "settings.parquet").exists()):
        raise ValueError(f"folder must hold a sweep, with its settings.parquet; {str(folder)!r} does not")
    settings, manifest = load_frame(folder / "settings.parquet")
    key = manifest.get("key", "")
    parts = _parts(settings, folder, key)
    finished = holds(folder / "runs.parquet", key)
    done = parts if finished else [part for part in parts if part.is_done()]
    files = [folder / "runs.parquet"] if finished else [part.file for part in done]
    errors = (pd.read_parquet(file, columns=["run", "error"]).dropna() for file in files)
    left = 0.0 if finished else (len(parts) - len(done)) * _seconds_a_block(done)
    return Status(
        runs=len(settings), done=sum(part.size for part in done), failed=sum(rows["run"].nunique() for rows in errors),
        blocks=len(parts), blocks_done=len(done), running=not finished and _is_running(folder), seconds_left=left,
    )  # fmt: skip


def train_block(settings: pd.DataFrame, losses: Sequence[KnownLoss] = ()) -> pd.DataFrame:
    """Train the runs of one block, rows of a settings frame with the column ``run``; rows as in ``run_sweep``.

    losses  those that a user has registered, since the process that trains may be another one.
    """
    restore_losses(losses)
    runs = list(rows_of(settings))
    seeds = [run.get("seed", 0) for run in runs]
    worlds = [gaussian_world(**world_arguments(run), seed=seed) for run, seed in zip(runs, seeds, strict=True)]
    loss, training = loss_of(runs[0]), training_of(runs[0])
    history = _train(worlds, loss, seeds, training)
    if training.record == 1:
        history = history[history["step"] > 0]
    runs, error = history["run"], history["error"].astype("string")
    numbers = history.reindex(columns=["step", *metric_names()]).rename(columns=RENAMED).assign(error=error)
    return settings.iloc[runs].reset_index(drop=True).join(numbers.reset_index(drop=True))


def _train(worlds: Sequence[World], loss: PairLoss, seeds: Sequence[int], training: Training) -> pd.DataFrame:
    """Return the history of a block. Where a training breaks off, train halves until the run is known."""
    try:
        return fit(worlds, loss, training, seed=list(seeds)).history.assign(error=None)
    except (FloatingPointError, NoWeight) as error:
        if len(worlds) == 1:
            steps = recorded_steps(training.steps, training.record)
            return pd.DataFrame({"step": steps, "run": 0, "error": str(error)})
    half = len(worlds) // 2
    first = _train(worlds[:half], loss, seeds[:half], training)
    second = _train(worlds[half:], loss, seeds[half:], training)
    return pd.concat([first, second.assign(run=second["run"] + half)], ignore_index=True)


def _parts(settings: pd.DataFrame, folder: Path, key: str) -> list[Part]:
    """Return the blocks of a sweep: equal settings give equal blocks."""
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
        Part(
            {"settings": block, "losses": _added(block)},
            folder / "blocks" / f"{number:06}.parquet",
            f"{key} {_runs_in(block)}",
            len(block),
        )
        for number, block in enumerate(blocks)
    ]


def _added(settings: pd.DataFrame) -> list[KnownLoss]:
    """Return the losses of a settings frame that a user has registered."""
    return users_losses(settings["loss"].dropna().unique()) if "loss" in settings else []


def _runs_in(block: pd.DataFrame) -> str:
    """Return a hash of the numbers of the block's runs."""
    return hashlib.sha256(block["run"].to_numpy().tobytes()).hexdigest()[:16]


def _width(group: pd.DataFrame) -> int:
    """Return how many runs of a group make a block."""
    run = next(rows_of(group[:1]))
    slots = run.get("prompts", WORLD["prompts"]) * run.get("responses", WORLD["responses"]) ** 2
    work = slots * training_of(run).steps
    return max(1, min(_BLOCK_RUNS, _BLOCK_SLOTS // slots, _BLOCK_WORK // work))


def _key(settings: pd.DataFrame) -> str:
    """Return the key of all that a sweep's numbers depend on."""
    exact = hashlib.sha256(settings.to_parquet(index=False)).hexdigest()
    added = [definition(loss) for loss in _added(settings)]
    return fingerprint(exact, *added, code_key(__name__, ["train_block", "_parts"]))


def _claim(folder: Path, settings: pd.DataFrame, key: str, fresh: bool) -> None:
    """Reserve the folder for this sweep; ValueError where it holds another sweep, or files of another kind."""
    path = folder / "settings.parquet"
    remove_leftovers(folder)
    _refuse_others(folder)
    begun = our_manifest(path) is not None
    if begun and fresh:
        _remove_blocks(folder)
        remove_frames(folder, "runs")  # the settings stay until they are replaced: they say that this is a sweep's
    elif begun and load_manifest(path).get("key") != key:
        raise ValueError(
            f"folder {str(folder)!r} holds a sweep of other settings, or by other sources or versions; "
            "name another folder, or start again (--fresh)"
        )
    make_way(path)
    make_way(folder / "runs.parquet")
    if not holds(path, key):
        save_frame(settings, path, {"key": key}, overwrite=True)


def _refuse_others(folder: Path) -> None:
    """Raise ValueError, which names the file, where a sweep would write over a file that is no sweep's."""
    for name in ("settings", "runs"):
        file = folder / f"{name}.parquet"
        there = next(filter(os.path.lexists, (file.with_suffix(".json"), file)), None)
        if there is not None and not _is_of_a_sweep(file):
            raise ValueError(f"folder {str(folder)!r} holds {there.name}, which no sweep wrote; name another folder")
    if os.path.lexists(folder / "blocks") and our_manifest(folder / "settings.parquet") is None:
        raise ValueError(f"folder {str(folder)!r} holds blocks, which no sweep wrote; name another folder")


def _is_of_a_sweep(file: Path) -> bool:
    """Return whether a frame's manifest is a sweep's, which adds nothing but the key; the frame may be damaged."""
    return (our_manifest(file) or {}).keys() == {*STAMP, "key"} and not file.is_symlink()


def _remove_blocks(folder: Path) -> None:
    """Remove the blocks that a sweep has saved, and nothing else."""
    remove_frames(folder / "blocks", "[0-9]" * 6)


def _seconds_a_block(done: Sequence[Part]) -> float:
    """Return the median time between one finished block and the next, so that pauses do not count."""
    finished = np.sort([part.file.stat().st_mtime for part in done])
    return float(np.median(np.diff(finished))) if len(finished) > 1 else math.nan


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which the system releases when the process ends, in whatever way."""
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=1)  # someone may only be asking whether it runs
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
    except OSError:  # a folder that cannot be written to
        return False
