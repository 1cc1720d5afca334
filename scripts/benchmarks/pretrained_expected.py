"""What the pretrained model's steps should take: the tables of the docs, asked about the very steps that are measured.

``facts`` is recorded with the measurements: the model's config, the machine's rates, and the tokens of the steps.
``expected`` computes seconds and memory from them, with ``gradlab.llm.model.step_time`` and ``memory``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gradlab.llm.data.batches import batch_at, dealt, lengths
from gradlab.llm.data.tokens import Encoded
from gradlab.llm.model.memory import memory
from gradlab.llm.model.step_time import Rates, measured_rates, step_time
from scripts.benchmarks.pretrained_page import FORMER, NEW, PARTS
from scripts.benchmarks.pretrained_worker import PACKED, RANKS, SIDES

_CONFIG = (
    "model_type", "vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads",
    "num_key_value_heads", "head_dim", "tie_word_embeddings", "attention_bias", "mlp_bias",
)  # fmt: skip
_BATCH_SEED = 0  # of the settings' default


def facts(
    model: str | Path, pairs: Sequence[Encoded], *, batch: int, micro: int, budget: int, rounds: int
) -> dict[str, Any]:
    """Return what ``expected`` needs, for a settings file: config, rates of one thread, tokens of the steps.

    The steps are 2, 3, … of as many rounds; steps 1 and 2 are those of which the peak memory is measured.
    """
    config, measured = json.loads((Path(model) / "config.json").read_text("utf-8")), measured_rates()
    steps = [[pairs[place] for place in batch_at(step, len(pairs), batch, _BATCH_SEED)] for step in range(rounds + 1)]
    ways = {"once": {"micro": micro}, "packed": {"micro": micro, "budget": budget}, "apart": {"micro": micro}}
    return {
        "config": {name: config[name] for name in _CONFIG if config.get(name) is not None},
        "rates": {name: vars(measured)[name] for name in ("products", "traffic", "start", "source")},
        "tokens": {way: _tokens(steps, way != "apart", **how) for way, how in ways.items()},
    }


def _tokens(steps: Sequence[Sequence[Encoded]], once: bool, **how: int) -> dict[str, float]:
    """Return tokens per pair of the timed steps, padding included, and the largest micro-batch of steps 1 and 2.

    response  of both responses, on average; ``row`` of all rows of a pair; ``turns`` micro-batches per step.
    widest    pairs, tokens of a pair's longest row, and of a prompt with one response, in the largest micro-batch.
    """
    rows, turns, widest = 0, 0, (0, 0, 0)
    for number, step in enumerate(steps):
        longer = lengths(step)
        own = np.array([len(pair.prompt) + len(pair.win) + len(pair.lose) for pair in step]) if once else longer
        for part in dealt(own, **how):
            if number < 2:
                widest = max(widest, (len(part), int(own[part].max()), int(longer[part].max())), key=_size)
            rows += (number > 0) * len(part) * int(own[part].max()) * (1 if once else 2)
            turns += number > 0
    timed = [pair for step in steps[1:] for pair in step]
    responses = sum(len(pair.win) + len(pair.lose) for pair in timed)
    number, alone, wide = len(timed), widest[2], widest[1]
    return {
        "response": responses / number / 2, "row": rows / number, "turns": turns / (len(steps) - 1),
        "widest_pairs": widest[0], "widest_row": wide, "widest_side": alone,
    }  # fmt: skip


def _size(widest: tuple[int, int, int]) -> int:
    return widest[0] * widest[1]


def expected(frame: pd.DataFrame, settings: Mapping[str, Any]) -> pd.DataFrame:
    """Return one row per way and part: seconds of a step and MB of peak memory, computed and measured (medians).

    Measured memory is the peak less what the process held before it had the model. Where a number is not there, nan.
    """
    rows = []
    for part in PARTS:
        steps, peaks = (frame[frame["part"] == name].groupby("method") for name in (part, f"{part}, memory"))
        seconds = steps["cpu_seconds"].median()
        held = peaks["peak_mb"].median() - peaks["before_mb"].median()
        for method, way, sides in (
            (f"{NEW}: dpo", "once", False), (f"{NEW}: {PACKED}", "packed", False), (f"{NEW}: {SIDES}", "once", True),
            (f"{FORMER}: dpo", "apart", False),
        ):  # fmt: skip
            rows.append({
                "part": part, "method": method,
                "seconds": np.nan if sides else _seconds(settings, way, RANKS[part]),
                "measured_seconds": seconds[method],
                "mb": np.nan if way == "apart" else _megabytes(settings, way, RANKS[part], sides),
                "measured_mb": held[method],
            })  # fmt: skip
    return pd.DataFrame(rows)


def _seconds(settings: Mapping[str, Any], way: str, rank: int) -> float:
    """Return the seconds of a step, its padding counted with the prompts."""
    tokens, once = settings["tokens"][way], way != "apart"
    row, response, batch = tokens["row"], tokens["response"], settings["batch"]
    taken = step_time(
        settings["config"], Rates(**settings["rates"]), pairs=batch, response=response, once=once, lora_rank=rank,
        prompt=row - 2 * response if once else row / 2 - response, micro_pairs=max(1, round(batch / tokens["turns"])),
        checkpointing=0, precision="fp32",
    )  # fmt: skip
    return taken.total


def _megabytes(settings: Mapping[str, Any], way: str, rank: int, sides: bool) -> float:
    """Return the peak, 2²⁰ bytes, of a step with the largest micro-batch of those of which it is measured."""
    tokens = settings["tokens"][way]
    row, side = tokens["widest_row"], tokens["widest_side"]
    needed = memory(
        settings["config"], lora_rank=rank, micro_pairs=tokens["widest_pairs"], length=side, prompt=2 * side - row,
        checkpointing=0, precision="fp32", sides=sides,
    )  # fmt: skip
    return needed.total / 2**20


__all__ = ["expected", "facts"]
