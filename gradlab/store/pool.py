"""Long work in parts: spread over processes, saved part by part, resumed, and not lost when a worker is killed."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from joblib import Parallel, delayed
from joblib.externals.loky import get_reusable_executor
from tqdm import tqdm

from gradlab.checks import count
from gradlab.console import printable
from gradlab.store.artifacts import holds, make_way, save_frame

_SAFE_PATH = "PYTHONSAFEPATH"
DEATHS = 3  # how often workers may die in a row, with no part finished in between, before the work is given up
LOOK = 1.0  # seconds between two looks of a worker at its parent


@dataclass(frozen=True)
class Part:
    """A piece of work: the arguments of a function, the file of the frame that it returns, and its size.

    arguments  of the function, by name; they are sent to a process.
    file       where the frame is saved; ends in .parquet.
    key        of all that the frame depends on: a file with another key is made again.
    size       what the part adds to the progress bar, in its unit.
    """

    arguments: Mapping[str, Any]
    file: Path
    key: str
    size: int = 1

    def is_done(self) -> bool:
        """Return whether the part's file is there and whole, and has its key."""
        return holds(self.file, self.key)


def processes(workers: int | None) -> int:
    """Return the number of processes: ``workers``, or one per core for None. ValueError for less than one."""
    return os.cpu_count() or 1 if workers is None else count("workers", workers, least=1)


@contextlib.contextmanager
def calm() -> Iterator[None]:
    """Use joblib's processes without its warnings of replaced workers; end them at once when the work is stopped.

    They start without the current folder among the places of modules, where a file named as a module may lie that
    nobody meant to run. Then they take this process's places, so that they find what it finds.
    """
    with warnings.catch_warnings(), _safe_path():
        # joblib replaces workers whose memory has grown: nothing is lost by that.
        warnings.filterwarnings("ignore", "A worker stopped while some jobs were given", UserWarning)
        try:
            yield
        except BaseException:
            get_reusable_executor().shutdown(wait=True, kill_workers=True)
            raise


def pool_of(workers: int, order: Literal["generator", "generator_unordered"]) -> Parallel:
    """Return joblib's pool of processes, or dask's where that is joblib's backend; use it inside ``calm``.

    order  whether results come in the order of the jobs or as they are ready.

    joblib's processes end within ``LOOK`` seconds after this one, also where it is killed; dask's are left alone.
    """
    return Parallel(n_jobs=workers, return_as=order, initializer=end_with, initargs=(os.getpid(),))


def end_with(parent: int) -> None:
    """End this process soon after its parent has ended, in whatever way. What it was doing is lost.

    A thread looks every ``LOOK`` seconds: Linux could send a signal instead, but does so as soon as the parent's
    thread that started this process ends.
    """

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK)
        os._exit(1)

    threading.Thread(target=look, name="gradlab-parent", daemon=True).start()


@contextlib.contextmanager
def _safe_path() -> Iterator[None]:
    """Let Python's processes that start inside leave the current folder out of ``sys.path``."""
    before = os.environ.get(_SAFE_PATH)
    os.environ[_SAFE_PATH] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SAFE_PATH]
        else:
            os.environ[_SAFE_PATH] = before


def run_parts(
    function: Callable[..., pd.DataFrame | None],
    parts: Sequence[Part],
    *,
    label: str,
    unit: str = "part",
    workers: int | None = None,
    progress: bool = True,
    saved: Callable[[Part], object] | None = None,
) -> None:
    """Make sure that the file of every part is there: run and save the parts that are not done.

    function  importable by name in other processes; its result depends on its arguments alone. None says that it has
              stopped before its end: such a part is left as it is.
    workers   processes; by default one per core. The number changes no bit.
    saved     is called in this process with each part that was run, as soon as its frame is on the disk.

    Within ``joblib.parallel_config(backend="dask", …)`` the work is done by dask's workers, however many there are.

    This process saves each frame, whole or not at all, as soon as it arrives. When a worker is killed, the parts that
    are left are started again (dask restarts its workers itself). Raises OSError when that happens ``DEATHS`` times
    in a row without a part being finished.
    """
    workers = processes(workers)
    todo = {index: part for index, part in enumerate(parts) if not part.is_done()}
    total = sum(part.size for part in parts)
    bar = tqdm(total=total, initial=total - _size(todo), desc=printable(label), unit=unit, disable=not progress)
    deaths = 0
    with bar, calm():
        while todo:
            jobs = [delayed(_run)(function, index, part.arguments) for index, part in todo.items()]
            pool = pool_of(min(workers, len(todo)), "generator_unordered")
            try:
                for index, frame in pool(jobs):  # type: ignore[union-attr]
                    part = todo.pop(index)
                    if frame is None:
                        continue
                    make_way(part.file)
                    save_frame(frame, part.file, {"key": part.key}, overwrite=True)
                    bar.update(part.size)
                    deaths = 0
                    if saved is not None:
                        saved(part)
            except BrokenProcessPool:
                deaths += 1
                if deaths == DEATHS:
                    raise OSError(
                        f"{label}: workers were killed {DEATHS} times, perhaps for memory; finished {unit}s are kept, "
                        f"so run it again, with fewer than {workers} workers"
                    ) from None
                warnings.warn(f"{label}: a worker was killed; going on with what is left", stacklevel=2)


def _run(
    function: Callable[..., pd.DataFrame | None], index: int, arguments: Mapping[str, Any]
) -> tuple[int, pd.DataFrame | None]:
    return index, function(**arguments)


def _size(parts: Mapping[int, Part]) -> int:
    return sum(part.size for part in parts.values())
