"""Measurements of every benchmark: cases by turns, one thread, peak memory in fresh processes, and on which machine."""

from __future__ import annotations

import contextlib
import datetime
import functools
import math
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Generic, TypeVar

import pandas as pd
import torch
from tqdm import tqdm

from gradlab.lab.descent import steady
from gradlab.store.csv_text import csv_text
from gradlab.store.files import Content, write_whole
from gradlab.store.pool import end_with
from gradlab.store.provenance import commit, versions

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "figures/benchmarks"
FRESH = get_context("spawn")  # processes that begin with nothing of this one's
Step = Callable[[], object]
Way = TypeVar("Way")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Measured(Generic[Way]):
    """A frozen record of one measurement: its round from 0, its way, and seconds by the clock and of the processor."""

    round: int
    way: Way
    seconds: float
    cpu_seconds: float


def in_turn(
    steps: Mapping[Way, Step],
    rounds: int,
    title: str,
    *,
    order: Sequence[Way] = (),
    device: str = "cpu",
    warm: int = 0,
    limit: float = math.inf,
    before: Step | None = None,
) -> Iterator[Measured[Way]]:
    """Measure every way in every round; the order turns around from round to round, so that a drift hits all alike.

    order   the ways of a round, where some come more than once; default: each once.
    device  "cuda" waits for the GPU and times by its events.
    warm    rounds before the first, with every way once, which are not given.
    limit   seconds after which no round begins, once there are three.
    before  a step that begins each round and is not timed: new sizes cost a GPU memory and kernels once.
    """
    ways = list(steps)
    order = list(order) or ways
    begun = math.inf
    with tqdm(total=warm * len(ways) + rounds * len(order), desc=title, disable=not sys.stderr.isatty()) as bar:
        for turn in range(-warm, rounds):
            if turn >= 3 and time.perf_counter() - begun > limit:
                return
            begun = time.perf_counter() if turn == 0 else begun
            if before:
                before()
            for way in (order if turn >= 0 else ways)[:: -1 if turn % 2 else 1]:
                seconds, cpu_seconds = timed(steps[way], device)
                bar.update()
                if turn >= 0:
                    yield Measured(turn, way, seconds, cpu_seconds)


def timed(step: Step, device: str = "cpu") -> tuple[float, float]:
    """Return the seconds that a step takes by the clock (of a GPU: by its events), and of this process's processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    if device == "cuda":
        begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begun.record()
        step()
        ended.record()
        ended.synchronize()
        return begun.elapsed_time(ended) / 1e3, time.process_time() - cpu
    step()
    return time.perf_counter() - wall, time.process_time() - cpu


def one_thread() -> contextlib.AbstractContextManager[None]:
    """Let PyTorch use one thread inside: a second one that waits for a busy core would drown the differences."""
    return steady("cpu")


def compared(
    times: pd.DataFrame, by: list[str], way: str, seconds: str = "seconds"
) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]:
    """Give each way's name, its measurements, and the seconds of all ways by round, so that ratios pair rounds.

    times  one row per measurement, with the columns ``by`` (what ways must share to be compared), ``way``, ``round``
           and ``seconds``.
    The last has one row per round and one column per way: the median, where a way is measured often in a round.
    """
    for _, together in times.groupby(by, sort=False):
        rounds = together.groupby(["round", way], sort=False)[seconds].median().unstack(way)
        for name, rows in together.groupby(way, sort=False):
            yield str(name), rows, rounds


@contextlib.contextmanager
def drawing(device: str = "cpu") -> Iterator[None]:
    """Draw equal random weights and inputs inside in every call, and leave PyTorch's generators as they were."""
    with torch.random.fork_rng([torch.cuda.current_device()] if device == "cuda" else []):
        torch.manual_seed(0)
        yield


# --- in fresh processes ---


@dataclass(frozen=True)
class Peak:
    """The most memory, in MB, that a process has held: after its imports, with its inputs made, and at its end."""

    imports: float
    ready: float
    end: float


def peak_of(make: Callable[..., Step], *arguments: Any, steps: int = 1, device: str = "cpu") -> Peak:
    """Measure memory in a fresh process of one thread that imports ``make``'s module, makes its step and runs it.

    make    a function at the top of a module; gets ``arguments``, which are pickled.
    device  "cuda": the end is the most that PyTorch held of the GPU, and not of the process.
    """
    return alone(_watched, make, arguments, steps, device)


def _watched(make: Callable[..., Step], arguments: Sequence[Any], steps: int, device: str) -> Peak:
    imports = peak_mb()
    step = make(*arguments)
    ready = peak_mb()
    for _ in range(steps):
        step()
    return Peak(imports, ready, torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else peak_mb())


def alone(work: Callable[..., Result], *arguments: Any) -> Result:
    """Return what ``work``, a function at the top of a module, returns in a fresh process of one thread."""
    with ProcessPoolExecutor(1, FRESH, initializer=_begin, initargs=(os.getpid(),)) as pool:
        return pool.submit(work, *arguments).result()


def _begin(parent: int) -> None:
    end_with(parent)
    torch.set_num_threads(1)


@dataclass(frozen=True)
class Worker:
    """A process that waits: ``begin`` has it run its step once, ``wait`` returns when that is done."""

    begin: Step
    wait: Step


@contextlib.contextmanager
def worker(make: Callable[..., Step], *arguments: Any) -> Iterator[Worker]:
    """Make the step of ``make`` in a fresh process of one thread, which is ready when it is given, and ends with this.

    Waiting for it raises EOFError where it has ended before its answer.
    """
    here, there = FRESH.Pipe()
    process = FRESH.Process(target=_serve, args=(there, make, arguments))
    process.start()
    there.close()
    try:
        here.recv()
        yield Worker(functools.partial(here.send, None), here.recv)
    finally:
        here.close()
        process.join()


def _serve(there: Connection, make: Callable[..., Step], arguments: Sequence[Any]) -> None:
    torch.set_num_threads(1)  # of this process, which is the worker's alone
    step = make(*arguments)
    there.send(None)
    with contextlib.suppress(EOFError):  # nobody asks any more
        while True:
            there.recv()
            step()
            there.send(None)


def peak_mb() -> float:
    """Return the peak of this process's resident memory, in MB."""
    # On Linux getrusage's peak starts at the parent's size at the fork, so the kernel's own count goes first.
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        if "VmHWM" in lines:
            return float(lines["VmHWM"].split()[0]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024


# --- what is kept ---


@contextlib.contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Set these environment variables inside, for this process and those that it starts, and restore them after."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def machine(libraries: Sequence[str], *, device: str = "cpu") -> str:
    """Return a sentence on when, from which commit, on what and with which libraries something was measured."""
    import llvmlite.binding as llvm  # here, so that processes whose memory is measured do without

    parts = [
        f"{datetime.date.today()}, commit {commit() or 'unknown'}",
        *([torch.cuda.get_device_name()] if device == "cuda" else []),
        f"{os.cpu_count()} cores ({platform.machine()}, {llvm.get_host_cpu_name()})",
        f"{platform.system()}, Python {platform.python_version()}",
        *(f"{name} {version}" for name, version in versions(libraries).items()),
    ]
    return f"{', '.join(parts)}."


def write_results(folder: Path, name: str, table: pd.DataFrame, page: str, picture: Content | None = None) -> None:
    """Write NAME.csv and NAME.md, and NAME.png where there is a picture, all or none."""
    files: dict[Path, Content] = {
        folder / f"{name}.csv": csv_text(table, float_format="%.6g"), folder / f"{name}.md": page,
    }  # fmt: skip
    write_whole({**files, folder / f"{name}.png": picture} if picture else files)
