"""Training a small reward model on preference pairs, from a causal language model."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from tqdm import tqdm

from gradlab.checks import between, count, one_of, positive
from gradlab.doctor.training_log import append_step, start_log
from gradlab.llm.data.batches import batch_at, dealt, steps_an_epoch
from gradlab.llm.data.pairs import Pair
from gradlab.llm.data.tokens import Template, prompt_text, responses_of
from gradlab.llm.model.group import Precision, computing
from gradlab.llm.model.loading import check_weights, load_tokenizer, reading, save_folder, weights_hash
from gradlab.llm.model.rewards import OWN, CheckedReward, Scorer, held_out_accuracy, quiet
from gradlab.llm.model.seeded import drawing
from gradlab.llm.train.checkpoints import DONE, is_done
from gradlab.llm.train.policy_model import scheduled
from gradlab.losses import DPO, PairLogps
from gradlab.store.artifacts import write_whole
from gradlab.store.provenance import fingerprint

_STREAM = 6_101  # of the order of the pairs


def train_reward(
    base: str | Path, pairs: Sequence[Pair], out: Path | str, *, held_out: Sequence[Pair] = (),
    template: Template = "plain", epochs: float = 1.0, learning_rate: float = 1e-5, batch: int = 16, micro: int = 8,
    max_length: int = 512, weight_decay: float = 0.0, max_norm: float = 1.0, warmup: float = 0.1, seed: int = 0,
    precision: Precision = "fp32", device: torch.device | str = "cpu",
) -> str:  # fmt: skip
    """Train a reward model on pairs by Bradley–Terry's −log σ(r_w − r_l); the folder of the model.

    base       a folder or hub name of a causal language model; its head becomes one output, which starts at 0.
    out        gets ``model/``, a sequence classifier that transformers reads, ``log.jsonl`` and ``done.json``. What is
               done already is not done again; ValueError where it was done with other settings, data or base.
    held_out   pairs on which it is judged when it is done, for the log and ``done.json``.
    template   how the model whose responses are to be judged sees a prompt. The text is prompt and response, and EOS.
    precision  "bf16": computes in bfloat16.

    It is one process. Equal seeds give equal weights on one kind of processor.
    """
    for name, value, least in (
        ("batch", batch, 1),
        ("micro", micro, 1),
        ("max_length", max_length, 8),
        ("seed", seed, 0),
    ):
        count(name, value, least)
    for name, value in (("epochs", epochs), ("learning_rate", learning_rate), ("max_norm", max_norm)):
        positive(name, value)
    between("weight_decay", weight_decay, 0)
    between("warmup", warmup, 0, 1)
    one_of("precision", precision, get_args(Precision))
    if not pairs:
        raise ValueError("pairs must hold at least one pair, got none")
    if (Path(base) / "adapter_config.json").is_file():
        raise ValueError(f"base must be a whole model, got {str(base)!r}, a LoRA adapter; merge it into its base first")
    out, device = Path(out), torch.device(device)
    tokenizer = load_tokenizer(base)
    settings = {
        "template": template, "epochs": epochs, "learning_rate": learning_rate, "batch": batch,
        "max_length": max_length, "weight_decay": weight_decay, "max_norm": max_norm, "warmup": warmup, "seed": seed,
        "precision": precision,
    }  # fmt: skip
    texts = [_texts(pair, template, tokenizer) for pair in pairs]
    key = fingerprint(settings, texts, weights_hash(base))
    if is_done(out, key):
        print(f"reward model: done before, {out}")
        return str(out / "model")
    model = _fresh(base, tokenizer, max_length).to(device).train()
    scorer = Scorer(model, tokenizer, batch=2 * micro, reads=None, ends=True, max_length=max_length, column=0)
    ids = scorer.encoded([text for both in texts for text in both])
    cut = scorer.cut  # of the texts to train on: the scorer goes on counting
    said = _fit(scorer, [ids[2 * i : 2 * i + 2] for i in range(len(texts))], out, settings, micro)
    model.eval()
    judged = None
    if held_out:
        sizes = [tuple(map(len, tokenizer(list(responses_of(pair, template)))["input_ids"])) for pair in held_out]
        judged = held_out_accuracy(
            CheckedReward(scorer, str(out)), held_out, template=template, tokenizer=tokenizer, lengths=sizes
        )
        print(f"reward model: {judged}")
    save_folder(out / "model", model, tokenizer)
    page = {
        "key": key, "base": str(base), "pairs": len(pairs), "cut": cut, **settings, **said,
        "held_out": judged and asdict(judged),
    }  # fmt: skip
    write_whole({out / DONE: json.dumps(page, indent=1) + "\n"})
    return str(out / "model")


def _fit(scorer: Scorer, pairs: Sequence[Sequence[list[int]]], out: Path, settings: dict[str, Any], micro: int) -> dict:
    """Train the scorer's model on the ids of winners and losers; what is to be said of it."""
    model, batch = scorer.model, settings["batch"]
    steps = math.ceil(settings["epochs"] * steps_an_epoch(len(pairs), batch))
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(
        parameters, lr=settings["learning_rate"], weight_decay=settings["weight_decay"], betas=(0.9, 0.95)
    )
    loss, log = DPO(), out / "log.jsonl"  # on unnormalised scores, and without a reference, it is the same loss
    out.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    start_log(log, {"loss": "reward model", "steps": steps, "pairs": len(pairs), **settings})
    started = time.perf_counter()
    for step in tqdm(range(1, steps + 1), desc="reward model", unit="step", disable=None):
        chosen = [pairs[index] for index in batch_at(step - 1, len(pairs), batch, _STREAM + settings["seed"])]
        row = dict.fromkeys(("loss", "accuracy"), 0.0)
        with drawing((settings["seed"], step), model.device):
            for places in dealt(np.array([max(map(len, pair)) for pair in chosen]), micro):
                part = [chosen[place] for place in places]
                with computing(model.device, settings["precision"]):
                    win, lose = scorer.scores([ids for side in zip(*part, strict=True) for ids in side]).chunk(2)
                none = torch.zeros_like(win)
                value = loss(PairLogps(win, lose, none, none)).sum() / len(chosen)
                value.backward()
                row["loss"] += float(value.detach())
                row["accuracy"] += float(((win > lose) + 0.5 * (win == lose)).sum()) / len(chosen)
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, settings["max_norm"]))
        if not math.isfinite(norm) or not math.isfinite(row["loss"]):
            raise FloatingPointError(
                f"reward model, step {step}: the gradient is not finite; try a lower learning_rate"
            )
        rate = scheduled(step, steps, settings["learning_rate"], "cosine", settings["warmup"])
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        append_step(log, step, **row, grad_norm=norm, learning_rate=rate)
    return {"steps": steps, "seconds": time.perf_counter() - started}


def _fresh(base: str | Path, tokenizer: Any, max_length: int) -> Any:
    """The base as a classifier with one output, whose weights are 0; all others must be the base's own."""
    from transformers import AutoModelForSequenceClassification

    with reading("base", base, "a causal language model in safetensors, as folder or hub name"), quiet():
        loaded: Any = AutoModelForSequenceClassification.from_pretrained(
            str(base), num_labels=1, dtype=torch.float32, use_safetensors=True, trust_remote_code=False,
            ignore_mismatched_sizes=True, output_loading_info=True,
        )  # fmt: skip
        model, found = loaded
        head = getattr(model, "score", None)
        if not isinstance(head, torch.nn.Linear):
            raise ValueError(f"type {model.config.model_type} is no decoder such as Llama")
        check_weights(found, new=("score.",))
    torch.nn.init.zeros_(head.weight)
    setattr(model.config, OWN, {"ends": True, "max_length": max_length})
    model.config.pad_token_id = tokenizer.pad_token_id
    return model


def _texts(pair: Pair, template: Template, tokenizer: Any) -> tuple[str, str]:
    """Winner and loser, each after its prompt, as the model sees them."""
    prompt = prompt_text(pair.prompt, template, tokenizer)
    chosen, rejected = responses_of(pair, template)
    return prompt + chosen, prompt + rejected
