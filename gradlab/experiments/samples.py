"""A sample of a long frame: made again when a source has changed, and compared with the committed rows.

A long frame does not depend on the sources, so that an edit does not cost minutes; the sample sees to it that the edit
did not change the numbers either.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gradlab.experiments import frames
from gradlab.experiments.experiment import Experiment, Settings
from gradlab.lab.training import Training
from gradlab.store.artifacts import load_frame
from gradlab.store.pool import run_parts
from gradlab.store.stamps import read_stamp, write_stamp

CLOSE = 1e-6  # of a number, relative to 1 and to itself: what another processor's rounding becomes in most trainings
ROUNDED = 10  # times what rounding became when it was tried: a few tries do not find the largest


def check(
    stamp: Path, key: str, compare: Callable[[], Mapping[str, float]], remedy: str, *, fresh: bool,
    rounding: Callable[[Sequence[str]], Mapping[str, float]] = lambda names: dict.fromkeys(names, 0.0),
) -> list[str]:  # fmt: skip
    """Make a sample again and return in words, at most one line, where it differs from the committed rows.

    stamp    notes the key of the last check without a difference; nothing is made, and nothing said, where it is
             ``key``, unless ``fresh``.
    key      of all that the sample depends on.
    compare  makes the sample and returns the difference of each of its pieces, as ``difference`` gives it.
    remedy   says what to do where the difference is meant.
    rounding  returns what rounding alone becomes in these pieces, as a difference: asked of pieces that differ by more
              than ``CLOSE``, which then may differ by ``ROUNDED`` times as much.
    """
    if not fresh and read_stamp(stamp).get("key") == key:
        return []
    differing = {name: worst for name, worst in compare().items() if worst > CLOSE}
    if differing:
        rounded = rounding(list(differing))
        differing = {name: worst for name, worst in differing.items() if not worst < ROUNDED * rounded[name]}
    if differing:
        named = ", ".join(f"{name} (by {worst:.2g})" for name, worst in differing.items())
        return [f"THE SAMPLE DIFFERS from the committed rows: {named}. If that is meant, {remedy}"]
    write_stamp(stamp, {"key": key})
    return []


def difference(committed: pd.DataFrame, again: pd.DataFrame) -> float:
    """Return the largest difference of two frames' numbers, row by row, relative to 1 and to the number.

    It is ∞ where a column is new, the number of rows another, or something that is no finite number differs. A column
    that ``again`` lacks counts as empty there, as it is where frames of several parts are joined.
    """
    if not set(again) <= set(committed) or len(committed) != len(again):
        return np.inf
    both = again.reindex(columns=committed.columns)
    return max((_of_column(committed[name], both[name]) for name in committed), default=0.0)


def _of_column(old: pd.Series, new: pd.Series) -> float:
    if not all(pd.api.types.is_numeric_dtype(column.dtype) for column in (old, new)):
        words = (column.astype(object).where(column.notna(), None).tolist() for column in (old, new))
        return 0.0 if next(words) == next(words) else np.inf
    before, after = old.to_numpy(float, na_value=np.nan), new.to_numpy(float, na_value=np.nan)
    here = np.isfinite(before)
    if not np.array_equal(here, np.isfinite(after)) or not np.array_equal(before[~here], after[~here], equal_nan=True):
        return np.inf
    before, after = before[here], after[here]
    return float((np.abs(before - after) / (1 + np.abs(before))).max(initial=0.0))


def check_long(
    experiment: Experiment, data: Path, *, quick: bool, fresh: bool = False, workers: int | None = None
) -> list[str]:
    """Return in words what is wrong with a long experiment's frame under ``data``; [] where there is none.

    Where the frame is current, its sample is checked, see ``check``: the parts that ``experiment.sample`` picks.
    """
    path, again = frames.frame_path(experiment, data), f"run `gradlab figures {experiment.name}`"
    try:
        frame, manifest = load_frame(path)
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        return [f"{error}; restore it, or {again}"]
    if manifest.get("key") != frames.frame_key(experiment, quick):
        return [f"it is of other settings or another version than the code's, {experiment.version}; {again}"]
    if experiment.sample is None:
        return []
    key, picked = frames.sources_key(experiment), experiment.sample(frames.declared(experiment, quick))
    return check(
        stamp_of(experiment, data), f"{manifest['sha256']} {key}",
        lambda: _differences(experiment, frame, manifest, picked, quick, workers),
        f"raise its version and {again}", fresh=fresh, rounding=functools.partial(_rounding, experiment, picked),
    )  # fmt: skip


def rounding_in(run: Callable[..., pd.DataFrame], given: Settings) -> float:
    """Return what rounding becomes in the training of a run, as a difference; 0 for a run without one.

    run    a function of ``given``, of which ``training`` is run as it is, and twice with a rate that differs by two
           units of rounding, up and down.
    """
    training = given.get("training")
    if not isinstance(training, Training):
        return 0.0
    rates = (training.learning_rate * (1 + units * 2.0**-52) for units in (0, 2, -2))
    base, *others = (run(**{**given, "training": training.but(learning_rate=rate)}) for rate in rates)
    return max(difference(base, other) for other in others)


def _rounding(experiment: Experiment, picked: Sequence[Settings], names: Sequence[str]) -> dict[str, float]:
    by_name = {_named(number): part for number, part in enumerate(picked)}
    return {name: rounding_in(experiment.run_part, by_name[name]) for name in names}


def _named(number: int) -> str:
    return f"part {number + 1} of the sample"


def stamp_of(experiment: Experiment, data: Path) -> Path:
    """Return where the check of a long experiment's sample is noted."""
    return data / f"{experiment.name}.sample.json"


def _differences(
    experiment: Experiment, frame: pd.DataFrame, manifest: Mapping[str, Any], picked: list[Settings], quick: bool,
    workers: int | None,
) -> dict[str, float]:  # fmt: skip
    """Run parts again; return the difference of each from its rows in the frame, by the part's settings in words."""
    committed = frames.rows_of_parts(frame, manifest)
    with tempfile.TemporaryDirectory() as scratch:
        parts = frames.as_parts(experiment, quick, Path(scratch), picked)
        run_parts(frames.run_part, parts, label=f"{experiment.name}, sample", workers=workers)
        again = [load_frame(part.file)[0] for part in parts]
    nothing = pd.DataFrame()
    return {
        _named(number): difference(committed.get(part.file.stem, nothing), rows)
        for number, (part, rows) in enumerate(zip(parts, again, strict=True))
    }
