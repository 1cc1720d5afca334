"""Speed and memory of training a pretrained model on real pairs: beside a former commit of gradlab, and beside TRL.

Writes llm-pretrained.parquet (all measurements), llm-pretrained.csv (their summary) and llm-pretrained.md (the page)
into figures/benchmarks, and prints the page. ``make bench MODEL=FOLDER DATA=PAIRS`` runs it, in an hour. Every way
to train is a process of its own with one thread, and they take turns: step by step, on the same pairs. The former
commit is checked out for that into a folder that is removed again.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tyro
from tqdm import tqdm

from gradlab.llm.data.pair_files import source_key
from gradlab.llm.data.prepare import prepare
from gradlab.llm.data.tokens import Encoded
from gradlab.llm.model import loading
from gradlab.llm.model.gguf_file import whole_model
from gradlab.llm.model.origins import origin
from gradlab.store.artifacts import save_frame
from scripts.benchmarks.expected import facts
from scripts.benchmarks.pretrained_page import FORMER, NAME, NEW, TRL, page, summarise
from scripts.benchmarks.pretrained_worker import PACKED, RANKS, SIDES, settings_for
from scripts.benchmarks.timing import RESULTS, ROOT, one_thread, write_results

COMMIT = "2df900e"  # the commit to compare with: the last before prompts were read once per pair
WARM = 2  # steps of each process before those that count: at its first of full size a process asks for much memory
WORKER = Path(__file__).with_name("pretrained_worker.py")


@dataclass(frozen=True)
class Extent:
    """How much is measured.

    short  rounds of small steps that compare bdpo with dpo, of this many pairs.
    """

    batch: int = 8
    micro: int = 4
    longest: int = 256
    rounds: int = 6
    short_rounds: int = 60
    short: int = 2


QUICK = Extent(batch=2, micro=1, longest=96, rounds=2, short_rounds=3, short=1)


def bench(model: str, data: Path, folder: Path = RESULTS, former: str = COMMIT, quick: bool = False) -> None:
    """Measure, print and save.

    Args:
        model: The pretrained model, as `gradlab train --model` takes it, on this machine.
        data: Preference pairs, as `gradlab train --data` takes them.
        folder: Where llm-pretrained.parquet, .csv and .md go.
        former: The commit to compare with.
        quick: Short pairs, two rounds: shows that it works, and nothing about speed.
    """
    extent, named = QUICK if quick else Extent(), Path(model).name
    model = whole_model(model)  # the former commit reads safetensors alone
    with tempfile.TemporaryDirectory() as place, checked_out(former, Path(place) / "former") as tree:
        asked = Asked(model, str(data), extent, tree, Path(place))
        with one_thread():
            known = facts(
                model, asked.write_pairs(), batch=extent.batch, micro=extent.micro, budget=asked.budget,
                rounds=extent.rounds, warm=WARM,
            )  # fmt: skip
        rows = list(measure(asked))
    settings = {
        "quick": quick, "model": named, "model_weights": origin(model), "model_sha256": loading.weights_hash(model),
        "data": data.name, "data_sha256": source_key(str(data), "train"), "former": former, **vars(extent), **known,
        "warm": WARM, "load": os.getloadavg()[2],
    }  # fmt: skip
    frame = pd.DataFrame(rows)
    save_frame(frame, folder / f"{NAME}.parquet", settings, overwrite=True)
    summary = summarise(frame)
    text = page(frame, summary, settings)
    write_results(folder, NAME, summary, text)
    print(text)


@contextlib.contextmanager
def checked_out(commit: str, folder: Path) -> Iterator[Path]:
    """Give a folder with the files of a commit, which is removed afterwards."""
    subprocess.run(["git", "worktree", "add", "-q", "--detach", str(folder), commit], cwd=ROOT, check=True)
    try:
        yield folder
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", str(folder)], cwd=ROOT, check=True)


@dataclass(frozen=True)
class Asked:
    """What is measured: a model, pairs, how much of them, the former commit's files, and a folder for our own."""

    model: str
    data: str
    extent: Extent
    former: Path
    place: Path

    @property
    def budget(self) -> int:
        """Return the most tokens of a packed micro-batch."""
        return 2 * self.extent.longest

    def worker(self, way: str, **more: Any) -> contextlib.AbstractContextManager[Worker]:
        """Start the process of one way to train; ``more``: what it is asked beside what is always asked."""
        extent = self.extent
        asked = {
            "trainer": "trl" if way == TRL else "gradlab", "model": self.model, "data": self.data,
            "longest": extent.longest, "batch": extent.batch, "micro": extent.micro, "lora": 0,
            "pairs": str(self.place / "pairs.json"), "steps": extent.rounds + WARM, **more,
        }  # fmt: skip
        return started(asked, self.former if way == FORMER else ROOT)

    def write_pairs(self) -> list[Encoded]:
        """Write the pairs that all train on, as tokens, and return them: those of which no response was cut."""
        asked = {"model": self.model, "data": self.data, "longest": self.extent.longest, "batch": 1, "micro": 1}
        settings = settings_for({**asked, "lora": 0})
        tokenizer = loading.load_tokenizer(settings.model)
        data = prepare(settings.flat(), tokenizer)
        end = tokenizer.eos_token_id
        whole = [one for one in data.part(data.train) if one.win[-1] == one.lose[-1] == end]
        text = json.dumps([[list(one.prompt), list(one.win), list(one.lose)] for one in whole])
        (self.place / "pairs.json").write_text(text, encoding="utf-8")
        return whole


@dataclass(frozen=True)
class Worker:
    """A process that makes steps."""

    process: subprocess.Popen[str]

    def ask(self, **what: Any) -> dict[str, float]:
        """Have it do something, and return what it says."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, float]:
        """Return its next answer."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("a process of the benchmark ended before its answer; see above")
        return json.loads(line)


@contextlib.contextmanager
def started(asked: Mapping[str, Any], tree: Path) -> Iterator[Worker]:
    """Start a worker with the gradlab of a folder, and end it afterwards."""
    variables = {
        "PYTHONPATH": str(tree),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1",
    }
    with subprocess.Popen(
        [sys.executable, "-P", str(WORKER), json.dumps(asked)], text=True, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, env={**os.environ, "TQDM_DISABLE": "1", **variables}, cwd=tree,
    ) as process:  # fmt: skip
        try:
            yield Worker(process)
        finally:
            process.terminate()


def measure(asked: Asked) -> Iterator[dict[str, Any]]:
    """Give one row per measurement."""
    yield from loading_times(asked)
    for part, rank in RANKS.items():
        yield from steps(asked, part, rank)
        yield from peaks(asked, part, rank)
    yield from losses(asked)


def loading_times(asked: Asked) -> Iterator[dict[str, Any]]:
    """Give the seconds in which each gradlab reads and tokenises all pairs, in fresh processes by turns."""
    for turn in range(3):
        for way in (NEW, FORMER)[:: -1 if turn % 2 else 1]:
            with asked.worker(way, trainer="loading", longest=512) as worker:
                yield {"part": "loading", "round": turn, "method": way, **worker.answer()}


def steps(asked: Asked, part: str, rank: int) -> Iterator[dict[str, Any]]:
    """Give the steps of the former commit, of this one and of TRL by turns, on the same pairs."""
    extent = asked.extent
    with contextlib.ExitStack() as stack:
        workers = {
            way: stack.enter_context(asked.worker(way, lora=rank, packed=asked.budget if way == NEW else None))
            for way in (NEW, FORMER, TRL)
        }
        for worker in workers.values():
            worker.answer()
            worker.ask(method="dpo", step=1)
        turns = [(NEW, "dpo"), (NEW, PACKED), (NEW, SIDES), (FORMER, "dpo"), (FORMER, SIDES), (TRL, "dpo")]
        for number in tqdm(range(1 - WARM, extent.rounds), part, disable=not sys.stderr.isatty()):
            said: dict[tuple[str, str], dict[str, float]] = {}
            for way, method in turns[:: -1 if number % 2 else 1]:
                said[way, method] = workers[way].ask(method=method, step=number + WARM + 1)
            _check_same(said)
            if number >= 0:
                yield from (_row(part, number, f"{way}: {method}", one) for (way, method), one in said.items())


def _check_same(said: Mapping[Any, Mapping[str, float]]) -> None:
    """Raise ArithmeticError unless all ways have found the same log π and the same gradient."""
    for name in ("logp", "norm"):
        values = [one[name] for one in said.values()]
        if not np.allclose(values, values[0], rtol=1e-3):
            raise ArithmeticError(f"all must see the same pairs and find the same {name}, got {values}")


def peaks(asked: Asked, part: str, rank: int) -> Iterator[dict[str, Any]]:
    """Give the peak memory of two steps of each way, in processes of their own."""
    for way, method in ((NEW, "dpo"), (NEW, PACKED), (NEW, SIDES), (FORMER, "dpo"), (FORMER, SIDES), (TRL, "dpo")):
        with asked.worker(way, lora=rank, packed=asked.budget if method == PACKED else None) as worker:
            ready = worker.answer()
            peak = [worker.ask(method=method, step=number)["peak_mb"] for number in (1, 2)][-1]
            yield {"part": f"{part}, memory", "round": 0, "method": f"{way}: {method}", "peak_mb": peak,
                   "ready_mb": ready["ready"], "before_mb": ready["before"]}  # fmt: skip


def losses(asked: Asked) -> Iterator[dict[str, Any]]:
    """Give short steps of dpo and bdpo by turns."""
    extent = asked.extent
    with asked.worker(NEW, batch=extent.short, micro=extent.short) as worker:
        worker.answer()
        worker.ask(method="dpo", step=1)
        for number in range(1, extent.short_rounds + 1):
            order = ("dpo", "bdpo", "bdpo", "dpo") if number % 2 else ("bdpo", "dpo", "dpo", "bdpo")
            for method in order:
                yield _row("losses", number - 1, method, worker.ask(method=method, step=number))


def _row(part: str, turn: int, method: str, said: Mapping[str, float]) -> dict[str, Any]:
    names = ("seconds", "cpu_seconds")
    return {"part": part, "round": turn, "method": method, **{name: said[name] for name in names}}


if __name__ == "__main__":
    tyro.cli(bench)
