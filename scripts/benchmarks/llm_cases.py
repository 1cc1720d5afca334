"""The cases of ``llm_speed.py``: models with pairs of random tokens and their steps, output layers, and how much."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from gradlab.llm.data.batches import apart, batch_at, pair_rows
from gradlab.llm.data.tokens import Encoded
from gradlab.llm.demo.laptop_run import SETTINGS as DEMO
from gradlab.llm.demo.token_task import task_tokenizer
from gradlab.llm.model.group import Group, Precision
from gradlab.llm.model.loading import small_llama, with_lora
from gradlab.llm.model.memory import memory
from gradlab.llm.model.shapes import LLAMAS, shape_of
from gradlab.llm.model.token_logps import from_hidden
from gradlab.llm.train.pair_task import PairTask
from gradlab.llm.train.policy_model import PolicyModel, frozen
from gradlab.llm.train.run_settings import OF_RECIPES, Settings
from gradlab.llm.train.section_settings import LogSettings, LoraSettings
from scripts.benchmarks.llm_page import BASES, SIDES
from scripts.benchmarks.timing import Step, drawing

RATE = 1e-8  # so small that every step works on the same weights, whatever the loss
BATCHES = 8  # different ones
END_ID, PAD_ID = 1, 2  # as in small_llama
ROOM = 5e9  # bytes of a GPU that are left for CUDA and fragmentation
AGREEMENT = {"fp32": (1e-3, 1e-3), "bf16": (0.25, 0.05)}  # of log π (nats, largest) and its gradient (relative)


@dataclass(frozen=True)
class Size:
    """A model with random weights and a batch for it, of random tokens; lengths (lowest, highest) are uniform."""

    part: ClassVar = "steps"
    methods: ClassVar = (*OF_RECIPES, SIDES)
    shape: Mapping[str, Any]
    """As ``small_llama`` takes it, or a config."""
    vocabulary: int
    prompt: tuple[int, int]
    response: tuple[int, int]
    pairs: int = 8
    micro: int = 8
    precision: Precision = "fp32"
    lora: int = 0
    checkpointing: bool = False

    @property
    def longest(self) -> int:
        """The most tokens that a prompt and a response have together."""
        return self.prompt[1] + self.response[1]

    def needs(self, *, sides: bool) -> int:
        """Return the bytes that training a config takes, by gradlab's own table of memory."""
        return memory(
            self.shape, lora_rank=self.lora, micro_pairs=self.micro, length=self.longest, precision=self.precision,
            checkpointing=self.checkpointing, sides=sides,
        ).total  # fmt: skip

    def model(self, device: str) -> Any:
        """Return the model without an adapter, with equal weights each time."""
        if "width" in self.shape:
            return small_llama(self.vocabulary, **self.shape, longest=self.longest, seed=0)
        from transformers import AutoModelForCausalLM, LlamaConfig

        config = LlamaConfig(**self.shape, max_position_embeddings=self.longest)
        half = self.lora and self.precision == "bf16"  # an adapter's base
        with drawing(device), torch.device(device):
            return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16 if half else torch.float32)

    def adapted(self, model: Any) -> Any:
        """Return the model with a LoRA adapter, where this size has one."""
        return with_lora(model, self.lora, 2.0 * self.lora, ("all-linear",)) if self.lora else model

    def training(self, device: str) -> Training:
        """Return what is measured: the model or layer with its inputs."""
        return Training(self, device)


@dataclass(frozen=True)
class Head:
    """An output layer alone: log π of ``tokens`` tokens from their hidden states, with the gradient of both."""

    part: ClassVar = "log-probs"
    tokens: int
    hidden: int
    vocabulary: int
    chunks: Sequence[int] = (64, 256, 1024)
    precision: Precision = "fp32"

    @property
    def methods(self) -> Sequence[str]:
        """The ways to get log π."""
        return [BASES[self.part], "gather − logsumexp", *(f"chunks of {size}" for size in self.chunks)]

    def training(self, device: str) -> HeadTraining:
        """Return what is measured: the model or layer with its inputs."""
        return HeadTraining(self, device)


@dataclass(frozen=True)
class Extent:
    """How much is measured: models, output layers, the models whose steps TRL does as well, and whose memory (CPU)."""

    sizes: Mapping[str, Size]
    heads: Mapping[str, Head]
    trl: Sequence[str]
    peaks: Sequence[str]
    rounds: int
    limit: float = 60.0
    """Seconds after which no further round is begun, in each part."""

    @property
    def cases(self) -> dict[str, Size | Head]:
        """All models and output layers, by name."""
        return {**self.sizes, **self.heads}


def _laptop() -> Extent:
    tokens: dict[str, Any] = {"vocabulary": len(task_tokenizer()), "prompt": (5, 5), "response": (5, 25)}
    text: dict[str, Any] = {"vocabulary": 2048, "prompt": (12, 60), "response": (6, 52)}
    shapes = DEMO["sizes"].items()
    return Extent(
        {f"{name}, {task}": Size(shape, **own) for task, own in (("tokens", tokens), ("text", text))
         for name, shape in shapes},
        {"hidden states 512 wide": Head(1024, 512, 32_000)},
        trl=[f"{name}, text" for name in DEMO["sizes"]],
        peaks=[*(f"{name}, text" for name in DEMO["sizes"]), "hidden states 512 wide"], rounds=30, limit=40.0,
    )  # fmt: skip


def _cuda() -> Extent:
    batch: dict[str, Any] = {"vocabulary": 32_000, "prompt": (64, 256), "response": (64, 256), "precision": "bf16"}
    seven = LLAMAS["Llama-2-7B"]
    small = {**seven, "hidden_size": 2048, "num_hidden_layers": 22, "intermediate_size": 5632,
             "num_key_value_heads": 4}  # fmt: skip
    large: dict[str, Any] = {**batch, "micro": 4, "checkpointing": True}
    shape: dict[str, Any] = {"tokens": 4096, "hidden": 4096, "vocabulary": 32_000, "chunks": (256, 1024, 4096)}
    return Extent(
        {"1.1B, all weights": Size(small, **batch), "7B, LoRA": Size(seven, **large, lora=16),
         "7B, all weights": Size(seven, **large)},
        {"hidden states 4096 wide, bf16": Head(**shape, precision="bf16"),
         "hidden states 4096 wide, fp32": Head(**shape)},
        trl=("1.1B, all weights", "7B, LoRA"), peaks=(), rounds=20, limit=15.0,
    )  # fmt: skip


def _quick() -> Extent:
    tiny: dict[str, Any] = {"vocabulary": 48, "prompt": (2, 5), "response": (2, 6), "pairs": 4, "micro": 2}
    shape = {"vocab_size": 48, "hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 32,
             "num_attention_heads": 2}  # fmt: skip
    adapter = Size(shape, **tiny, precision="bf16", lora=2, checkpointing=True)
    return Extent(
        {"tiny, tokens": Size({"width": 16, "layers": 1, "heads": 2}, **tiny), "tiny, LoRA": adapter},
        {"tiny head": Head(32, 16, 64, chunks=(8,)), "tiny head, bf16": Head(32, 16, 64, (8,), "bf16")},
        trl=("tiny, tokens", "tiny, LoRA"), peaks=("tiny head",), rounds=2,
    )  # fmt: skip


EXTENTS = {"cpu": _laptop, "cuda": _cuda, "quick": _quick}


class Training:
    """A model, the pairs of ``BATCHES`` batches, and steps on them with any loss, in one policy."""

    def __init__(self, size: Size, device: str) -> None:
        self.size, group = size, Group(device=torch.device(device))
        model = size.model(device)
        self.shape = shape_of(model.config.to_dict())
        self.settings = Settings(
            model="", data="", out=Path(), loss=OF_RECIPES, batch=size.pairs, micro=size.micro,
            log=LogSettings(sides_every=0),
            schedule="constant", warmup=0.0, precision=size.precision, lora=LoraSettings(rank=size.lora),
            gradient_checkpointing=size.checkpointing,
        )  # fmt: skip
        model = size.adapted(model)
        self.policy = PolicyModel(model, group, self.settings, rate=RATE, steps=1, pad=PAD_ID)
        self.pairs = drawn_pairs(size)
        with frozen(self.policy):
            ref = self.policy.score(pair_rows(self.pairs), size.micro).view(-1, 2)
        self.tasks = {
            name: PairTask(self.settings.loss_of(name), self.pairs, ref, [], ref[:0]) for name in self.settings.loss
        }
        self.row: dict[str, float] = {}  # what the log would say of the last step
        fits = device == "cpu" or has_room(size, sides=True)
        self.methods = size.methods if fits else size.methods[:-1]

    def step(self, method: str) -> Step:
        """Return a step of the trainer, its log aside; the first call is step 1."""
        numbers = itertools.count(1)
        task = self.tasks[method.split()[0]]
        settings = replace(self.settings, log=LogSettings(sides_every=int(method == SIDES)))

        def step() -> None:
            number = next(numbers)
            self.policy.settings = settings
            self.row = task.gradient(self.policy, number)
            self.policy.step(number, self.row["grad_norm"])
            task.realised(self.policy, number, self.row)

        return step

    def batch(self, number: int) -> list[Encoded]:
        """Return the pairs of a step, counted from 1."""
        return [self.pairs[i] for i in batch_at(number - 1, len(self.pairs), self.size.pairs, self.settings.seed)]

    def work(self, number: int, *, separate: bool = False) -> dict[str, float]:
        """Return the tokens that a step reads, without padding, and the operations for them.

        separate  count each prompt once per response, as TRL reads it; else as the trainer's layout does.

        Two a parameter and token in the forward pass and four in the backward pass (two where the weights are frozen);
        causal attention; the output layer for responses' tokens alone. What is computed again counts once.
        """
        shape, rows = self.shape, pair_rows(self.batch(number))
        if separate or not self.policy.layout.of(rows).once:
            rows = apart(rows)
        tokens = sum(len(part) for row in rows for part in row)
        answers = sum(len(response) for _, *responses in rows for response in responses)
        each = 4 if self.size.lora else 6
        body = shape.layers * (shape.layer - 2 * shape.hidden)  # without norms
        adapter = shape.trained(self.size.lora, ("all-linear",)) if self.size.lora else 0
        seen = sum(  # twice the tokens that attention looks at: a prompt's, and what each response adds
            len(prompt) ** 2 + sum((len(prompt) + len(one)) ** 2 - len(prompt) ** 2 for one in responses)
            for prompt, *responses in rows
        )
        attention = 6 * shape.layers * shape.heads * shape.head_width * seen
        head = each * shape.vocabulary * shape.hidden * answers
        return {"tokens": tokens, "flops": (each * body + 6 * adapter) * tokens + head + attention}

    def checked(self) -> dict[str, dict[str, float]]:
        """Return further numbers by method; there are none."""
        return {}


class HeadTraining:
    """The ways to get log π of some tokens from their hidden states."""

    def __init__(self, head: Head, device: str) -> None:
        draw = torch.Generator(device).manual_seed(0)
        dtype = torch.bfloat16 if head.precision == "bf16" else torch.float32
        how: dict[str, Any] = {"generator": draw, "device": device}
        self.size, self.methods = head, head.methods
        self.layer = nn.Linear(head.hidden, head.vocabulary, bias=False, device=device, dtype=dtype)
        with torch.no_grad():
            self.layer.weight.normal_(std=head.hidden**-0.5, generator=draw)
        self.hidden = torch.randn(head.tokens, head.hidden, **how).to(dtype).requires_grad_()
        self.target = torch.randint(head.vocabulary, (head.tokens,), **how)

    def logps(self, method: str) -> Tensor:
        """Return log π of each token."""
        if method == self.methods[0]:
            logps = torch.log_softmax(self.layer(self.hidden).float(), -1)
            return logps.gather(-1, self.target[:, None])[:, 0]
        if method.startswith("chunks"):  # gradlab's own
            return from_hidden(self.layer, self.hidden, self.target, int(method.split()[-1]))
        logits = self.layer(self.hidden).float()
        return logits.gather(-1, self.target[:, None])[:, 0] - logits.logsumexp(-1)

    def step(self, method: str) -> Step:
        """Return a step of forward and backward."""

        def step() -> None:
            self.layer.weight.grad = self.hidden.grad = None
            self.logps(method).sum().backward()

        return step

    def work(self, number: int) -> dict[str, float]:
        """Return the tokens, and the operations that they need."""
        head = self.size
        return {"tokens": head.tokens, "flops": 6.0 * head.tokens * head.hidden * head.vocabulary}

    def checked(self) -> dict[str, dict[str, float]]:
        """Return how far log π and its gradient are from the first method's; ArithmeticError where that is too far."""
        made: dict[str, dict[str, float]] = {}
        base: list[Tensor] = []
        for method in self.methods:
            self.step(method)()
            with torch.no_grad():
                grads = [one.grad for one in (self.hidden, self.layer.weight) if one.grad is not None]
                found = [self.logps(method), *grads]
            base = base or found
            errors = [float((a - b).norm() / b.norm()) for a, b in zip(found[1:], base[1:], strict=True)]
            made[method] = {
                "logp_error": float((found[0] - base[0]).abs().max()), "gradient_error": max(errors),
            }  # fmt: skip
            for error, most in zip(made[method].values(), AGREEMENT[self.size.precision], strict=True):
                if not error <= most:
                    raise ArithmeticError(f"{method} must give what {self.methods[0]} gives, is off by {made[method]}")
        self.layer.weight.grad = self.hidden.grad = None
        return made


def has_room(size: Size, *, sides: bool) -> bool:
    """Return true if the GPU's memory is enough to train this size, with or without steps that look at both sides."""
    return size.needs(sides=sides) + ROOM < torch.cuda.mem_get_info()[1]


def drawn_pairs(size: Size) -> list[Encoded]:
    """Return random tokens in the place of pairs; responses end as they should."""
    rng = np.random.default_rng(0)

    def tokens(low: int, high: int) -> tuple[int, ...]:
        return tuple(rng.integers(PAD_ID + 1, size.vocabulary, rng.integers(low, high + 1)).tolist())

    lowest, highest = (one - 1 for one in size.response)
    return [
        Encoded(tokens(*size.prompt), (*tokens(lowest, highest), END_ID), (*tokens(lowest, highest), END_ID))
        for _ in range(BATCHES * size.pairs)
    ]
