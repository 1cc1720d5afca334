"""Speed of ``gradlab.lab.engine``: against autograd, eager ``fit`` and JAX, and how its cost and memory grow.

Writes ``engine.md``, ``engine.csv`` and ``engine.png`` into figures/benchmarks, and prints the page. ``make bench``
runs it. Everything takes turns in one run, on one thread unless it says otherwise.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
import tyro
from tqdm import tqdm

from gradlab.lab import engine
from gradlab.lab.descent import recorded_steps
from gradlab.lab.fit import fit
from gradlab.lab.problem import PairProblem
from gradlab.lab.runs import Runs
from gradlab.lab.training import Training
from gradlab.lab.world import World, exact_pairs, gaussian_world
from gradlab.losses import pair_loss
from scripts.benchmarks.engine_page import page
from scripts.benchmarks.lab_speed import LEARNING_RATE, hand_written_loop
from scripts.benchmarks.timing import (
    RESULTS,
    Step,
    alone,
    compared,
    environment,
    in_turn,
    one_thread,
    peak_of,
    timed,
    worker,
    write_results,
)

DTYPES = ("float64", "float32")
JAX_LOSSES, JAX_RUNS = ("dpo", "bdpo"), 200  # what is written in JAX, and the largest sweep that it is measured on
AGREEMENT = {"float64": 1e-6, "float32": 1e-4}  # of JAX's final probabilities with those of fit


@dataclass(frozen=True)
class Extent:
    """How much is measured. ``growth`` is of one size at a time, the others being 1 run, 20 prompts, 20 responses."""

    losses: Sequence[str] = ("dpo", "bdpo", "nbdpo")
    steps: int = 500
    sweeps: Mapping[int, int] = field(default_factory=lambda: {20: 500, 200: 500, 600: 200})  # steps by runs
    growth: Mapping[str, Sequence[int]] = field(
        default_factory=lambda: {
            "responses": (20, 50, 100, 200, 400),
            "prompts": (20, 50, 100, 200, 400),
            "runs": (1, 2, 5, 20, 60, 200, 600),
        }
    )
    work: int = 2**26  # slots × steps of one measurement of growth: these bound its steps
    fewest: int = 100
    memory: Sequence[tuple[str, int]] = tuple(product(("eager", "fit"), (1, 20, 60, 200, 600)))
    workers: Sequence[int] = (1, 2)
    worker_runs: int = 20
    starts: Sequence[tuple[str, str]] = (("fit", "float64"), ("fit", "float32"), ("jax", "float64"))
    starts_each: int = 3
    rounds: int = 3
    repeats: int = 3  # within a round, except in sweeps


QUICK = Extent(
    losses=("bdpo",), steps=10, sweeps={2: 10}, growth={"responses": (5, 10), "prompts": (5, 10), "runs": (1, 2)},
    work=2**10, fewest=5, memory=(("fit", 2),), workers=(1,), worker_runs=2, starts=(("fit", "float64"),),
    starts_each=1, rounds=1, repeats=1,
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A frozen record of one measurement to be made; each field is a column of engine.csv."""

    part: str
    way: str
    dtype: str
    loss: str = "bdpo"
    runs: int = 1
    prompts: int = 20
    responses: int = 20
    steps: int = 500
    workers: int = 1

    @property
    def slots(self) -> int:
        """Ordered pairs, the diagonal included, that one step visits."""
        return self.runs * self.prompts * self.responses**2 * self.workers


def bench(folder: Path = RESULTS, quick: bool = False, rounds: int = Extent.rounds) -> None:
    """Measure, print and save.

    Args:
        folder: Where engine.md, engine.csv and engine.png go.
        quick: Little of everything: shows that it works, and nothing about speed.
        rounds: How often everything takes its turn; one with --quick.
    """
    from scripts.benchmarks.engine_plot import save  # here, since the processes below need no drawing

    extent = QUICK if quick else Extent(rounds=rounds)
    with one_thread(), _kernels_apart():
        times = measure_times(extent)
        table = summarise(times)
        table = pd.concat([table, measure_peaks(extent), measure_starts(extent)], ignore_index=True)
        disagreement = compare_with_jax(extent) if has_jax() else None
    text = page(table, disagreement, processor_share(times), quick)
    write_results(folder, "engine", table, text, functools.partial(save, table, quick=quick))
    print(text)  # a warning of lost vectors is in it


def all_cases(extent: Extent) -> list[Case]:
    """Return all cases that are timed, in the order of a round."""
    cases = []
    for dtype in DTYPES:
        for loss in extent.losses:
            one = Case("one run", "loop", dtype, loss, steps=extent.steps)
            ways = ["loop", "eager", *_jax_ways(loss), "fit", "engine"]
            cases += [replace(one, way=way) for way in ways]
            cases.append(replace(one, part="one run, twice the steps", way="engine", steps=2 * extent.steps))
        for runs, steps in extent.sweeps.items():
            ways = ["eager", *(_jax_ways("bdpo") if runs <= JAX_RUNS else []), "fit", "engine"]
            cases += [Case("sweep", way, dtype, runs=runs, steps=steps) for way in ways]
        # 1024 numbers, in the first cache; for PyTorch 16 times as many, which hide the cost of its calls.
        cases.append(Case("bound", "sigmoid", dtype, prompts=1, responses=32, steps=20 * extent.steps))
        cases.append(Case("bound", "torch.sigmoid", dtype, prompts=1, responses=128, steps=2 * extent.steps))
        for what, sizes in extent.growth.items():
            cases += [_grown(extent, replace(Case(what, "engine", dtype), **{what: size})) for size in sizes]
        for what in ("threads", "processes"):
            share = Case(what, what, dtype, runs=extent.worker_runs, steps=extent.fewest)
            cases += [replace(share, workers=workers) for workers in extent.workers]
    return cases


def _grown(extent: Extent, case: Case) -> Case:
    return replace(case, steps=min(max(extent.work // case.slots, extent.fewest), extent.steps))


def _jax_ways(loss: str) -> list[str]:
    return ["jax", "jax tuned"] if has_jax() and loss in JAX_LOSSES else []


def measure_times(extent: Extent) -> pd.DataFrame:
    """Measure seconds of every case, one row per measurement; all cases take turns within a round, forth and back."""
    with contextlib.ExitStack() as stack:
        works = {case: PREPARE[case.way](case, stack) for case in all_cases(extent)}
        order = [case for case in works for _ in range(1 if case.part == "sweep" else extent.repeats)]
        times = pd.DataFrame(
            {**asdict(one.way), "round": one.round, "slots": one.way.slots, "wall_seconds": one.seconds,
             "cpu_seconds": one.cpu_seconds}
            for one in in_turn(works, extent.rounds, "timing", order=order, warm=1)
        )  # fmt: skip
    times.loc[times["way"] == "processes", "cpu_seconds"] = np.nan  # which is other processes' time
    return times


def summarise(times: pd.DataFrame) -> pd.DataFrame:
    """Return one row per case: medians, time per slot and step, and how many times as fast as others per round."""
    shared = [name for name in (*Case.__dataclass_fields__, "slots") if name != "way"]
    rows = []
    for way, own, rounds in compared(times, shared, "way", "wall_seconds"):
        case = own.iloc[0][[*Case.__dataclass_fields__, "slots"]]
        row = {
            **case, "measurements": len(own), "wall_seconds": own["wall_seconds"].median(),
            "cpu_seconds": own["cpu_seconds"].median(),
        }  # fmt: skip
        for clock in ("wall", "cpu"):
            row[f"{clock}_ns"] = row[f"{clock}_seconds"] / (row["slots"] * row["steps"]) * 1e9
        for other in ("loop", "eager", "jax", "jax tuned"):
            ratio = (rounds[other] / rounds[way]).median() if other in rounds else np.nan
            row[f"times_as_fast_as_{other.replace(' ', '_')}"] = ratio
        rows.append(row)
    return pd.DataFrame(rows)


def processor_share(times: pd.DataFrame) -> pd.Series:
    """Return processor time over wall time by way: below 1 others had the processor, above 1 it was not one thread."""
    sums = times.dropna(subset=["cpu_seconds"]).groupby("way", sort=False)[["cpu_seconds", "wall_seconds"]].sum()
    return sums["cpu_seconds"] / sums["wall_seconds"]


# --- what is measured: each gives the work, its inputs made beforehand ---


def _loop(case: Case, stack: contextlib.ExitStack) -> Step:
    world, loss, dtype = _worlds(case)[0], pair_loss(case.loss), getattr(torch, case.dtype)
    return lambda: hand_written_loop(world, loss, case.steps, dtype)


def _fit(case: Case, stack: contextlib.ExitStack, how: Literal["eager", "fused"]) -> Step:
    return functools.partial(
        fit, _worlds(case), pair_loss(case.loss), steps=case.steps, learning_rate=LEARNING_RATE, record=1,
        seed=range(case.runs), dtype=getattr(torch, case.dtype), engine=how,
    )  # fmt: skip


def _engine(case: Case, stack: contextlib.ExitStack) -> Step:
    """Call the engine itself: arrays in, log π out."""
    runs = Runs.of(_worlds(case), None, None, 0)
    problem = PairProblem(runs, pair_loss(case.loss), runs.data(), runs.start(None))
    training = Training(learning_rate=LEARNING_RATE, steps=case.steps, dtype=case.dtype)
    return functools.partial(engine.fused, problem, training, recorded_steps(case.steps, 1))


def train_with_jax(case: Case, tuned: bool) -> Callable[[], np.ndarray]:
    """Return a training by JAX: arrays in, log π (R, X, Y) out."""
    from scripts.benchmarks.jax_reference import training

    arrays = _arrays(case.runs, case.prompts, case.responses)
    return training(case.loss, *arrays, case.dtype, case.steps, LEARNING_RATE, tuned)


def _threads(case: Case, stack: contextlib.ExitStack) -> Step:
    work = _engine(case, stack)
    pool = stack.enter_context(ThreadPoolExecutor(case.workers))
    return lambda: list(pool.map(lambda _: work(), range(case.workers)))


def _processes(case: Case, stack: contextlib.ExitStack) -> Step:
    """Let each worker, a process of its own, train at the same time."""
    workers = [stack.enter_context(worker(_alone, replace(case, way="engine"))) for _ in range(case.workers)]

    def work() -> None:
        for one in workers:
            one.begin()
        for one in workers:
            one.wait()

    return work


def _alone(case: Case) -> Step:
    """Return the work of a case that a process of its own prepares, and leaves to its end."""
    return PREPARE[case.way](case, contextlib.ExitStack())


def vector_sigmoid(case: Case, stack: contextlib.ExitStack) -> Step:
    """Return the work of the bound: nothing but the engine's own sigmoid, again and again on one array in the cache.

    The one place that looks inside the engine: at its vectors, its sigmoid and its compiler.
    """
    from gradlab.lab.engine import functions, machine
    from gradlab.lab.engine.vectors import ALIGNMENT, LANES, Emitter, Kind

    arguments: dict[str, Kind] = {"turns": "integer", "count": "integer", "values": "rows"}
    emitter = Emitter("sigmoids", case.dtype, arguments)
    turns, count, values = (emitter.arguments[name] for name in arguments)
    with emitter.loop(turns), emitter.loop(count) as row:
        values[row] = functions.sigmoid(values[row])  # in place: no turn is the same as the one before
    kernel = machine.Kernel(machine.compile(emitter.finish()), "sigmoids", arguments)
    raw = np.zeros(case.slots * emitter.dtype.itemsize + ALIGNMENT, np.uint8)
    address = -(-raw.ctypes.data // ALIGNMENT) * ALIGNMENT
    given = {"turns": case.steps, "count": case.slots // LANES, "values": address}

    def work() -> np.ndarray:
        kernel(**given)
        return raw  # which thereby lives as long as the kernel may write to it

    return work


def _torch_sigmoid(case: Case, stack: contextlib.ExitStack) -> Step:
    values = torch.zeros(case.slots, dtype=getattr(torch, case.dtype))

    def work() -> None:
        for _ in range(case.steps):
            values.sigmoid_()

    return work


PREPARE: dict[str, Callable[[Case, contextlib.ExitStack], Step]] = {
    "loop": _loop, "eager": functools.partial(_fit, how="eager"), "fit": functools.partial(_fit, how="fused"),
    "jax": lambda case, _: train_with_jax(case, tuned=False),
    "jax tuned": lambda case, _: train_with_jax(case, tuned=True), "engine": _engine,
    "threads": _threads, "processes": _processes, "sigmoid": vector_sigmoid, "torch.sigmoid": _torch_sigmoid,
}  # fmt: skip


def has_jax() -> bool:
    """Return true if JAX is installed; it is no dependency."""
    return importlib.util.find_spec("jax") is not None


def compare_with_jax(extent: Extent) -> dict[str, float]:
    """Return by dtype how far final probabilities of JAX and ``fit`` differ at most; RuntimeError if too far."""
    largest: dict[str, float] = dict.fromkeys(DTYPES, 0.0)
    losses = [loss for loss in extent.losses if loss in JAX_LOSSES]
    for loss, dtype in product(losses, DTYPES):
        case = Case("one run", "jax", dtype, loss, runs=2, steps=extent.steps)
        reference = fit(_worlds(case), pair_loss(loss), steps=case.steps, learning_rate=LEARNING_RATE, engine="eager")
        for way in _jax_ways(loss):
            found = np.exp(train_with_jax(case, way == "jax tuned")())
            gap = float(np.abs(found - reference.logp.exp().numpy()).max())
            if not gap <= AGREEMENT[dtype]:
                raise RuntimeError(
                    f"{way} and fit do not agree: probabilities of {loss} differ by {gap:.2g} in {dtype}"
                )
            largest[dtype] = max(gap, largest[dtype])
    return largest


@functools.cache
def _world(prompts: int, responses: int, seed: int) -> World:
    return gaussian_world(prompts, responses, seed=seed)


def _worlds(case: Case) -> list[World]:
    return [_world(case.prompts, case.responses, seed) for seed in range(case.runs)]


@functools.cache
def _arrays(runs: int, prompts: int, responses: int) -> tuple[np.ndarray, np.ndarray]:
    """Return weights of the ordered pairs (R, X, Y, Y), and log π_ref (R, X, Y)."""
    worlds = [_world(prompts, responses, seed) for seed in range(runs)]
    return np.stack([exact_pairs(world) for world in worlds]), np.stack([world.ref_logp for world in worlds])


# --- what is measured in fresh processes ---


def measure_peaks(extent: Extent) -> pd.DataFrame:
    """Measure peak memory of ``fit`` in MB, beyond what the imports alone take; the kernel comes from the disk."""
    rows = []
    for way, runs in tqdm(extent.memory, desc="memory", disable=not sys.stderr.isatty()):
        peak = peak_of(_alone, Case("memory", way, "float64", runs=runs, steps=2))
        row = {"part": "memory", "way": way, "dtype": "float64", "loss": "bdpo", "runs": runs, "steps": 2}
        rows.append({**row, "peak_mb": peak.end - peak.imports, "imports_mb": peak.imports})
    return pd.DataFrame(rows)


def measure_starts(extent: Extent) -> pd.DataFrame:
    """Measure how much longer the first training of a process takes than its second: nothing on disk, then a kernel.

    Importing PyTorch, gradlab's trainings and JAX is done before.
    """
    rows = []
    kinds = [(way, dtype) for way, dtype in extent.starts if way != "jax" or has_jax()]
    for _ in tqdm(range(extent.starts_each), desc="starts", disable=not sys.stderr.isatty()):
        for way, dtype in kinds:
            with _kernels_apart():
                for part in ("cold start", "warm start")[: 1 if way == "jax" else 2]:
                    seconds = alone(first_beyond_second, Case("", way, dtype))
                    rows.append({"part": part, "way": way, "dtype": dtype, "loss": "bdpo", "wall_seconds": seconds})
    table = pd.DataFrame(rows).groupby(["part", "way", "dtype", "loss"], sort=False)["wall_seconds"]
    return table.agg(measurements="size", wall_seconds="median").reset_index()


def first_beyond_second(case: Case) -> float:
    """Return the seconds that the first training takes beyond the second."""
    if case.way == "jax":
        from scripts.benchmarks import jax_reference  # noqa: F401

    work = _alone(case)
    first, second = (timed(work)[0] for _ in range(2))
    return first - second


@contextlib.contextmanager
def _kernels_apart() -> Iterator[None]:
    """Keep kernels in an empty folder inside: the user's neither help nor are changed."""
    with tempfile.TemporaryDirectory() as folder, environment(GRADLAB_CACHE=folder):
        yield


if __name__ == "__main__":
    tyro.cli(bench)
