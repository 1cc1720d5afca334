"""An experiment's frame: where it is kept, what it depends on, and how it is brought up to date, part by part."""

from __future__ import annotations

import contextlib
import importlib
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd

from gradlab.store.artifacts import holds, load_frame, save_frame
from gradlab.store.pool import Part, run_parts
from gradlab.store.provenance import code_key, fingerprint

_DRAWING = ("gradlab.experiments", "gradlab.experiments.contrasts", "gradlab.experiments.frames")  # and judging


def settings_of(experiment: ModuleType, quick: bool) -> dict[str, Any]:
    """The declared settings, or their quick variant."""
    return {**experiment.SETTINGS, **(experiment.QUICK if quick else {})}


def frame_key(experiment: ModuleType, quick: bool) -> str:
    """What a frame depends on: settings, how parts are cut and run, the sources they import, library versions."""
    code = code_key(experiment.__name__, ["parts", "run_part"], without=_DRAWING)
    return fingerprint(settings_of(experiment, quick), code)


def bring_up_to_date(
    experiments: Sequence[ModuleType], data: Path, *, quick: bool, fresh: bool, workers: int | None = None
) -> list[ModuleType]:
    """Make sure that these experiments' frames under ``data`` are there and not stale; those that had to be run.

    The parts of all of them are run together. Finished ones are kept until their frame is, so that an interrupted run
    goes on there.
    """
    stale = [one for one in experiments if fresh or not is_current(one, data, quick=quick)]
    parts = {short_name(one): _parts(one, quick, data / ".parts") for one in stale}
    if fresh:
        for name in parts:
            shutil.rmtree(data / ".parts" / name, ignore_errors=True)
    if stale:
        run_parts(_run_part, [part for some in parts.values() for part in some], label="experiments", workers=workers)
    for one in stale:
        manifest = {"key": frame_key(one, quick), "settings": settings_of(one, quick), "quick": quick}
        save_frame(_joined(parts[short_name(one)]), frame_path(one, data), manifest, overwrite=True)
        shutil.rmtree(data / ".parts" / short_name(one), ignore_errors=True)
    with contextlib.suppress(OSError):  # other experiments may still have parts there
        (data / ".parts").rmdir()
    return stale


def run(experiment: ModuleType, *, quick: bool = False, workers: int | None = None) -> pd.DataFrame:
    """All parts of an experiment as one tidy frame, in the order in which they are declared; nothing is kept.

    workers  processes; default: one a core.
    """
    with tempfile.TemporaryDirectory() as scratch:
        parts = _parts(experiment, quick, Path(scratch))
        run_parts(_run_part, parts, label=short_name(experiment), workers=workers)
        return _joined(parts)


def is_current(experiment: ModuleType, data: Path, *, quick: bool) -> bool:
    """Whether the experiment's frame is there, whole, and what its settings and sources give now."""
    return holds(frame_path(experiment, data), frame_key(experiment, quick))


def frame_path(experiment: ModuleType, data: Path) -> Path:
    """Where the experiment's frame is kept."""
    return data / f"{short_name(experiment)}.parquet"


def short_name(experiment: ModuleType) -> str:
    """The experiment's name: its module's, with hyphens."""
    return experiment.__name__.rsplit(".", 1)[-1].replace("_", "-")


def _parts(experiment: ModuleType, quick: bool, folder: Path) -> list[Part]:
    key, name = frame_key(experiment, quick), experiment.__name__
    return [
        Part({"module": name, "part": part}, folder / short_name(experiment) / f"{fingerprint(part)}.parquet", key)
        for part in experiment.parts(settings_of(experiment, quick))
    ]


def _joined(parts: Sequence[Part]) -> pd.DataFrame:
    return pd.concat([load_frame(part.file)[0] for part in parts], ignore_index=True)


def _run_part(module: str, part: dict[str, Any]) -> pd.DataFrame:
    return importlib.import_module(module).run_part(**part)
