"""A language model of 10,000 parameters on disk, pairs for it, and settings to train it: what its tests share."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gradlab.llm.data.pairs import json_lines
from gradlab.llm.demo.token_task import task_tokenizer, token_task
from gradlab.llm.model.loading import save_folder, small_llama
from gradlab.llm.train.run_settings import settings_of
from gradlab.llm.train.section_settings import FLAT
from gradlab.store.sealed import read_sealed, sealed

PAIRS = 14
LONGEST_ANSWER = (-50.0, 11)  # log π to a model at its start, and tokens: ten words and the end


@pytest.fixture(scope="module")
def quick_collections():
    """Each stage collects garbage: not among the 400,000 objects of the libraries."""
    gc.freeze()
    yield
    gc.unfreeze()


def torchrun(*arguments, timeout=300):
    """Return stdout and stderr of two processes that run a script, or ``-m`` and a module; each ends by ``leave``."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    with subprocess.Popen(
        [*command, *arguments], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as run:  # fmt: skip
        try:
            stdout, stderr = run.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            run.terminate()  # and not kill, so that torchrun ends its own
            stdout, stderr = run.communicate()
    assert run.returncode == 0, stderr[-5000:]
    return stdout, stderr


def tiny_model(seed=0, layers=2):
    return small_llama(len(task_tokenizer()), width=16, layers=layers, heads=2, longest=64, seed=seed)


def write_inputs(folder: Path, *, pairs=PAIRS, seed=0):
    """``folder``/model and ``folder``/pairs.jsonl."""
    save_folder(folder / "model", tiny_model(seed), task_tokenizer())
    (folder / "pairs.jsonl").write_text(json_lines(token_task(pairs, 0, longest=10)), encoding="utf-8")


OPTIONS = {
    "loss": ("dpo",), "reference_steps": 0, "held_out": 4, "batch": 4, "micro": 2, "steps": 4, "learning_rate": 1e-2,
    "precision": "fp32", "device": "cpu", "max_length": 32, "sides_every": 2, "validate_every": 2, "save_every": 2,
    "warmup": 0.0,
}  # fmt: skip


def settings(**options):
    """Settings from options by their flat names: lora_rank for lora.rank."""
    return settings_of({FLAT.get(name, name): value for name, value in options.items()})


def resealed(file: Path, **changed):
    """Change values in a sealed page as the program that sealed it could."""
    file.write_text(sealed(read_sealed(file) | changed), encoding="utf-8")


def tiny_settings(inputs: Path, out: Path, **changed):
    places = {"model": str(inputs / "model"), "data": str(inputs / "pairs.jsonl"), "out": out}
    return settings(**{**OPTIONS, **places, **changed})


def options(inputs, out, **changed):
    """The command line of ``tiny_settings``."""
    places = {"model": inputs / "model", "data": inputs / "pairs.jsonl", "out": out}
    made = []
    for name, value in {**OPTIONS, **places, **changed}.items():
        made += [
            f"--{FLAT.get(name, name).replace('_', '-')}",
            *map(str, value if isinstance(value, tuple) else (value,)),
        ]
    return made


# Runs of two processes, each of which is held against one: 5 pairs a step, one at a time, so that one process idles.
_TWO = {
    "batch": 5, "micro": 1, "loss": ("bdpo",), "steps": 3, "sides_every": 1, "save_every": 1, "learning_rate": 1e-3,
}  # fmt: skip
TWO = {
    "ddp": {**_TWO, "distribution": "ddp", "sft_epochs": 1.0},
    "fsdp": {**_TWO, "distribution": "fsdp", "reference_steps": 1, "gradient_checkpointing": True},
    "from-ddp": {**_TWO, "distribution": "ddp", "train_from": 1, "steps": 2},
    "from-fsdp": {**_TWO, "distribution": "fsdp", "train_from": 1, "steps": 2, "gradient_checkpointing": True},
    "lora-ddp": {**_TWO, "distribution": "ddp", "lora_rank": 2, "steps": 2},
    "lora-fsdp": {**_TWO, "distribution": "fsdp", "lora_rank": 2, "reference_steps": 1, "steps": 2},
    "lora-from-fsdp": {**_TWO, "distribution": "fsdp", "lora_rank": 2, "train_from": 1, "steps": 2},
    "lora-fsdp-bf16": {**_TWO, "distribution": "fsdp", "lora_rank": 2, "steps": 1, "precision": "bf16"},
}
