"""The sizes of a Llama-like model, from its config alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gradlab.checks import count, one_of
from gradlab.console import one_line

MODEL_TYPES = ("llama", "mistral", "qwen2")
# Shapes of known models, for the table; any other comes from its config.
LLAMAS: dict[str, dict[str, Any]] = {
    name: {"model_type": "llama", "vocab_size": 32000, **sizes}
    for name, sizes in {
        "Llama-2-7B": {
            "hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 11008, "num_attention_heads": 32,
        },
        "Llama-2-13B": {
            "hidden_size": 5120, "num_hidden_layers": 40, "intermediate_size": 13824, "num_attention_heads": 40,
        },
        "CodeLlama-34B": {
            "hidden_size": 8192, "num_hidden_layers": 48, "intermediate_size": 22016, "num_attention_heads": 64,
            "num_key_value_heads": 8,
        },
    }.items()
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Shape:
    """The sizes in a Llama-like config."""

    hidden: int
    layers: int
    intermediate: int
    heads: int
    kv_heads: int
    head_width: int
    vocabulary: int
    tied: bool
    attention_bias: bool
    output_bias: bool
    mlp_bias: bool

    @property
    def linear(self) -> dict[str, tuple[int, int, bool]]:
        """Return a layer's linear maps by name: width of input and of output, and whether there is a bias."""
        attention, keys = self.heads * self.head_width, self.kv_heads * self.head_width
        return {
            "q_proj": (self.hidden, attention, self.attention_bias),
            "k_proj": (self.hidden, keys, self.attention_bias),
            "v_proj": (self.hidden, keys, self.attention_bias),
            "o_proj": (attention, self.hidden, self.output_bias),
            "gate_proj": (self.hidden, self.intermediate, self.mlp_bias),
            "up_proj": (self.hidden, self.intermediate, self.mlp_bias),
            "down_proj": (self.intermediate, self.hidden, self.mlp_bias),
        }

    @property
    def layer(self) -> int:
        """Return the number of parameters of a layer: its linear maps and two norms."""
        return sum((left + bias) * right for left, right, bias in self.linear.values()) + 2 * self.hidden

    @property
    def ends(self) -> int:
        """Return the number of parameters outside the layers: embedding, output layer and the last norm."""
        return (1 if self.tied else 2) * self.vocabulary * self.hidden + self.hidden

    @property
    def parameters(self) -> int:
        """Return the number of all parameters."""
        return self.layers * self.layer + self.ends

    @property
    def matrices(self) -> int:
        """Return the number of weights in a layer's linear maps, without biases."""
        return sum(left * right for left, right, _ in self.linear.values())

    def lora(self, rank: int, targets: Sequence[str]) -> dict[str, int]:
        """Return the input width of each linear map of a layer that has an adapter, by name; empty for rank 0."""
        names = tuple(self.linear) if tuple(targets) == ("all-linear",) else tuple(targets)
        for name in names:
            one_of("lora_targets", name, self.linear)
        return {name: self.linear[name][0] for name in names} if rank else {}

    def trained(self, rank: int, targets: Sequence[str], first: int | None = None) -> int:
        """Return the number of trained parameters: all, or those of a LoRA adapter; of layers from ``first`` on.

        first  the first layer that is trained; all weights then means these layers' and the last norm's. None: all.
        """
        layers = self.layers - (first or 0)
        if rank:
            return layers * sum(rank * sum(self.linear[name][:2]) for name in self.lora(rank, targets))
        return self.parameters if first is None else layers * self.layer + self.hidden


def shape_of(config: Mapping[str, Any] | str | Path) -> Shape:
    """Read the sizes in a config: a mapping with transformers' names, or the folder or hub name of a model.

    Llama, Mistral and Qwen2, whose layers are alike. No weights are read. ValueError for another kind of model, or one
    that leaves out what has no default; OSError where there is no such model.
    """
    if not isinstance(config, Mapping):
        config = _read(config)
    kind = one_of("model_type", config.get("model_type", "llama"), MODEL_TYPES)

    def size(name: str, left_out: int | None = None) -> int:
        value = config.get(name)
        return count(name, left_out if value is None and left_out is not None else value, 1)

    heads, hidden = size("num_attention_heads"), size("hidden_size")
    bias = bool(config.get("attention_bias", False)) and kind == "llama"
    return Shape(
        hidden=hidden, layers=size("num_hidden_layers"), intermediate=size("intermediate_size"), heads=heads,
        kv_heads=size("num_key_value_heads", heads if kind == "llama" else None),
        head_width=size("head_dim", hidden // heads), vocabulary=size("vocab_size"),
        tied=bool(config.get("tie_word_embeddings", False)), attention_bias=bias or kind == "qwen2", output_bias=bias,
        mlp_bias=bool(config.get("mlp_bias", False)) and kind == "llama",
    )  # fmt: skip


def _read(source: str | Path) -> dict[str, Any]:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(str(source), trust_remote_code=False).to_dict()
    except (OSError, ValueError, KeyError) as error:
        first = one_line(error)[:300]
        raise OSError(
            f"config must be a mapping, a model's folder or a hub's name, got {str(source)!r} ({first})"
        ) from None
