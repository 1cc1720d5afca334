"""Expected time and memory of measured steps: the docs' tables, asked about these very steps.

``tokens`` describes steps; ``seconds`` and ``peak`` compute from that, a config and a device's rates, with
``gradlab.llm.model.step_time`` and ``memory``. ``facts`` gives all that they need, to be kept with a measurement.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gradlab.llm.data.batches import batch_at, dealt, lengths
from gradlab.llm.data.tokens import Encoded
from gradlab.llm.model.memory import memory
from gradlab.llm.model.step_time import Rates, measured_rates, step_time

_CONFIG = (
    "model_type", "vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads",
    "num_key_value_heads", "head_dim", "tie_word_embeddings", "attention_bias", "mlp_bias",
)  # fmt: skip


def facts(
    model: str | Path, pairs: Sequence[Encoded], *, batch: int, micro: int, budget: int, rounds: int, warm: int
) -> dict[str, Any]:
    """Return what is kept with the pretrained model's measurements: its config, rates of a thread, tokens of the steps.

    budget  tokens of a packed micro-batch.
    rounds  timed steps, which come after ``warm`` others; peaks are of the first two.
    """
    config = json.loads((Path(model) / "config.json").read_text("utf-8"))
    steps = batches(pairs, batch, rounds + warm)
    return {
        "config": {name: config[name] for name in _CONFIG if config.get(name) is not None},
        "rates": rates(),
        "tokens": {
            "once": tokens(steps, micro=micro, warm=warm),
            "packed": tokens(steps, micro=micro, budget=budget, warm=warm),
            "apart": tokens(steps, once=False, micro=micro, warm=warm),
        },
    }


def rates(device: str = "cpu", precision: str = "fp32") -> dict[str, Any]:
    """Return a device's rates, on a CPU of as many threads as PyTorch uses now, as ``Rates`` takes them."""
    measured = vars(measured_rates(device, precision))
    return {name: measured[name] for name in ("products", "traffic", "start", "source")}


def batches(pairs: Sequence[Encoded], batch: int, steps: int) -> list[list[Encoded]]:
    """Return the pairs of each of the first steps, with the seed of the settings' default."""
    return [[pairs[place] for place in batch_at(step, len(pairs), batch, seed=0)] for step in range(steps)]


def tokens(
    steps: Sequence[Sequence[Encoded]],
    *,
    once: bool = True,
    micro: int,
    budget: int | None = None,
    peaks: int = 2,
    warm: int = 1,
) -> dict[str, Any]:
    """Return the tokens of a step, padding included, and of the micro-batch that has most of them.

    once    both responses share a row with their prompt.
    peaks   the number of first steps among which the largest micro-batch is looked for.
    warm    the number of first steps that are not timed.

    ``row`` tokens per row; ``response`` per response, on average; ``turns`` micro-batches per step; ``widest``: pairs,
    tokens of the longest row, and of the longest prompt with one response.
    """
    rows, turns, widest = 0, 0, (0, 0, 0)
    for number, step in enumerate(steps):
        side = lengths(step)
        row = np.array([len(pair.prompt) + len(pair.win) + len(pair.lose) for pair in step]) if once else side
        for part in dealt(row, micro, budget=budget):
            found = len(part), int(row[part].max()), int(side[part].max())
            widest = max(widest, found, key=lambda one: one[0] * one[1]) if number < peaks else widest
            rows += found[0] * found[1] * (number >= warm)
            turns += number >= warm
    timed = [pair for step in steps[warm:] for pair in step]
    responses = sum(len(pair.win) + len(pair.lose) for pair in timed) / 2
    return {
        "once": once, "pairs": len(timed) / (len(steps) - warm), "row": rows / len(timed),
        "response": responses / len(timed), "turns": turns / (len(steps) - warm), "widest": list(widest),
    }  # fmt: skip


def seconds(config: Mapping[str, Any], rates: Rates, tokens: Mapping[str, Any], **how: Any) -> float:
    """Return the seconds of a step, its padding counted with the prompts.

    how  further options of ``step_time``.
    """
    once, pairs = tokens["once"], round(tokens["pairs"])
    return step_time(
        config, rates, pairs=pairs, response=tokens["response"], once=once,
        prompt=tokens["row"] - (2 if once else 1) * tokens["response"],
        micro_pairs=max(1, round(pairs / tokens["turns"])), **how,
    ).total  # fmt: skip


def peak(config: Mapping[str, Any], tokens: Mapping[str, Any], **how: Any) -> int:
    """Return the bytes that are held in the largest micro-batch.

    how  further options of ``memory``.
    """
    number, row, side = tokens["widest"]
    prompt = 2 * side - row if tokens["once"] else 0
    return memory(config, micro_pairs=number, length=side, prompt=prompt, once=tokens["once"], **how).total
