"""Long work in parts: spread over processes, each part kept as it comes, resumed, and not lost to a killed worker."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from joblib import Parallel, delayed
from joblib.externals.loky import get_reusable_executor
from tqdm import tqdm

from gradlab.checks import count
from gradlab.store.artifacts import holds, save_frame

DEATHS = 3  # how often workers may die in a row, with no part finished in between, before the work is given up


@dataclass(frozen=True)
class Part:
    """One piece of work: what the function is called with, where its frame is kept, and how much it counts.

    arguments  of the function, by name; sent to a process.
    file       ends in .parquet.
    key        what the frame depends on: a file with another key is another part's, and is made again.
    size       for the progress bar, in its unit.
    """

    arguments: Mapping[str, Any]
    file: Path
    key: str
    size: int = 1

    def is_done(self) -> bool:
        """Whether its file is there, whole, and this part's."""
        return holds(self.file, self.key)


def processes(workers: int | None) -> int:
    """So many processes; None: one a core. ValueError for less than one."""
    return os.cpu_count() or 1 if workers is None else count("workers", workers, least=1)


@contextlib.contextmanager
def calm() -> Iterator[None]:
    """Use joblib's processes without its alarms, and end them at once where the work is broken off."""
    with warnings.catch_warnings():
        # It replaces workers whose memory has grown: nothing is lost by that.
        warnings.filterwarnings("ignore", "A worker stopped while some jobs were given", UserWarning)
        try:
            yield
        except BaseException:
            get_reusable_executor().shutdown(wait=True, kill_workers=True)
            raise


def run_parts(
    function: Callable[..., pd.DataFrame],
    parts: Sequence[Part],
    *,
    label: str,
    unit: str = "part",
    workers: int | None = None,
    progress: bool = True,
) -> None:
    """Make sure that every part's file is there: what is done is left alone, what is missing is run and saved.

    function  importable by name in other processes; what it gives depends on its arguments alone.
    workers   processes; default: one a core. The number changes no bit.

    Within ``joblib.parallel_config(backend="dask", …)`` dask's workers do the work, however many there are.

    A frame is saved by this process, whole or not at all, as soon as it comes. Where a worker is killed, what is left
    is started again (dask has ways of its own); OSError if that happens ``DEATHS`` times without a part being finished.
    """
    workers = processes(workers)
    todo = {index: part for index, part in enumerate(parts) if not part.is_done()}
    total = sum(part.size for part in parts)
    bar = tqdm(total=total, initial=total - _size(todo), desc=label, unit=unit, disable=not progress)
    deaths = 0
    with bar, calm():
        while todo:
            jobs = [delayed(_run)(function, index, part.arguments) for index, part in todo.items()]
            pool = Parallel(n_jobs=min(workers, len(todo)), return_as="generator_unordered")
            try:
                for index, frame in pool(jobs):  # type: ignore[union-attr]
                    part = todo.pop(index)
                    save_frame(frame, part.file, {"key": part.key}, overwrite=True)
                    bar.update(part.size)
                    deaths = 0
            except BrokenProcessPool:
                deaths += 1
                if deaths == DEATHS:
                    raise OSError(
                        f"{label}: workers were killed {DEATHS} times, perhaps for memory; finished {unit}s are kept, "
                        f"so run it again, with fewer than {workers} workers"
                    ) from None
                warnings.warn(f"{label}: a worker was killed; going on with what is left", stacklevel=2)


def _run(function: Callable[..., pd.DataFrame], index: int, arguments: Mapping[str, Any]) -> tuple[int, pd.DataFrame]:
    return index, function(**arguments)


def _size(parts: Mapping[int, Part]) -> int:
    return sum(part.size for part in parts.values())
