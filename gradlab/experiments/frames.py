"""An experiment's frame: where it is kept, what it depends on, and how it is brought up to date, part by part."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from gradlab.experiments.experiment import Experiment, Settings, plain
from gradlab.store.artifacts import holds, load_frame, make_way, remove_frames, save_frame
from gradlab.store.files import remove_leftovers
from gradlab.store.pool import Part, run_parts
from gradlab.store.provenance import code_key, fingerprint

_JUDGING = tuple(
    f"gradlab.experiments{name}" for name in ("", ".contrasts", ".experiment", ".frame_checks", ".predictions")
)


def declared(experiment: Experiment, quick: bool) -> Settings:
    """Return the declared settings, or their quick variant."""
    return {**experiment.settings, **(experiment.quick if quick else {})}


def settings_of(experiment: Experiment, quick: bool) -> Settings:
    """Return the declared settings, or their quick variant, as JSON-able data."""
    return plain(declared(experiment, quick))


def frame_key(experiment: Experiment, quick: bool) -> str:
    """Return a hash of all that a frame depends on: settings, sources, versions, how parts are cut, run and added.

    The code that judges, draws and words the frame does not count. A long experiment's hash has its version in place of
    sources and versions.
    """
    if experiment.version:
        return fingerprint(settings_of(experiment, quick), experiment.name, experiment.version)
    return fingerprint(settings_of(experiment, quick), sources_key(experiment))


def sources_key(experiment: Experiment) -> str:
    """Return a hash of the sources and versions that make an experiment's numbers, and of how its parts are cut."""
    functions = (experiment.parts, experiment.run_part, *([experiment.more] if experiment.more else []))
    return code_key(experiment.module, [function.__qualname__ for function in functions], without=_JUDGING)


def bring_up_to_date(
    experiments: Sequence[Experiment], data: Path, *, quick: bool, fresh: bool, workers: int | None = None
) -> list[Experiment]:
    """Bring these experiments' frames under ``data`` up to date; return the experiments that were run.

    The parts of all experiments are run together. Finished parts are kept until their frame is complete, so that an
    interrupted run goes on there.
    """
    remove_leftovers(data)
    stale = [experiment for experiment in experiments if fresh or not is_current(experiment, data, quick=quick)]
    parts = {experiment.name: _first(experiment, quick, data / ".parts") for experiment in stale}
    if fresh:
        for name in parts:
            remove_frames(data / ".parts" / name)
    wanted = parts
    while todo := [part for of_experiment in wanted.values() for part in of_experiment]:
        run_parts(run_part, todo, label="experiments", workers=workers)
        wanted = {
            experiment.name: _more(experiment, quick, data / ".parts", parts[experiment.name]) for experiment in stale
        }
        for name, further in wanted.items():
            parts[name] += further
    for experiment in stale:
        manifest = {"key": frame_key(experiment, quick), "settings": settings_of(experiment, quick), "quick": quick}
        frame, rows = _joined(parts[experiment.name])
        if experiment.version:
            manifest |= {"version": experiment.version, "parts": rows}
        make_way(frame_path(experiment, data))
        save_frame(frame, frame_path(experiment, data), manifest, overwrite=True)
    for experiment in experiments:  # also of those whose run was killed when their frame was saved
        remove_frames(data / ".parts" / experiment.name)
    with contextlib.suppress(OSError):  # other experiments may still have parts there
        (data / ".parts").rmdir()
    return stale


def run(experiment: Experiment, *, quick: bool = False, workers: int | None = None) -> pd.DataFrame:
    """Run all parts of an experiment into one tidy frame, in the order in which they are declared; nothing is kept.

    workers  processes; left out: one per core.
    """
    with tempfile.TemporaryDirectory() as scratch:
        parts = wanted = _first(experiment, quick, Path(scratch))
        while wanted:
            run_parts(run_part, wanted, label=experiment.name, workers=workers)
            wanted = _more(experiment, quick, Path(scratch), parts)
            parts = parts + wanted
        return _joined(parts)[0]


def is_current(experiment: Experiment, data: Path, *, quick: bool) -> bool:
    """Return whether the experiment's frame is there, whole, and made by today's settings and sources."""
    return holds(frame_path(experiment, data), frame_key(experiment, quick))


def progress(experiment: Experiment, data: Path) -> str:
    """Return in words how far a full run is; parts that precision may ask for later do not count."""
    if is_current(experiment, data, quick=False):
        return f"{experiment.name}: finished"
    parts = _first(experiment, False, data / ".parts")
    done = sum(part.is_done() for part in parts)
    return f"{experiment.name}: {done:,} of {len(parts):,} parts"


def frame_path(experiment: Experiment, data: Path) -> Path:
    """Return where the experiment's frame is kept."""
    return data / f"{experiment.name}.parquet"


def _first(experiment: Experiment, quick: bool, folder: Path) -> list[Part]:
    return as_parts(experiment, quick, folder, experiment.parts(declared(experiment, quick)))


def _more(experiment: Experiment, quick: bool, folder: Path, parts: Sequence[Part]) -> list[Part]:
    """Return the parts that precision asks for beside these, which have been run."""
    if experiment.more is None:
        return []
    further = as_parts(experiment, quick, folder, experiment.more(_joined(parts)[0], declared(experiment, quick)))
    twice = {part.file for part in further} & {part.file for part in parts}
    if twice:
        raise ValueError(f"more must ask {experiment.name} for parts that were not run, got {min(twice)}")
    return further


def as_parts(experiment: Experiment, quick: bool, folder: Path, settings: Sequence[Settings]) -> list[Part]:
    """Return the parts of an experiment with these settings, kept in a folder below ``folder``; for ``run_part``."""
    key = frame_key(experiment, quick)
    return [
        Part({"function": experiment.run_part, "part": part}, folder / experiment.name / _file(part), key)
        for part in settings
    ]


def _file(part: Settings) -> str:
    return f"{fingerprint(plain(part))}.parquet"


def _joined(parts: Sequence[Part]) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return the rows of all parts, and how many each part has, by its file's name without ending."""
    found = [load_frame(part.file)[0] for part in parts]
    sizes = {part.file.stem: len(rows) for part, rows in zip(parts, found, strict=True)}
    return pd.concat(found, ignore_index=True), sizes


def rows_of_parts(frame: pd.DataFrame, manifest: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Return the rows of each part of a long experiment's frame, by the names in its manifest."""
    found, start = {}, 0
    for name, size in manifest["parts"].items():
        found[name] = frame.iloc[start : start + size]
        start += size
    return found


def run_part(function: Callable[..., pd.DataFrame], part: Settings) -> pd.DataFrame:
    """Run a part, in whatever process."""
    return function(**part)
