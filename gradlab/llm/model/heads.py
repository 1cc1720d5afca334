"""The way to a causal language model's logits: its decoder and one linear layer, or its own forward; tried at load."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gradlab.console import out_of_memory

_LENGTH = 6  # tokens of the text on which two ways are compared; the second row has half of them, then padding
_MARGIN = 8  # two ways may differ by so many times the rounding that is expected


class HeadNotice(UserWarning):
    """A warning that a model's own forward gives its logits, which takes more memory."""


@dataclass(frozen=True)
class Way:
    """A way to logits.

    whole      the model's own forward gives them, of all tokens; else its decoder and its output embedding do, of the
               tokens that are asked for.
    positions  ``position_ids`` are given, so that padding may be on the left; else it must be on the right.
    """

    whole: bool
    positions: bool

    def logits(self, forward: Callable[..., Any], base: Any, inputs: dict[str, Tensor], at: Tensor) -> Tensor:
        """Return logits (N, V) at the places where ``at`` (B, T) is true, by the model's ``forward`` or its parts."""
        state = self.state(forward, base, inputs)[at]
        return state if self.whole else base.get_output_embeddings()(state)

    def state(self, forward: Callable[..., Any], base: Any, inputs: dict[str, Tensor]) -> Tensor:
        """Return the logits (B, T, V), or the decoder's last hidden state (B, T, H)."""
        mask, more = inputs["attention_mask"], {}
        if self.positions:  # from 0 at the first token, so that padding on the left changes nothing
            more["position_ids"] = (mask.long().cumsum(-1) - 1).clamp(min=0)
        elif not bool(mask[:, 0].all()):
            raise ValueError("padding must be on the right for this model, which counts its positions by itself")
        if self.whole:
            return forward(**inputs, **more, use_cache=False).logits
        return decoder_of(base)(**inputs, **more, use_cache=False).last_hidden_state


def decoder_of(base: Any) -> Any:
    """Return the part of a model that gives hidden states; Llama 4's text model takes itself for it."""
    decoder = base.get_decoder()
    return base.model if decoder is base and hasattr(base, "model") else decoder


def unwrapped(model: Any) -> Any:
    """Return the model inside peft's wrapper, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def layers_of(base: Any) -> tuple[str, nn.ModuleList]:
    """Return the layers of a model's decoder, and their name in it; no layers where the decoder has no list of any."""
    lists = [(name, part) for name, part in decoder_of(base).named_children() if isinstance(part, nn.ModuleList)]
    return max(lists, key=lambda named: len(named[1]), default=("", nn.ModuleList()))


def way_of(forward: Callable[..., Any], base: Any, *, linear: bool = True) -> Way:
    """Return the way to a model's logits that needs the least memory, among those that agree with its own logits.

    forward  the model's forward, with its LoRA adapter where it has one; ``base``: the model without peft's wrapper.
    linear   whether decoder and output embedding may be tried: a config can say that they are not all.

    The ways are compared on a random text of six tokens, beside its first half with padding. They must agree up to
    rounding in the model's type. A HeadNotice says where the model's own forward is needed. ValueError where log π
    cannot be right: where the model takes no text alone, or a token's logits depend on what follows it.
    """
    name = type(base).__name__
    with at_rest(base), torch.no_grad():
        inputs = _text(base)
        half = {key: value[:1, : _LENGTH // 2] for key, value in inputs.items()}
        at = inputs["attention_mask"].bool()
        try:
            logits, alone = forward(**inputs).logits, forward(**half).logits
        except Exception as error:
            if out_of_memory(error):
                raise
            said = " ".join(f"{type(error).__name__}: {error}".split())
            raise ValueError(f"{name} must give logits of a text alone; it says {said}") from None
        if logits.ndim != 3 or logits.shape[:2] != at.shape:
            raise ValueError(f"{name} must give logits of every token, (2, {_LENGTH}, V), got {tuple(logits.shape)}")
        logps, alone = _logp(logits), _logp(alone)
        if bool(logps.isnan().any()):
            return Way(not linear, True)  # the weights are broken, which training and scoring say in their words
        tolerance = rounding(base, logits)
        if float((logps[:, : _LENGTH // 2] - alone).abs().max()) > tolerance:
            raise ValueError(
                f"{name} gives a token logits that depend on what follows it, later tokens or padding, so log π of a "
                "response cannot be had from it; a model of BERT's kind needs is_decoder in its config"
            )
        for whole in (False, True):
            for positions in (True, False):
                way = Way(whole, positions)
                if (linear or whole) and _agrees(way, forward, base, inputs, logps[at], tolerance):
                    if whole:
                        _say(name, logits.shape[-1])
                    return way
    raise ValueError(f"{name} must give the same logits with and without a cache; it does not")


def _agrees(
    way: Way, forward: Callable[..., Any], base: Any, inputs: dict[str, Tensor], logps: Tensor, tolerance: float
) -> bool:
    """Return whether a way gives the log-probabilities of the model's own logits, (N, V)."""
    try:
        by_way = _logp(way.logits(forward, base, inputs, inputs["attention_mask"].bool()))
    except Exception as error:  # the way does not exist in this model
        if out_of_memory(error):
            raise
        return False
    return by_way.shape == logps.shape and bool((by_way - logps).abs().max() <= tolerance)


def _logp(logits: Tensor) -> Tensor:
    """Return log-softmax in float32; a token that a model rules out has a finite value too, for comparison."""
    return logits.float().log_softmax(-1).clamp(min=-1e9)


def _text(base: Any) -> dict[str, Tensor]:
    """Return a random text (2, 6), whose second row is the first's half and then padding with other tokens."""
    ids = random_ids(base)
    mask = torch.ones_like(ids)
    ids[1, : _LENGTH // 2], mask[1, _LENGTH // 2 :] = ids[0, : _LENGTH // 2], 0
    device = base.get_input_embeddings().weight.device
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}


def random_ids(base: Any) -> Tensor:
    """Return random tokens (2, 6) of a model's vocabulary, without its padding."""
    config = base.config.get_text_config()
    ids = torch.randint(config.vocab_size, (2, _LENGTH), generator=torch.Generator().manual_seed(0))
    pad = getattr(config, "pad_token_id", None)  # some models give it no position
    return torch.where(ids == pad, (ids + 1) % config.vocab_size, ids) if isinstance(pad, int) else ids


def rounding(base: Any, logits: Tensor) -> float:
    """Return how far rounding can move log-softmax between two ways.

    A logit is a sum of H products, in float32 at least: √H roundings of about its own size, then one in the model's
    type. Log-softmax doubles that, and rounds once more by its own size, which is about log V for small logits.
    """
    coarsest = max(torch.finfo(p.dtype).eps for p in base.parameters() if p.dtype.is_floating_point)
    width = base.get_input_embeddings().weight.shape[-1]
    single = torch.finfo(torch.float32).eps
    largest = float(logits[logits.isfinite()].abs().max())
    return _MARGIN * (2 * (coarsest + width**0.5 * single) * largest + single * math.log(logits.shape[-1]))


@contextmanager
def at_rest(base: nn.Module) -> Iterator[None]:
    """Turn dropout off inside; every module's mode is as before afterwards."""
    modes = [(part, part.training) for part in base.modules()]
    base.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def _say(name: str, vocabulary: int) -> None:
    size = 1000 * vocabulary * 4 / 2**20
    warnings.warn(
        f"{name} does more to its logits than one linear layer, so its own forward gives them, of all tokens at once: "
        f"{size:,.0f} MiB in float32 per 1,000 tokens, several times that in training; smaller micro-batches need less",
        HeadNotice, stacklevel=4,
    )  # fmt: skip
