"""An experiment's frame: where it is kept, what it depends on, and how it is brought up to date, part by part."""

from __future__ import annotations

import contextlib
import importlib
import shutil
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd

from gradlab.artifacts import holds, load_frame, save_frame
from gradlab.parts import Part, run_parts
from gradlab.provenance import code_key, fingerprint

_DRAWING = ("gradlab.experiments", "gradlab.experiments.contrasts", "gradlab.experiments.frames")  # and judging


def settings_of(experiment: ModuleType, quick: bool) -> dict[str, Any]:
    """The declared settings, or their quick variant."""
    return {**experiment.SETTINGS, **(experiment.QUICK if quick else {})}


def frame_key(experiment: ModuleType, quick: bool) -> str:
    """What a frame depends on: settings, how parts are cut and run, the sources they import, library versions."""
    code = code_key(experiment.__name__, ["parts", "run_part"], without=_DRAWING)
    return fingerprint(settings_of(experiment, quick), code)


def load_or_run(experiment: ModuleType, data: Path, *, quick: bool, fresh: bool, workers: int | None = None) -> bool:
    """Make sure that the experiment's frame under ``data`` is there and not stale; True if it had to be run."""
    path, key = frame_path(experiment, data), frame_key(experiment, quick)
    if not fresh and holds(path, key):
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
    with tempfile.TemporaryDirectory() as scratch:
        folder = (resume or Path(scratch)) / short_name(experiment)
        key = frame_key(experiment, quick)
        parts = [
            Part({"module": experiment.__name__, "part": part}, folder / f"{fingerprint(part)}.parquet", key)
            for part in experiment.parts(settings_of(experiment, quick))
        ]
        run_parts(_run_part, parts, label=short_name(experiment), workers=workers)
        return pd.concat([load_frame(part.file)[0] for part in parts], ignore_index=True)


def is_current(experiment: ModuleType, data: Path, *, quick: bool) -> bool:
    """Whether the experiment's frame is there, whole, and what its settings and sources give now."""
    return holds(frame_path(experiment, data), frame_key(experiment, quick))


def frame_path(experiment: ModuleType, data: Path) -> Path:
    """Where the experiment's frame is kept."""
    return data / f"{short_name(experiment)}.parquet"


def short_name(experiment: ModuleType) -> str:
    """The experiment's name: its module's, with hyphens."""
    return experiment.__name__.rsplit(".", 1)[-1].replace("_", "-")


def _run_part(module: str, part: dict[str, Any]) -> pd.DataFrame:
    return importlib.import_module(module).run_part(**part)
