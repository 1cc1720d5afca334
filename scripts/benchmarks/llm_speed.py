"""Speed and memory of training language models: each loss beside DPO, ways to get log π, and TRL's trainer beside ours.

Writes llm.parquet (all measurements), llm.csv (their summary) and llm.md (the page) into figures/benchmarks, from a GPU
into its folder cuda, and prints the page. ``make bench`` runs it. On a CPU the models are those of the laptop run; on
a GPU a Llama of 1.1 billion parameters and Llama-7B, with random weights: nothing is downloaded.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import tyro
from tqdm import tqdm

from gradlab.llm.data.tokens import Encoded
from gradlab.llm.model.loading import END, PAD, START
from gradlab.llm.train.stage import free_memory
from gradlab.store.artifacts import load_frame, save_frame
from scripts.benchmarks.expected import rates
from scripts.benchmarks.llm_cases import EXTENTS, PAD_ID, RATE, Extent, HeadTraining, Size, Training, has_room
from scripts.benchmarks.llm_page import OURS, REACHED, SIDES, TRL, page, summarise, to_accuracy
from scripts.benchmarks.timing import RESULTS, ROOT, Step, environment, in_turn, one_thread, peak_of, write_results

# Operations a second in bfloat16 without sparsity, from NVIDIA's data sheets; the first name that fits counts.
PEAKS = {"H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "H200": 989e12, "B200": 2250e12, "A100": 312e12,
         "L40S": 362e12, "L4": 121e12}  # fmt: skip


def bench(folder: Path | None = None, logs: Path = ROOT / "figures/llm/logs.parquet", quick: bool = False) -> None:
    """Measure, print and save.

    Args:
        folder: Where llm.parquet, llm.csv and llm.md go; left out: figures/benchmarks, from a GPU its folder cuda.
        logs: The training logs of the laptop run, from which steps to a fixed accuracy are read, if they are there.
        quick: Tiny models, two rounds: shows that it works, and nothing about speed.
    """
    with one_thread(), environment(HF_HUB_DISABLE_TELEMETRY="1"):  # TRL's telemetry
        print(_bench(folder, logs, quick))


def _bench(folder: Path | None, logs: Path, quick: bool) -> str:
    device = "cuda" if torch.cuda.is_available() and not quick else "cpu"
    folder = folder or RESULTS / ("cuda" if device == "cuda" else "")
    name = "quick" if quick else device
    extent = EXTENTS[name]()
    peaks = {one: peak_flops(device, one) for one in sorted({case.precision for case in extent.cases.values()})}
    named = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    settings = {"quick": quick, "device": named, "threads": 1, "peak": peaks, "reached": REACHED}
    settings |= {"prompts_once": True, "rates": rates(device, "bf16" if device == "cuda" else "fp32")}
    trained = load_frame(logs)[0] if logs.exists() else None
    rows: list[dict[str, Any]] = []
    left_out: dict[str, str] = {}
    text = ""
    for part in measure(extent, device, left_out, name):
        rows += part
        if rows:  # saved after each part: minutes of it are not to be lost with the next
            text = save(pd.DataFrame(rows), folder, {**settings, "left_out": left_out}, extent, trained)
    return text


def save(frame: pd.DataFrame, folder: Path, settings: dict[str, Any], extent: Extent, logs: pd.DataFrame | None) -> str:
    """Write the measurements, their summary and the page, which is returned."""
    save_frame(frame, folder / "llm.parquet", settings, overwrite=True)
    summary = summarise(frame, {name: settings["peak"][case.precision][0] for name, case in extent.cases.items()})
    text = page(summary, None if logs is None else to_accuracy(logs, summary), settings)
    write_results(folder, "llm", summary, text)
    return text


def measure(extent: Extent, device: str, left_out: dict[str, str], name: str) -> Iterator[list[dict[str, Any]]]:
    """Give the rows of each case, one per step, then TRL's and peaks; ``left_out`` gets why a case has none."""
    turns: list[tuple[str, Callable[..., Iterator[dict[str, Any]]]]] = [
        *((name, _measured) for name in extent.cases), *((name, beside_trl) for name in extent.trl),
    ]  # fmt: skip
    for case, measured in turns:
        size, rows = extent.cases[case], []
        if device == "cuda" and isinstance(size, Size) and not has_room(size, sides=False):
            left_out[case] = f"it needs {size.needs(sides=False) / 1e9:.0f} GB"
            continue
        try:
            for row in measured(size.training(device), device, extent.rounds, extent.limit):
                rows.append({"size": case, **row})  # noqa: PERF401 - what was measured before an error stays
        except Exception as error:  # of memory, above all: the others are measured all the same
            reason = str(error).strip().partition("\n")[0]
            left_out[case] = f"not all of it could be measured ({type(error).__name__}: {reason})"
        yield rows
        free_memory()
    yield measure_peaks(extent, name)


def _measured(case: Training | HeadTraining, device: str, rounds: int, limit: float) -> Iterator[dict[str, Any]]:
    size = case.size
    known = case.checked()
    steps = {method: _afresh(case.step(method), device) for method in case.methods}
    before = case.step(case.methods[0]) if device == "cuda" else None
    for one in in_turn(steps, rounds, size.part, device=device, warm=1, limit=limit, before=before):
        peak = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else np.nan
        row = {"part": size.part, "round": one.round, "method": one.way, "seconds": one.seconds, "peak_mb": peak,
               **case.work(one.round + 2)}  # fmt: skip
        if device == "cuda":
            row |= {"predicted_mb": size.needs(sides=one.way == SIDES) / 2**20} if isinstance(size, Size) else {}
        yield row | known.get(one.way, {})


def beside_trl(training: Training, device: str, rounds: int, limit: float) -> Iterator[dict[str, Any]]:
    """Give one row per step of TRL's trainer and of ours, by turns, on the same pairs; none without TRL."""
    try:
        from trl import DPOConfig, DPOTrainer  # pyright: ignore[reportPrivateImportUsage]
    except ImportError:
        return
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback

    size, step = training.size, training.step("dpo")
    rows: list[dict[str, Any]] = []
    near = 0.02 if size.precision == "bf16" else 1e-4

    def now() -> float:
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    class Turns(TrainerCallback):
        """Take our step after each of TRL's, whose time begins when ours has ended: its loading of data counts too."""

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.begun = self.since = now()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            theirs, start = now() - self.since, now()
            step()
            ours, turn = now() - start, state.global_step - 3  # two warm up
            for method, seconds in ((TRL, theirs), (OURS, ours)):
                rows.append({"part": "trainers", "round": turn, "method": method, "seconds": seconds,
                             **training.work(state.global_step, separate=True),
                             "logp": training.row["logp_win"]})  # fmt: skip
            if turn >= 3 and now() - self.begun > limit:
                control.should_training_stop = True
            self.since = now()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if "logps/chosen" in logs and not np.isclose(logs["logps/chosen"], rows[-1]["logp"], rtol=near):
                raise ArithmeticError(f"TRL must see the same pairs: log π {logs['logps/chosen']}, {rows[-1]['logp']}")

    texts = [dict(zip(("prompt", "chosen", "rejected"), _as_text(pair), strict=True))
             for number in range(1, rounds + 3) for pair in training.batch(number)]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        args = DPOConfig(
            output_dir=folder, beta=1.0, learning_rate=RATE, lr_scheduler_type="constant", adam_beta2=0.95,
            max_steps=rounds + 2, max_length=None, per_device_train_batch_size=size.micro,
            gradient_accumulation_steps=size.pairs // size.micro, train_sampling_strategy="sequential",
            precompute_ref_log_probs=True, gradient_checkpointing=size.checkpointing, bf16=size.precision == "bf16",
            use_cpu=device == "cpu", logging_steps=1, save_strategy="no", report_to="none", disable_tqdm=True,
        )  # fmt: skip
        model = size.adapted(size.model(device))
        trainer = DPOTrainer(
            model, None, args, train_dataset=Dataset.from_list(texts), processing_class=_words(size.vocabulary),
            callbacks=[Turns()],
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        trainer.accelerator.free_memory()
    yield from ({key: one for key, one in row.items() if key != "logp"} for row in rows if row["round"] >= 0)


def _words(vocabulary: int) -> Any:
    """Return a tokenizer whose words are the numbers of its tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [START, END, PAD, *map(str, range(PAD_ID + 1, vocabulary))]
    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token=START))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token=PAD, eos_token=END, unk_token=START)


def _as_text(pair: Encoded) -> tuple[str, str, str]:
    prompt, *sides = (" ".join(map(str, part)) for part in (pair.prompt, pair.win[:-1], pair.lose[:-1]))
    return prompt, *(f" {side} {END}" for side in sides)  # type: ignore[return-value]


def measure_peaks(extent: Extent, name: str) -> list[dict[str, Any]]:
    """Return one row per method: the peak of three steps on the CPU in a fresh process, beyond what it held before."""
    turns = [(case, method) for case in extent.peaks for method in extent.cases[case].methods]

    def peak(turn: tuple[str, str]) -> dict[str, Any]:
        peak = peak_of(_step, name, *turn, steps=3)
        part = extent.cases[turn[0]].part
        return {"part": part, "size": turn[0], "method": turn[1], "peak_mb": peak.end - peak.ready}

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(tqdm(pool.map(peak, turns), "memory", len(turns), disable=not sys.stderr.isatty()))


def _step(name: str, case: str, method: str) -> Step:
    return EXTENTS[name]().cases[case].training("cpu").step(method)


def _afresh(step: Step, device: str) -> Step:
    """Return the step, which resets the device's count of its peak first."""

    def run() -> None:
        torch.cuda.reset_peak_memory_stats()
        step()

    return run if device == "cuda" else step


def peak_flops(device: str, precision: str) -> tuple[float, str]:
    """Return the most operations per second of the device (on the CPU, of one thread), and where that is from."""
    name = torch.cuda.get_device_name() if device == "cuda" else ""
    for part, known in PEAKS.items():
        if precision == "bf16" and all(re.search(rf"\b{word}\b", name) for word in part.split()):
            return known, "its data sheet"
    width, times = (8192, 20) if device == "cuda" else (1024, 5)
    left = torch.randn(width, width, device=device, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)

    def product() -> None:
        torch.matmul(left, left)

    fastest = min(one.seconds for one in in_turn({"product": product}, times, "peak", device=device))
    return 2.0 * width**3 / fastest, f"measured, a product of matrices {width} wide"


if __name__ == "__main__":
    tyro.cli(bench)
