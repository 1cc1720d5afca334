"""The log of a language model's preference training: an appender, and a reader that also knows others' logs."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gradlab.checks import count, in_words, one_of, path_text
from gradlab.doctor.log_columns import COLUMNS
from gradlab.doctor.log_rows import ACCEPTED, FORMAT, HEADER, is_board, log_rows
from gradlab.doctor.log_table import Table, whole_step
from gradlab.store.json_lines import append_line, keep_lines, start_lines, stream_lines

LOG = "log.jsonl"  # in the folder of a training
SAMPLES = "samples.jsonl"  # beside the log of a training that samples responses: some of them, on the way


def start_log(path: Path | str, settings: Mapping[str, Any]) -> None:
    """Begin a log with its header line; FileExistsError where there is one already (see ``keep_steps``)."""
    start_lines(path, {HEADER: FORMAT, "settings": dict(settings)})


def append_step(path: Path | str, step: int, **values: float) -> None:
    """Append the line of a step, whole. ValueError for a name that is not in ``COLUMNS``, validation_ aside."""
    for name in values:
        one_of("column of a training log", name.removeprefix("validation_"), COLUMNS)
    append_line(path, {"step": count("step", step), **{name: float(value) for name, value in values.items()}})


def append_samples(path: Path | str, step: int, samples: Iterable[Mapping[str, Any]]) -> None:
    """Append the samples of a step, an object per prompt and line."""
    for record in samples:
        append_line(path, {"step": count("step", step), **record})


def keep_steps(path: Path | str, last: int) -> None:
    """Drop all lines after step ``last`` of a log or of samples, from which a killed run resumes.

    ValueError with one line for a step that is not a whole number ≥ 0.
    """
    for number, row in stream_lines(path, ACCEPTED, lambda _: None):
        if "step" in row and whole_step(row["step"], f"{path}, line {number}") > last:
            keep_lines(path, number - 1)
            return


def read_log(path: Path | str) -> pd.DataFrame:
    """Read a training log as a frame with one row per step, in order, and gradlab's names; other columns are kept.

    It recognises gradlab's JSON lines, TRL's trainer_state.json, and tables as CSV, JSON or JSON lines with the names
    of gradlab, TRL, LLaMA-Factory, OpenRLHF, verl or the DPO authors, also with the prefixes ``train/`` and ``eval/``
    of Weights & Biases; and the curve that TensorBoard exports, whose column its file's name tells, or a
    folder of such files or of TensorBoard's event files. Lines of one step
    are joined; the later one wins. Where a log has several names of one column, the others are kept as they are.

    ``attrs`` of the frame: ``settings`` of the run where the log has them; ``not_finite``, by column the place in the
    file of the first number that is not finite; and ``notes``, a list of what is to be said about the file, such as a
    last line that was cut short, ``not_finite`` included.

    ValueError or OSError with one line that names the file, the place and the fault.
    """
    path = Path(path_text("path", path))
    if not path.is_file() and not is_board(path):
        raise FileNotFoundError(f"{in_words(path)} is no file; {ACCEPTED}")
    settings: dict[str, Any] = {}
    notes: list[str] = []
    table = Table(path)
    for line, row in log_rows(path, settings, notes):
        table.add(line, row)
    frame, not_finite, said = table.frame()
    if frame.empty:
        raise ValueError(f"{path} has no step; {ACCEPTED}")
    frame.attrs = {"settings": settings, "notes": [*notes, *not_finite_notes(not_finite), *said],
                   "not_finite": not_finite}  # fmt: skip
    return frame


def not_finite_notes(not_finite: Mapping[str, str]) -> list[str]:
    """Return the notes of ``read_log`` on columns that are not finite: one per column, with the place in the file."""
    return [f"{name} is not finite, first at {place}" for name, place in not_finite.items()]


def positive_number(value: Any) -> float | None:
    """Return a number of a file's settings that is finite and > 0; None for anything else."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    return float(value) if 0 < value < sys.float_info.max else None


def smoothed(log: pd.DataFrame, share: float) -> pd.DataFrame:
    """Return the running mean of columns of a log: with each row of the log a value's weight shrinks by ``share``.

    The weights are normalised, so that the first values are not drawn to 0; ``share`` 0 gives the values themselves.
    What is absent or not finite stays out, and is NaN in the result, but counts as a row: columns that are logged now
    and then keep pace with the others.
    """
    if share == 0:
        return log.where(log.abs() < math.inf)
    from scipy.signal import lfilter  # in a fifth of pandas' time

    values = log.to_numpy(float).T
    known = np.isfinite(values)
    gaps = ~known.all(axis=1)
    means = lfilter([1.0], [1.0, -share], np.where(known, values, 0.0) if gaps.any() else values)
    means[~gaps] /= (1 - share ** np.arange(1, len(log) + 1)) / (1 - share)
    with np.errstate(divide="ignore", invalid="ignore"):
        means[gaps] /= lfilter([1.0], [1.0, -share], known[gaps].astype(float))
    means[~known] = math.nan
    return pd.DataFrame(means.T, index=log.index, columns=log.columns)
