"""A process that trains a pretrained model step by step, as it is asked to: with gradlab's trainer, or with TRL's.

``pretrained_speed.py`` starts it, also with the gradlab of a former commit before it on the path: it must run with
both. It reads one JSON object per line, {"method": …, "step": …}, and answers with one line each.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gradlab.llm.data.batches import batch_at
from gradlab.llm.data.prepare import prepare
from gradlab.llm.data.tokens import Encoded
from gradlab.llm.model import loading
from gradlab.llm.model.group import Group
from gradlab.llm.train.pair_task import PairTask
from gradlab.llm.train.policy_model import PolicyModel
from gradlab.llm.train.run_settings import Settings, settings_of
from gradlab.llm.train.start_model import start_model

RATE = 1e-8  # so small that every step works on the same weights, whatever the loss
REFERENCE = -100.0  # log π_ref of every response; the time of a step does not depend on it
SIDES = "dpo + sides"
PACKED = "dpo, packed"
RANKS = {"full": 0, "LoRA": 16}  # of the LoRA adapter, by part


def main() -> None:
    """Answer until nothing is asked any more."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    torch.set_num_threads(1)
    asked = json.loads(sys.argv[1])
    Turns(asked, answers).run() if asked["trainer"] == "trl" else _gradlab(asked, answers)


def settings_for(asked: dict[str, Any]) -> Settings:
    """Return gradlab's settings for what is asked."""
    options = {
        "model": asked["model"], "data": asked["data"], "out": Path("none"), "loss": ("dpo", "bdpo"),
        "template": "chat", "beta": 0.1, "max_length": asked["longest"], "precision": "fp32", "device": "cpu",
        "batch": asked["batch"], "micro": asked["micro"], "lora.rank": asked["lora"], "schedule": "constant",
        "warmup": 0.0, "log.sides_every": 0,
    }  # fmt: skip
    return settings_of(options)


def _gradlab(asked: dict[str, Any], answers: Any) -> None:
    settings, group = settings_for(asked), Group()
    tokenizer = loading.load_tokenizer(settings.model)
    if asked["trainer"] == "loading":
        began = time.perf_counter()
        data = prepare(settings.flat(), tokenizer)
        print(json.dumps({"seconds": time.perf_counter() - began, "pairs": len(data.encoded)}), file=answers)
        return
    before = peak_mb()
    model = start_model(settings.model, settings, group, tokenizer)
    policy = PolicyModel(model, group, settings, rate=RATE, steps=1, pad=tokenizer.pad_token_id)
    pairs = [Encoded(*map(tuple, pair)) for pair in json.loads(Path(asked["pairs"]).read_text("utf-8"))]
    ref = torch.full((len(pairs), 2), REFERENCE, dtype=torch.float64)
    tasks = {name: PairTask(settings.loss_of(name), pairs, ref, [], ref[:0]) for name in settings.loss}
    sides = dataclasses.replace(settings, log=dataclasses.replace(settings.log, sides_every=1))
    more: dict[str, Any] = {"tokens_per_micro": asked["packed"]} if asked.get("packed") else {}
    packed = dataclasses.replace(settings, **more)  # the former commit has no such setting
    print(json.dumps({"ready": peak_mb(), "before": before}), file=answers)
    for line in sys.stdin:
        method, number = (json.loads(line)[name] for name in ("method", "step"))
        policy.settings = {SIDES: sides, PACKED: packed}.get(method, settings)
        task = tasks["bdpo" if method == "bdpo" else "dpo"]
        began, cpu = time.perf_counter(), time.process_time()
        row = task.gradient(policy, number)
        policy.step(number, row["grad_norm"])
        task.realised(policy, number, row)
        print(json.dumps({
            "seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu,
            "logp": row["logp_win"], "norm": row["grad_norm"], "peak_mb": peak_mb(),
        }), file=answers)  # fmt: skip


class Turns:
    """TRL's DPOTrainer on the same model and pairs, which waits before each step until it is asked for."""

    def __init__(self, asked: dict[str, Any], answers: Any) -> None:
        self.asked, self.answers = asked, answers
        self.since = self.cpu = 0.0
        self.row: dict[str, float] = {}

    def wait(self) -> bool:
        """Wait until a step is asked for; return false where none will be."""
        line = sys.stdin.readline()
        self.since, self.cpu = time.perf_counter(), time.process_time()
        return bool(line)

    def made(self) -> None:
        """Note the time of the step that has just been made."""
        self.row = {"seconds": time.perf_counter() - self.since, "cpu_seconds": time.process_time() - self.cpu}

    def told(self, logs: dict[str, float]) -> None:
        """Answer with the numbers that TRL has logged."""
        row = {**self.row, "logp": logs["logps/chosen"], "norm": logs["grad_norm"], "peak_mb": peak_mb()}
        print(json.dumps(row), file=self.answers)

    def run(self) -> None:
        """Train."""
        from datasets import Dataset
        from transformers import PrinterCallback, TrainerCallback
        from trl import DPOConfig, DPOTrainer  # pyright: ignore[reportPrivateImportUsage]

        turns, asked = self, self.asked

        class Wait(TrainerCallback):
            def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                print(json.dumps({"ready": peak_mb(), "before": before}), file=turns.answers)
                control.should_training_stop = not turns.wait()

            def on_step_end(self, *_: Any, **__: Any) -> None:
                turns.made()

            def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
                if "logps/chosen" in logs:
                    turns.told(logs)
                    control.should_training_stop = not turns.wait()

        settings, before = settings_for(asked), peak_mb()
        model = start_model(settings.model, settings, Group(), loading.load_tokenizer(settings.model))
        vocabulary = model.config.vocab_size
        pairs = json.loads(Path(asked["pairs"]).read_text("utf-8"))
        texts = [
            dict(zip(("prompt", "chosen", "rejected"), (_words(part) for part in pairs[place]), strict=True))
            for step in range(asked["steps"]) for place in batch_at(step, len(pairs), settings.batch, settings.seed)
        ]  # fmt: skip
        end = pairs[0][1][-1]
        with tempfile.TemporaryDirectory() as folder:
            args = DPOConfig(
                output_dir=folder, beta=0.1, learning_rate=RATE, lr_scheduler_type="constant", adam_beta2=0.95,
                max_steps=asked["steps"], max_length=None, per_device_train_batch_size=settings.micro,
                gradient_accumulation_steps=settings.batch // settings.micro, train_sampling_strategy="sequential",
                precompute_ref_log_probs=True, gradient_checkpointing=False, bf16=False, use_cpu=True,
                logging_steps=1, save_strategy="no", report_to="none", disable_tqdm=True,
            )  # fmt: skip

            class Scored(DPOTrainer):
                def compute_ref_log_probs(self, model: Any, inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
                    one = torch.full((len(inputs["input_ids"]) // 2,), REFERENCE)
                    return one, one

            trainer = Scored(
                model, None, args, train_dataset=Dataset.from_list(texts), processing_class=_tokenizer(vocabulary, end),
                callbacks=[Wait()],
            )  # fmt: skip
            trainer.remove_callback(PrinterCallback)
            trainer.train()


def _words(tokens: list[int]) -> str:
    return "".join(f" <{token}>" for token in tokens)


def _tokenizer(vocabulary: int, end: int) -> Any:
    """Return a tokenizer whose words are the numbers of its tokens, so that TRL sees the pairs as gradlab does."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {f"<{token}>": token for token in range(vocabulary)}
    made = Tokenizer(models.WordLevel(words, unk_token="<0>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    name = f"<{end}>"
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token=name, eos_token=name, unk_token="<0>")


def peak_mb() -> float:
    """Return the peak of this process's resident memory, in MB."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text("utf-8").splitlines())
    return float(lines["VmHWM"].split()[0]) / 1024


if __name__ == "__main__":
    np.seterr(all="ignore")
    main()
