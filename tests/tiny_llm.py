"""A language model of 10,000 parameters on disk, pairs for it, and settings to train it: what its tests share."""

import json
from pathlib import Path

from gradlab.llm.models import save_folder, small_llama
from gradlab.llm.settings import Settings
from gradlab.llm.synthetic import task_tokenizer, token_task

PAIRS = 14


def tiny_model(seed=0, layers=2):
    return small_llama(len(task_tokenizer()), width=16, layers=layers, heads=2, longest=64, seed=seed)


def write_inputs(folder: Path, *, pairs=PAIRS, seed=0):
    """``folder``/model and ``folder``/pairs.jsonl."""
    save_folder(folder / "model", tiny_model(seed), task_tokenizer())
    rows = [{"prompt": one.prompt, "chosen": one.chosen, "rejected": one.rejected}
            for one in token_task(pairs, 0, longest=10)]  # fmt: skip
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


OPTIONS = {
    "loss": ("dpo",), "reference_steps": 0, "held_out": 4, "batch": 4, "micro": 2, "steps": 4, "learning_rate": 1e-2,
    "precision": "fp32", "device": "cpu", "max_length": 32, "sides_every": 2, "validate_every": 2, "save_every": 2,
    "warmup": 0.0,
}  # fmt: skip


def tiny_settings(inputs: Path, out: Path, **changed):
    places = {"model": str(inputs / "model"), "data": str(inputs / "pairs.jsonl"), "out": out}
    return Settings(**{**OPTIONS, **places, **changed})


# Runs of two processes, each of which is held against one: 5 pairs a step, one at a time, so that one process idles.
_TWO = {"batch": 5, "micro": 1, "reference_steps": 1, "loss": ("bdpo",), "sides_every": 1, "learning_rate": 1e-3}
TWO = {
    "ddp": {**_TWO, "distribution": "ddp", "sft_epochs": 1.0, "steps": 2},
    "fsdp": {**_TWO, "distribution": "fsdp", "gradient_checkpointing": True},
    "lora-ddp": {**_TWO, "distribution": "ddp", "lora_rank": 2, "steps": 2},
    "lora-fsdp": {**_TWO, "distribution": "fsdp", "lora_rank": 2, "steps": 2},
}
