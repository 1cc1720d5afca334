"""Memory of a training run on each GPU, computed from a model's config alone: will it fit?"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gradlab.checks import between, count, one_of
from gradlab.llm.model.logps import CHUNK
from gradlab.llm.model.shapes import Shape, shape_of

CARD = 80e9
"""Bytes that a run may use of a card of 80 GB. PyTorch sees 85·10⁹; the rest is for CUDA, NCCL and fragmentation."""
_FULL = 4  # bytes of a number in float32
_SHARED = ("q_proj k_proj v_proj", "o_proj", "gate_proj up_proj", "down_proj")  # linear layers with one input
_LOGITS = 8, 2  # bytes of a logit and its log-softmax in float32, over which the gradient is written; in bfloat16 too
_HEADS = 3  # gradients of the output layer at a time: the sum over chunks so far, a new chunk's, and their sum
_FOUR_BITS = (
    0.5 + (1 + 4 / 256) / 64
)  # bytes of a weight in NF4: every 64 share a scale of a byte, 256 of these another
_LOOK = 1  # copies of the gradient beside the usual one while the sides are compared


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on each GPU, by what holds them."""

    weights: int
    """The model's weights, or this GPU's part of them."""
    gradients: int
    """Gradients of the trained weights, in float32; under DDP with the buckets that it sends."""
    moments: int
    """Adam's two moments of each trained weight, in float32."""
    sides: int
    """The excess in steps that compare winners' and losers' gradients: copies of the gradient, less activations."""
    gathered: int
    """Tensors that FSDP holds whole for a time: the layer at work, the next layer, the model's ends, gradients."""
    kept: int
    """Tensors that the forward pass leaves for the backward pass."""
    working: int
    """The backward pass at its peak: a layer computed again, a chunk of logits, gradients on their way."""

    @property
    def total(self) -> int:
        """Return the sum of all parts, as though they peaked at one time."""
        return sum(getattr(self, field.name) for field in dataclasses.fields(self))

    @property
    def activations(self) -> int:
        """Return the bytes that depend on batch and length."""
        return self.kept + self.working

    @property
    def fits(self) -> bool:
        """Say whether a card of 80 GB holds the total."""
        return self.total <= CARD


def memory(
    config: Mapping[str, Any] | str | Path,
    *,
    gpus: int = 1,
    sharded: bool = True,
    lora_rank: int = 0,
    lora_targets: Sequence[str] = ("all-linear",),
    lora_base: str = "whole",
    train_from: int | None = None,
    micro_pairs: int = 1,
    length: int = 512,
    prompt: int = 0,
    once: bool = True,
    checkpointing: float = 1.0,
    precision: str = "bf16",
    sides: bool = True,
    chunk: int = CHUNK,
) -> Memory:
    """Return the bytes on each GPU while gradlab's trainer trains a model of this config; see ``shape_of``.

    gpus           GPUs over which FSDP spreads weights, gradients and moments where ``sharded``; else DDP copies them.
    lora_rank      rank of an adapter on ``lora_targets``, which alone is trained; 0: all weights are trained.
    lora_base      ``4bit``: linear layers under the adapter have 4 bits per weight, as QLoRA has them; else ``whole``.
    train_from     only layers from this one on are trained, and computed; the hidden states below come from the disk.
    micro_pairs    pairs that one GPU holds at a time, padded to ``length`` tokens of a prompt and one response.
    prompt         tokens of the prompt among these; both responses share them where they are read ``once`` per pair.
                   By default 0, which counts the most that pairs of this length take. Unused without ``once``.
    checkpointing  the share of the layers that keep only their input, and are computed again in the backward pass.
    precision      ``bf16``: trained weights, their gradients and moments stay in float32; the computation is in
                   bfloat16, and so is the base under an adapter. ``fp32``: everything is in float32.
    sides          count the steps that compare the gradients of the two sides, each by itself (no adapter's dropout).
    chunk          tokens whose logits exist at one time.

    The reference takes no memory: its log-probabilities are computed before. Activations are counted operation by
    operation as transformers' modules save them, with scaled-dot-product attention. Compared with every tensor that
    PyTorch makes in a step of small models on the CPU, the tensors that the forward pass leaves are right within 5%,
    the total within 10%, or 16% too high where responses are short; the peak of the backward pass alone is up to 30%
    too high, as it is a bound. Not counted: CUDA's memory, NCCL's buffers, fragmentation (see ``CARD``), PPO's samples,
    reference and reward model.
    """
    for name, value in {"micro_pairs": micro_pairs, "length": length, "chunk": chunk}.items():
        count(name, value, 1)
    if count("prompt", prompt) > length:
        raise ValueError(f"prompt must be at most length, {length}, got {prompt}")
    between("checkpointing", float(checkpointing), 0, 1)
    how = computation(
        config, gpus=gpus, sharded=sharded, lora_rank=lora_rank, lora_targets=lora_targets, lora_base=lora_base,
        train_from=train_from, precision=precision,
    )  # fmt: skip
    alone = dataclasses.replace(how, sequences=micro_pairs, length=length)  # one side, as where the sides are compared
    both = {"length": 2 * length - prompt} if once else {"sequences": 2 * micro_pairs}
    how = dataclasses.replace(alone, **both)
    spread = how.spread
    part = _FULL * (-(-how.trained // gpus) if spread else how.trained)  # of the gradient on this GPU
    products = 3 * 8 * how.largest // (gpus if spread else 1)  # of two gradients of a matrix, in float64
    kept = how.kept(checkpointing)
    gathered, working = max(how.times(checkpointing, chunk), key=sum)
    usual = gathered + kept + working
    looks = alone.kept(checkpointing) + max(map(sum, alone.times(checkpointing, chunk)))
    return Memory(
        weights=how.weights // (gpus if spread else 1),
        gradients=part * (2 if gpus > 1 and not spread else 1),
        moments=2 * part,
        sides=max(_LOOK * part + max(looks, products) - usual, 0) if sides else 0,
        gathered=gathered,
        kept=kept,
        working=working,
    )


def computation(
    config: Mapping[str, Any] | str | Path, *, gpus: int, sharded: bool, lora_rank: int, lora_targets: Sequence[str],
    lora_base: str, train_from: int | None, precision: str,
) -> Computation:  # fmt: skip
    """Return a forward and backward pass of one token by a model of this config; see ``memory`` for the options."""
    shape = shape_of(config)
    count("gpus", gpus, 1)
    count("lora_rank", lora_rank)
    if train_from is not None and count("train_from", train_from) >= shape.layers:
        raise ValueError(f"train_from must be below the number of layers, {shape.layers}, got {train_from}")
    spread = sharded and gpus > 1
    four_bits = one_of("lora_base", lora_base, ("whole", "4bit")) == "4bit"
    if four_bits and (spread or not lora_rank):
        why = "sharded must be False over several GPUs" if spread else "lora_rank must be 1 or more"
        raise ValueError(f"{why} where lora_base is 4bit, got {sharded if spread else lora_rank}")
    half = one_of("precision", precision, ("bf16", "fp32")) == "bf16"
    return Computation(shape, shape.lora(lora_rank, lora_targets), lora_rank, four_bits, train_from, half, spread)


@dataclasses.dataclass(frozen=True)
class Computation:
    """A forward and backward pass of some sequences, and the bytes that it holds.

    lora       the input widths of the linear maps with an adapter, by name; ``rank`` is the adapter's.
    four_bits  the base's linear maps have 4 bits per weight.
    first      the first layer that is trained, and computed; None: all layers, and both ends.
    """

    shape: Shape
    lora: dict[str, int]
    rank: int
    four_bits: bool
    first: int | None
    half: bool
    spread: bool
    sequences: int = 1
    length: int = 1

    @property
    def trained(self) -> int:
        """Return the number of trained parameters."""
        return self.shape.trained(self.rank, tuple(self.lora), self.first)

    @property
    def layers(self) -> int:
        """Return how many layers are computed."""
        return self.shape.layers - (self.first or 0)

    @property
    def parameters(self) -> int:
        """Return the number of parameters that are computed with: of these layers and of the model's ends."""
        return self.layers * self.shape.layer + self.shape.ends

    @property
    def head_trained(self) -> bool:
        """Say whether the output layer is trained."""
        return not self.lora and self.first is None

    @property
    def tokens(self) -> int:
        """Return the tokens of all sequences, padding included."""
        return self.sequences * self.length

    @property
    def weights(self) -> int:
        """Return the bytes of all weights; an adapter's base has bfloat16, but not under FSDP, which needs one type."""
        if not self.lora:
            return _FULL * self.shape.parameters
        few = self.shape.layers * self.shape.matrices if self.four_bits else 0
        whole = (2 if self.half and not self.spread else _FULL) * (self.shape.parameters - few)
        return whole + math.ceil(_FOUR_BITS * few) + _FULL * self.trained

    @property
    def largest(self) -> int:
        """Return how many numbers the largest trained matrix holds."""
        shape = self.shape
        if self.lora:
            return self.rank * max(max(shape.linear[name][:2]) for name in self.lora)
        return shape.hidden * max(shape.vocabulary if self.head_trained else 0, shape.intermediate)

    @property
    def number(self) -> int:
        """Return the bytes of a number in matrix products."""
        return 2 if self.half else 4

    @property
    def casts(self) -> bool:
        """Say whether autocast turns float32 weights into bfloat16 on the way, as it must where FSDP does not."""
        return self.half and not self.spread

    @property
    def stream(self) -> int:
        """Return the bytes of a number between layers, which has the type of the embedding's weights."""
        return 4 if self.casts and not self.lora else self.number

    @property
    def layer(self) -> int:
        """Return the bytes that a layer leaves for its backward pass, without weights."""
        shape, number = self.shape, self.number
        norms = 2 * (_FULL * shape.hidden + 4)  # the input in float32, and a scale
        attention = 4 * number * shape.heads * shape.head_width + 4 * shape.heads  # q, k, v (repeated), output; sums
        feed = 3 * number * shape.intermediate  # gate, its activation, up
        if self.lora:
            inputs = sum(self._adapter_inputs())
        else:
            inputs = 2 * self.stream * shape.hidden + number * shape.intermediate  # normalised; before down_proj
            inputs += (5 if self.casts else 2) * number * shape.hidden  # autocast makes a copy for each linear map
        mask = number * self.length
        return self.tokens * (norms + attention + feed + inputs + mask)

    def _adapter_inputs(self) -> list[int]:
        """Return the bytes per token of inputs that adapters keep; they share an input unless autocast copies it."""
        inner = [self.number * self.rank for _ in self.lora]
        if self.casts:
            return inner + [self.number * width for width in self.lora.values()]
        shared = [[self.lora[name] for name in group.split() if name in self.lora] for group in _SHARED]
        shared[1] = []  # attention keeps its output anyway
        return inner + [self.number * widths[0] for widths in shared if widths]

    @property
    def layer_casts(self) -> int:
        """Return the bytes of a layer's weights in bfloat16, where autocast copies them."""
        return 0 if not self.casts or self.lora else 2 * self.shape.layer

    def kept(self, checkpointing: float) -> int:
        """Return the bytes that the forward pass leaves.

        They are: layers, or layers' inputs; the last norm; mask and rotary factors, which the layers share.
        """
        shape = self.shape
        again = self._again(checkpointing)
        layers = again * self.stream * shape.hidden * self.tokens
        layers += (self.layers - again) * (self.layer + self.layer_casts)
        if self.first is not None and not again:
            layers += self.stream * shape.hidden * self.tokens  # the hidden states that came from below
        norm = self.tokens * shape.hidden * (_FULL + self.stream * (1 if self.lora else 2))
        shared = self.tokens * (self.length + 2 * self.stream * shape.head_width)
        return layers + norm + shared

    def _again(self, checkpointing: float) -> int:
        """Return how many layers are computed again, where a share of them is."""
        return math.ceil(checkpointing * self.layers)

    @property
    def passing(self) -> int:
        """Return the bytes of gradients on their way through a layer.

        They are those of activations and of the largest matrix, or of adapters' inputs.
        """
        ways = 2 * self.number * self.tokens * self.shape.intermediate
        ways += self.number * self.shape.hidden * self.shape.intermediate * self.four_bits  # a matrix made whole
        if not self.lora:
            return ways + (self.number + (_FULL if self.casts else 0)) * self.shape.hidden * self.shape.intermediate
        return ways + (_FULL * self.tokens * max(self.lora.values()) if self.casts else 0)  # peft makes them float32

    def times(self, checkpointing: float, chunk: int) -> list[tuple[int, int]]:
        """Return (gathered by FSDP, working) in bytes for each moment of the backward pass that may be its peak.

        Layers that keep everything are the last ones: they are free before the first layer is computed again. Autocast
        keeps its copies of weights to the end of the forward pass, which is at the output layer.
        """
        again, full = self._again(checkpointing), self.layer + self.layer_casts
        again = max(full - (self.layers - again) * full, 0) if again else 0
        return [
            (self.gathered_at_head, self.logits(chunk) + self._again(checkpointing) * self.layer_casts),
            (self.gathered_at_layer, again + self.passing),
            (self.gathered_at_end, 0),
        ]  # fmt: skip

    def logits(self, chunk: int) -> int:
        """Return the bytes of a chunk of logits with their gradient, and of the output layer's gradient."""
        head = self.number * self.shape.vocabulary * self.shape.hidden if self.head_trained else 0
        chunks = -(-self.tokens // chunk)
        states = 0 if self.head_trained else 3 * self.number * self.tokens * self.shape.hidden  # on the way to slopes
        logit = sum(_LOGITS) if self.half else _LOGITS[0]
        return logit * min(chunk, self.tokens) * self.shape.vocabulary + min(chunks, _HEADS) * head + states

    @property
    def gathered_at_head(self) -> int:
        """Return the bytes gathered at the output layer: the model's ends, the layer at work and the next layer."""
        return self.number * (self.shape.ends + 2 * self.shape.layer) if self.spread else 0

    @property
    def gathered_at_layer(self) -> int:
        """Return the bytes gathered at a layer: as at the output layer, with gradients.

        These are the output layer's, a layer's, and a layer's in float32 on its way to the other processes.
        """
        if not self.spread or self.lora:
            return self.gathered_at_head
        head = self.shape.vocabulary * self.shape.hidden * self.head_trained
        return self.gathered_at_head + self.number * (head + self.shape.layer) + _FULL * self.shape.layer

    @property
    def gathered_at_end(self) -> int:
        """Return the bytes of the gradients of the model's ends, which are sent last, in float32."""
        return (self.number + _FULL) * self.shape.ends if self.spread and self.head_trained else 0
