"""The memory and the time of training known models, as tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from gradlab.llm.model.memory import memory
from gradlab.llm.model.shapes import LLAMAS, shape_of
from gradlab.llm.model.step_time import H200, Rates, step_time
from gradlab.store.markdown import markdown_table


def memory_table(
    configs: Mapping[str, Mapping[str, Any] | str | Path] = LLAMAS,
    *,
    full: Sequence[int] = (8, 16, 32),
    lora_rank: int = 16,
    **options: Any,
) -> pd.DataFrame:
    """Return the rows of each model, as ``_ways`` has them; GB (10⁹ bytes).

    options  those of ``memory``.
    """
    rows = []
    for name, config in configs.items():
        for way, gpus, trained in _ways(full, lora_rank):
            bytes_of = memory(config, gpus=gpus, **trained, **options)
            parts = {field.name: getattr(bytes_of, field.name) / 1e9 for field in dataclasses.fields(bytes_of)}
            rows.append({
                "model": name, "parameters": shape_of(config).parameters, "trained": way, "gpus": gpus, **parts,
                "total": bytes_of.total / 1e9, "fits": bytes_of.fits,
            })  # fmt: skip
    return pd.DataFrame(rows)


def _ways(full: Sequence[int], rank: int) -> list[tuple[str, int, dict[str, Any]]]:
    """Return the ways to train: LoRA on one GPU, its base whole or in 4 bits; all weights, on so many GPUs."""
    lora: dict[str, Any] = {"lora_rank": rank}
    quantised = lora | {"lora_base": "4bit"}
    return [("LoRA", 1, lora), ("LoRA, base in 4 bits", 1, quantised), *(("full", gpus, {}) for gpus in full)]


def memory_markdown(**options: Any) -> str:
    """Return ``memory_table`` of the known models as Markdown, in GB, with the total without checkpointing."""
    table, kept = memory_table(**options), memory_table(**options, checkpointing=0)
    head = [
        "model", "trained", "GPUs", "weights", "gradients", "Adam", "both sides", "FSDP", "activations", "**total**",
        "fits 80 GB", "total, all activations kept", "fits 80 GB",
    ]  # fmt: skip
    rows = []
    for row, without in zip(table.to_dict("records"), kept.to_dict("records"), strict=True):
        parts = [row[name] for name in ("weights", "gradients", "moments", "sides", "gathered")]
        numbers = [f"{value:.1f}" for value in (*parts, row["kept"] + row["working"])]
        fits, also = ("yes" if shown["fits"] else "**no**" for shown in (row, without))
        rows.append([
            row["model"], row["trained"], str(row["gpus"]), *numbers, f"**{row['total']:.1f}**", fits,
            f"{without['total']:.1f}", also,
        ])  # fmt: skip
    rule = [*["---"] * 2, *["---:"] * 8, "---", "---:", "---"]
    return "\n".join(markdown_table(head, rows, rule)) + "\n"


def time_table(
    configs: Mapping[str, Mapping[str, Any] | str | Path] = LLAMAS,
    *,
    rates: Rates = H200,
    full: Sequence[int] = (8, 16, 32),
    lora_rank: int = 16,
    pairs: int = 64,
    **options: Any,
) -> pd.DataFrame:
    """Return the rows of each model, as ``_ways`` has them; seconds of a step.

    pairs    of a step, over all GPUs.
    options  further ones of ``step_time``.
    """
    rows = []
    for name, config in configs.items():
        for way, gpus, trained in _ways(full, lora_rank):
            taken = step_time(config, rates, pairs=pairs, gpus=gpus, **trained, **options)
            rows.append({
                "model": name, "trained": way, "gpus": gpus, **dataclasses.asdict(taken), "total": taken.total,
                "pairs_per_second": pairs / taken.total,
            })  # fmt: skip
    return pd.DataFrame(rows)


def time_markdown(**options: Any) -> str:
    """Return ``time_table`` of the known models as Markdown, with the hours that 60,000 pairs take."""
    head = [
        "model", "trained", "GPUs", "products", "again", "other operations", "AdamW", "between GPUs", "waiting",
        "**step, s**", "pairs/s", "60,000 pairs, h",
    ]  # fmt: skip
    names = ("products", "again", "traffic", "optimiser", "link", "waiting")
    rows = [
        [row["model"], row["trained"], str(row["gpus"]), *(f"{row[name]:.2f}" for name in names),
         f"**{row['total']:.2f}**", f"{row['pairs_per_second']:.1f}", f"{60_000 / row['pairs_per_second'] / 3600:.1f}"]
        for row in time_table(**options).to_dict("records")
    ]  # fmt: skip
    return "\n".join(markdown_table(head, rows, [*["---"] * 2, *["---:"] * 10])) + "\n"
