"""Time of a training step, computed from a model's config and a device's rates: how long will it take?"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from gradlab.checks import between, count, one_of, positive
from gradlab.llm.model.memory import computation

_MOVED = 9  # bytes moved per byte that a layer keeps: two read and one written forward, twice that backward
_ADAMW = 7 * 4  # bytes per weight in AdamW's pass: weight, gradient and moments read, all but the gradient written
_NORM = 4  # bytes per weight for ‖g‖
_ADDED = 3 * 4  # bytes per weight and micro-batch: gradient so far and new one read, their sum written
_CAST = 4 + 2  # bytes per weight that autocast reads in float32 and writes in bfloat16
_WHOLE = 0.5 + 2 * 2  # bytes per weight in 4 bits that is made whole: read, written, and read by the product
_LOGIT = 6 * 4  # bytes moved per logit: log-softmax, its exponential, and the gradient
_OPERATIONS = 120  # operations that a layer starts in a forward and a backward pass, without an adapter
_OF_ADAPTERS = 60  # those of adapters on all its linear maps


@dataclasses.dataclass(frozen=True)
class Rates:
    """The rates of a device, as measured or assumed.

    products  operations per second of large matrix products, in the training's precision.
    traffic   bytes per second that operations on single numbers read and write.
    start     seconds for which the host is busy with starting an operation; a GPU computes meanwhile.
    link      bytes per second between GPUs, in each direction.
    source    where the numbers are from.
    """

    products: float
    traffic: float
    start: float = 0.0
    link: float = math.inf
    source: str = ""


# NVIDIA's data sheet says 989e12 operations and 4.8e12 bytes per second, and 450e9 over NVLink. Large products reach
# about 70% of such numbers, and copies 85%; gradlab has not measured that.
H200 = Rates(0.7 * 989e12, 0.85 * 4.8e12, 5e-6, 0.7 * 450e9, "H200, 70% and 85% of its data sheet")


@dataclasses.dataclass(frozen=True)
class StepTime:
    """Seconds of a step, by what takes them."""

    products: float
    """Matrix products of the layers, attention and the output layer."""
    again: float
    """Products of the layers that are computed again for the gradient."""
    traffic: float
    """Operations on single numbers: norms, activations, log-softmax, casts, gradients added up."""
    optimiser: float
    """‖g‖ and AdamW."""
    link: float
    """Data between GPUs, as though nothing else happened meanwhile."""
    waiting: float
    """Seconds that the device waits for the host, which starts the operations one after the other."""

    @property
    def total(self) -> float:
        """Return the sum of all parts."""
        return sum(getattr(self, field.name) for field in dataclasses.fields(self))


def step_time(
    config: Mapping[str, Any] | str | Path,
    rates: Rates,
    *,
    pairs: int = 64,
    prompt: float = 128,
    response: float = 128,
    micro_pairs: int = 4,
    gpus: int = 1,
    sharded: bool = True,
    lora_rank: int = 0,
    lora_targets: Sequence[str] = ("all-linear",),
    lora_base: str = "whole",
    train_from: int | None = None,
    checkpointing: float = 1.0,
    precision: str = "bf16",
    once: bool = True,
) -> StepTime:
    """Return the seconds that a step of gradlab's trainer takes with a model of this config; see ``shape_of``.

    pairs          of the step, over all GPUs; ``micro_pairs`` of them at a time on one.
    prompt, response  tokens that a prompt and one response have on average; padding is theirs too.
    once           prompts are read once per pair, else once per response.
    gpus, sharded, lora_rank, lora_targets, lora_base, train_from, checkpointing, precision  as for ``memory``.

    Products take their operations over the rate of products: 2 per weight and token forward, 4 backward (2 where the
    weights are frozen), 2 again under checkpointing; attention 4·T²·width per layer forward and 2.5 times that
    backward; the output layer for responses alone. All else takes the bytes that it moves over the rate of traffic.
    Where the host cannot start operations fast enough, the device waits. Nothing overlaps, so it is rather too long.
    """
    for name, value in {"pairs": pairs, "micro_pairs": micro_pairs}.items():
        count(name, value, 1)
    for name, value in {"prompt": prompt, "response": response}.items():
        positive(name, value)
    between("checkpointing", float(checkpointing), 0, 1)
    how = computation(
        config, gpus=gpus, sharded=sharded, lora_rank=lora_rank, lora_targets=lora_targets, lora_base=lora_base,
        train_from=train_from, precision=precision,
    )  # fmt: skip
    shape, half, spread, trained, frozen = how.shape, how.half, how.spread, how.trained, bool(lora_rank)
    here = pairs / gpus
    width = prompt + 2 * response if once else prompt + response  # of a row
    rows = here if once else 2 * here
    tokens, answers = rows * width, 2 * here * response
    turns = math.ceil(here / micro_pairs)
    body = how.layers * (shape.layer - 2 * shape.hidden)
    adapter = trained if frozen else 0
    attention = 4 * how.layers * shape.heads * shape.head_width * rows * width**2
    forward = 2 * (body + adapter) * tokens + attention
    backward = 2 * forward - 2 * body * tokens * frozen + attention / 2
    head = (6 if how.head_trained else 4) * shape.vocabulary * shape.hidden * answers
    share = math.ceil(checkpointing * how.layers) / how.layers
    moved = how.layers * (_MOVED + share * _MOVED / 3) * how.layer * tokens + _LOGIT * shape.vocabulary * answers
    part = trained / gpus if spread else trained
    moved += turns * _ADDED * part
    moved += turns * (1 + share) * _CAST * how.parameters * (half and not spread and not frozen)
    moved += turns * (2 + share) * _WHOLE * how.layers * shape.matrices * how.four_bits
    sent = 0.0
    if gpus > 1:
        # FSDP gathers a layer for its forward and for its backward pass; what checkpointing computes again finds it
        # gathered. The model's ends stay gathered in between.
        gathered = how.number * (2 * how.layers * shape.layer + shape.ends)
        sent = turns * (gathered + 4 * trained) if spread else 2 * 4 * trained
    parts = {
        "products": (forward + backward + head) / rates.products,
        "again": share * forward / rates.products,
        "traffic": moved / rates.traffic,
        "optimiser": (_ADAMW + _NORM) * part / rates.traffic,
        "link": sent / rates.link,
    }
    starts = turns * how.layers * (1 + share / 3) * (_OPERATIONS + (_OF_ADAPTERS if frozen else 0))
    return StepTime(**parts, waiting=max(starts * rates.start - sum(parts.values()), 0.0))


def measured_rates(device: torch.device | str = "cpu", precision: str = "fp32") -> Rates:
    """Return the rates of a device of this machine: products of matrices, an addition in place, an operation's start.

    They take a second or so. On a CPU they are those of as many threads as PyTorch uses.
    """
    device = torch.device(device)
    kind = torch.bfloat16 if one_of("precision", precision, ("bf16", "fp32")) == "bf16" else torch.float32
    wide, long = (8192, 2**28) if device.type == "cuda" else (1024, 2**24)
    left, numbers = torch.ones(wide, wide, device=device, dtype=kind), torch.ones(long, device=device)
    one = torch.ones(1, device=device)
    product = _fastest(lambda: left @ left, device)
    added = _fastest(lambda: numbers.add_(1.0), device)
    start = _fastest(lambda: [one.add_(1.0) for _ in range(1000)], device) / 1000
    return Rates(2.0 * wide**3 / product, 8.0 * long / added, start, source=f"measured, {device.type}")


def _fastest(work: Callable[[], object], device: torch.device, times: int = 5) -> float:
    """Return the seconds of the fastest of some runs, the first of which does not count."""
    seconds = []
    for _ in range(times + 1):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])
