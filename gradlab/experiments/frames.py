"""An experiment's frame: where it is kept, what it depends on, and how it is brought up to date, part by part."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from gradlab.experiments.experiment import Experiment, Settings, plain
from gradlab.store.artifacts import holds, load_frame, make_way, remove_frames, save_frame
from gradlab.store.files import remove_leftovers
from gradlab.store.pool import Part, run_parts
from gradlab.store.provenance import code_key, fingerprint

_JUDGING = tuple(f"gradlab.experiments{name}" for name in ("", ".contrasts", ".experiment", ".frame_checks"))


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
    functions = (experiment.parts, experiment.run_part, *([experiment.more] if experiment.more else []))
    roots = [function.__qualname__ for function in functions]
    return fingerprint(settings_of(experiment, quick), code_key(experiment.module, roots, without=_JUDGING))


def bring_up_to_date(
    experiments: Sequence[Experiment], data: Path, *, quick: bool, fresh: bool, workers: int | None = None
) -> list[Experiment]:
    """Bring these experiments' frames under ``data`` up to date; return the experiments that were run.

    The parts of all experiments are run together. Finished parts are kept until their frame is complete, so that an
    interrupted run goes on there.
    """
    remove_leftovers(data)
    stale = [experiment for experiment in experiments if fresh or not is_current(experiment, data, quick=quick)]
    parts = {experiment.name: _parts(experiment, quick, data / ".parts") for experiment in stale}
    if fresh:
        for name in parts:
            remove_frames(data / ".parts" / name)
    wanted = parts
    while todo := [part for of_experiment in wanted.values() for part in of_experiment]:
        run_parts(_run_part, todo, label="experiments", workers=workers)
        wanted = {
            experiment.name: _more(experiment, quick, data / ".parts", parts[experiment.name]) for experiment in stale
        }
        for name, further in wanted.items():
            parts[name] += further
    for experiment in stale:
        manifest = {"key": frame_key(experiment, quick), "settings": settings_of(experiment, quick), "quick": quick}
        make_way(frame_path(experiment, data))
        save_frame(_joined(parts[experiment.name]), frame_path(experiment, data), manifest, overwrite=True)
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
        parts = wanted = _parts(experiment, quick, Path(scratch))
        while wanted:
            run_parts(_run_part, wanted, label=experiment.name, workers=workers)
            wanted = _more(experiment, quick, Path(scratch), parts)
            parts = parts + wanted
        return _joined(parts)


def is_current(experiment: Experiment, data: Path, *, quick: bool) -> bool:
    """Return whether the experiment's frame is there, whole, and made by today's settings and sources."""
    return holds(frame_path(experiment, data), frame_key(experiment, quick))


def frame_path(experiment: Experiment, data: Path) -> Path:
    """Return where the experiment's frame is kept."""
    return data / f"{experiment.name}.parquet"


def _parts(experiment: Experiment, quick: bool, folder: Path) -> list[Part]:
    return _as_parts(experiment, quick, folder, experiment.parts(declared(experiment, quick)))


def _more(experiment: Experiment, quick: bool, folder: Path, parts: Sequence[Part]) -> list[Part]:
    """Return the parts that precision asks for beside these, which have been run."""
    if experiment.more is None:
        return []
    further = _as_parts(experiment, quick, folder, experiment.more(_joined(parts), declared(experiment, quick)))
    twice = {part.file for part in further} & {part.file for part in parts}
    if twice:
        raise ValueError(f"more must ask {experiment.name} for parts that were not run, got {min(twice)}")
    return further


def _as_parts(experiment: Experiment, quick: bool, folder: Path, settings: Sequence[Settings]) -> list[Part]:
    key = frame_key(experiment, quick)
    return [
        Part({"function": experiment.run_part, "part": part}, folder / experiment.name / _file(part), key)
        for part in settings
    ]


def _file(part: Settings) -> str:
    return f"{fingerprint(plain(part))}.parquet"


def _joined(parts: Sequence[Part]) -> pd.DataFrame:
    return pd.concat([load_frame(part.file)[0] for part in parts], ignore_index=True)


def _run_part(function: Callable[..., pd.DataFrame], part: Settings) -> pd.DataFrame:
    return function(**part)
