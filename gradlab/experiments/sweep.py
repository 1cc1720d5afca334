"""Run an experiment's parts over processes: with progress, resumable, equal bits for any number of workers."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shutil
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
from joblib import Parallel, delayed
from tqdm import tqdm

from gradlab.artifacts import (
    definitions_hash,
    fingerprint,
    load_frame,
    load_manifest,
    save_frame,
    source_hash,
    versions,
)

# Changing these cannot change a number that a training gives.
_NO_NUMBERS = (
    "gradlab", "gradlab.plotting", "gradlab.intervals", "gradlab.artifacts", "gradlab.experiments",
    "gradlab.experiments.sweep", "gradlab.experiments.contrasts",
)  # fmt: skip


def settings_of(experiment: ModuleType, quick: bool) -> dict[str, Any]:
    """The declared settings, or their quick variant."""
    return {**experiment.SETTINGS, **(experiment.QUICK if quick else {})}


def frame_key(experiment: ModuleType, quick: bool) -> str:
    """What a frame depends on: settings, how parts are cut and run, the sources they import, library versions."""
    code = definitions_hash(experiment.__name__, ["parts", "run_part"])
    sources = source_hash(experiment.__name__, without=_NO_NUMBERS)
    return fingerprint(settings_of(experiment, quick), code, sources, versions())


def load_or_run(experiment: ModuleType, data: Path, *, quick: bool, fresh: bool, workers: int | None = None) -> bool:
    """Make sure that the experiment's frame under ``data`` is there and not stale; True if it had to be run."""
    path, key = frame_path(experiment, data), frame_key(experiment, quick)
    if not fresh and _is_current(path, key):
        return False
    frame = run(experiment, quick=quick, resume=None if fresh else data / ".parts", workers=workers)
    save_frame(frame, path, {"key": key, "settings": settings_of(experiment, quick), "quick": quick}, overwrite=True)
    shutil.rmtree(data / ".parts" / short_name(experiment), ignore_errors=True)
    with contextlib.suppress(OSError):  # other experiments may still have parts there
        (data / ".parts").rmdir()
    return True


def run(
    experiment: ModuleType, *, quick: bool = False, resume: Path | None = None, workers: int | None = None
) -> pd.DataFrame:
    """All parts of an experiment as one tidy frame, in the order in which they are declared.

    resume   a folder that keeps every finished part until the experiment is done: an interrupted run goes on there.
    workers  processes; default: one a core.
    """
    parts = experiment.parts(settings_of(experiment, quick))
    folder = resume / short_name(experiment) / frame_key(experiment, quick) if resume else None
    files = [folder / f"{fingerprint(part)}.parquet" if folder else None for part in parts]
    todo = [index for index, file in enumerate(files) if file is None or not _is_whole(file)]
    found: dict[int, pd.DataFrame] = {}
    jobs = (delayed(_run_part)(experiment.__name__, index, parts[index], files[index]) for index in todo)
    workers = min(workers or os.cpu_count() or 1, len(todo) or 1)
    done: Any = Parallel(n_jobs=workers, return_as="generator_unordered")(jobs)
    bar = tqdm(total=len(parts), initial=len(parts) - len(todo), desc=short_name(experiment), unit="part")
    with bar:
        try:
            for index, frame in done:
                found[index] = frame
                bar.update()
        except BrokenProcessPool:
            kept = "finished parts are kept, so run it again" if resume else "run it again"
            raise OSError(f"{short_name(experiment)}: a worker was killed, perhaps for memory; {kept}") from None
    for index, file in enumerate(files):
        if index not in found and file is not None:
            found[index] = load_frame(file)[0]
    return pd.concat([found[index] for index in range(len(parts))], ignore_index=True)


def is_current(experiment: ModuleType, data: Path, *, quick: bool) -> bool:
    """Whether the experiment's frame is there, whole, and what its settings and sources give now."""
    return _is_current(frame_path(experiment, data), frame_key(experiment, quick))


def frame_path(experiment: ModuleType, data: Path) -> Path:
    """Where the experiment's frame is kept."""
    return data / f"{short_name(experiment)}.parquet"


def short_name(experiment: ModuleType) -> str:
    """The experiment's name: its module's, with hyphens."""
    return experiment.__name__.rsplit(".", 1)[-1].replace("_", "-")


def _run_part(module: str, index: int, part: dict[str, Any], file: Path | None) -> tuple[int, pd.DataFrame]:
    frame = importlib.import_module(module).run_part(**part)
    if file is not None:
        save_frame(frame, file, {"part": json.loads(json.dumps(part))}, overwrite=True)
    return index, frame


def _is_whole(file: Path) -> bool:
    """Whether a part was finished; anything torn or foreign is run again."""
    try:
        load_frame(file)
    except (OSError, ValueError):
        return False
    return True


def _is_current(path: Path, key: str) -> bool:
    return path.exists() and _is_whole(path) and load_manifest(path).get("key") == key
