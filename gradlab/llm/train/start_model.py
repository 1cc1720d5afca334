"""The model that a stage starts from, as its settings want it: its type, its adapter, no dropout of its own."""

from __future__ import annotations

from typing import Any

import torch

from gradlab.llm.data.tokens import check_vocabulary
from gradlab.llm.model import loading
from gradlab.llm.model.group import Group, precision_on
from gradlab.llm.train.run_settings import Settings
from gradlab.streams import Purpose, torch_seed


def start_model(source: str, settings: Settings, group: Group, tokenizer: Any) -> Any:
    """Load a model that is to be trained, with its adapter, or with a new one where LoRA is asked for.

    ValueError where the tokenizer has more tokens than the model, the adapter is not the one that the settings say, or
    FSDP would have to spread a base in 4 bits.
    """
    spread_out = group.spreads(settings.distribution)
    few_bits = settings.lora.base == "4bit"
    if few_bits and spread_out:
        raise ValueError("distribution must be ddp over several processes where lora.base is 4bit, got 'fsdp'")
    # An adapter's base is not trained, so bfloat16 is enough; FSDP wants one type for all.
    half = precision_on(group.device, settings.precision) == "bf16" and settings.lora.rank and not spread_out
    model = loading.load_model(
        source, dtype=torch.bfloat16 if half else torch.float32, trainable=True, meta=spread_out and not group.is_main,
        four_bits_on=group.device if few_bits else None,
    )  # fmt: skip
    check_vocabulary(tokenizer, model.config)
    loading.without_dropout(model)
    adapters = getattr(model, "peft_config", {})
    if adapters:
        _check_adapter(model, source, settings)
        return model
    if not settings.lora.rank:
        return model
    lora = settings.lora
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(settings.seed, Purpose.LORA_WEIGHTS))
        return loading.with_lora(
            model, lora.rank, lora.alpha, lora.targets, lora.dropout, first=settings.train_from or 0
        )


def _check_adapter(model: Any, source: str, settings: Settings) -> None:
    """Raise ValueError where an adapter is not the one that the settings say."""
    config = model.peft_config["default"]
    there = {"lora.rank": config.r, "lora.alpha": config.lora_alpha, "lora.dropout": config.lora_dropout}
    for name, value in there.items():
        if value != settings.get(name):
            raise ValueError(f"{name} must be that of the adapter in {source}, {value:g}, got {settings.get(name):g}")
    lora, first = settings.lora, settings.train_from
    bare = loading.load_model(loading.base_of(source), meta=True)
    wanted = _adapted(loading.with_lora(bare, lora.rank, lora.alpha, lora.targets, first=first or 0))
    if _adapted(model) != wanted:
        above = "" if first is None else f" with train_from {first}"
        raise ValueError(
            f"lora.targets must be the layers of the adapter in {source}, {_in_words(_adapted(model))}, got "
            f"{' '.join(lora.targets)}{above}, {_in_words(wanted)}"
        )


def _adapted(model: Any) -> set[str]:
    """Return the names of the layers that a model's LoRA adapter is in."""
    return {name for name, part in model.named_modules() if hasattr(part, "lora_A")}


def _in_words(layers: set[str]) -> str:
    """Return the last parts of layers' names, and how many layers there are."""
    return f"{' '.join(sorted({name.rpartition('.')[2] for name in layers})) or 'none'} ({len(layers)} in all)"
