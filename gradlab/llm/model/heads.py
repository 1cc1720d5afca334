"""The way to a causal language model's logits, and the layout of its rows, both tried at load.

Its decoder and one linear layer give the logits, or its own forward; responses share a row with their prompt, or not.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from gradlab.console import one_line, out_of_memory
from gradlab.llm.data.batches import Layout, collate

_LENGTH = 6  # tokens of the text on which two ways are compared; the second row has half of them, then padding
_MARGIN = 8  # two ways may differ by so many times the rounding that is expected
_CLEAR = 3  # a wrong mask, or wrong positions, must differ by so many times more than responses that share a row
# Names in a config of how far a layer's attention reaches: a mask of blocks takes the place of a layer's own.
_REACH = re.compile(r"sliding_windows?(_size)?|attention_chunk_size|(attention_)?window(_size)?|local_attention\w*|"
                    r"(lsh|local)_attn_chunk_length|block_size")  # fmt: skip


class HeadNotice(UserWarning):
    """A warning that a model's own forward gives its logits, which takes more memory."""


class ApartNotice(UserWarning):
    """A warning that a model reads a prompt again for each of its responses, which takes more time."""


@dataclass(frozen=True)
class Way:
    """A way to logits.

    whole   the model's own forward gives them, of all tokens; else its decoder and its output embedding do, of the
            tokens that are asked for.
    layout  how rows become tensors for it, padded on the right.
    """

    whole: bool
    layout: Layout

    def logits(self, forward: Callable[..., Any], base: Any, inputs: dict[str, Tensor], at: Tensor) -> Tensor:
        """Return logits (N, V) at the places where ``at`` (B, T) is true, by the model's ``forward`` or its parts."""
        state = self.state(forward, base, inputs)[at]
        return state if self.whole else base.get_output_embeddings()(state)

    def state(self, forward: Callable[..., Any], base: Any, inputs: dict[str, Tensor]) -> Tensor:
        """Return the logits (B, T, V), or the decoder's last hidden state (B, T, H).

        inputs  ``input_ids``, and what else of ``attention_mask``, ``position_ids`` and ``segments`` the layout has.
        """
        given = dict(inputs)
        if "segments" in given:
            given["attention_mask"] = block_mask(given.pop("segments"), base)
        if self.whole:
            return forward(**given, use_cache=False).logits
        return decoder_of(base)(**given, use_cache=False).last_hidden_state


def block_mask(segments: Tensor, base: Any) -> Tensor:
    """Return the mask (B, 1, T, T) of which earlier places each place sees: the prompt's and those of its own block.

    segments  (B, T), see ``batches``. The mask is boolean, or added to scores where the model computes them by itself.
    """
    length = segments.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    mine, others = segments[:, :, None], segments[:, None, :]
    seen = (causal & ((others == mine) | (others == 0)))[:, None]
    if getattr(base.config.get_text_config(), "_attn_implementation", None) != "eager":
        return seen
    dtype = base.get_input_embeddings().weight.dtype
    return torch.zeros_like(seen, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)


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
    """Return the way to a model's logits that needs the least memory and time, among those that agree with its own.

    forward  the model's forward, with its LoRA adapter where it has one; ``base``: the model without peft's wrapper.
    linear   whether decoder and output embedding may be tried: a config can say that they are not all.

    The ways are compared on a random text of six tokens, beside its first half with padding; the layouts, on that text
    and another end of it. They must agree up to rounding in the model's type. Where that could hide a mask or positions
    that the model ignores, these are tried by themselves: rows with wrong ones must be further away by far; or, to the
    last bit, one response must not move the other, as it does without a mask, and wrong positions must move it.
    A HeadNotice says where the model's own forward is needed, an ApartNotice where responses cannot share a row.
    ValueError where log π cannot be right: where the model takes no text alone, or a token's logits depend on what
    follows it.
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
            said = one_line(f"{type(error).__name__}: {error}")
            raise ValueError(f"{name} must give logits of a text alone; it says {said}") from None
        if logits.ndim != 3 or logits.shape[:2] != at.shape:
            raise ValueError(f"{name} must give logits of every token, (2, {_LENGTH}, V), got {tuple(logits.shape)}")
        logps, alone = _logp(logits), _logp(alone)
        if bool(logps.isnan().any()):
            return Way(not linear, Layout())  # the weights are broken, which training and scoring say in their words
        tolerance = rounding(base, logits)
        if float((logps[:, : _LENGTH // 2] - alone).abs().max()) > tolerance:
            raise ValueError(
                f"{name} gives a token logits that depend on what follows it, later tokens or padding, so log π of a "
                "response cannot be had from it; a model of BERT's kind needs is_decoder in its config"
            )
        for whole in (False, True):
            for masked in (False, True):
                way = Way(whole, Layout(masked=masked))
                tried = inputs if masked else {"input_ids": inputs["input_ids"]}
                if (linear or whole) and _apart(way, forward, base, tried, logps, at) <= tolerance:
                    if whole:
                        _say(name, logits.shape[-1])
                    return replace(way, layout=_layout(way, forward, base, inputs["input_ids"], logits))
    raise ValueError(f"{name} must give the same logits with and without a cache; it does not")


def _layout(way: Way, forward: Callable[..., Any], base: Any, ids: Tensor, logits: Tensor) -> Layout:
    """Return the way's layout, with responses that share a row where they may.

    ids  (2, 6), whose second row is the first's half and then other tokens; ``logits`` (2, 6, V), of its first row.
    """
    prompt, *ends = (tuple(part.tolist()) for part in (*ids[0].split(_LENGTH // 2), ids[1, _LENGTH // 2 :]))
    other = _logp(forward(input_ids=ids[1:]).logits)
    expected = torch.cat([_logp(logits[:1]), other[:, _LENGTH // 2 :]], 1)
    once = replace(way.layout, once=True, window=_reach(base))
    batch = collate([(prompt, *ends)], 0, ids.device, layout=replace(once, window=None))
    inputs = {key: batch[key] for key in ("input_ids", "segments", "position_ids")}
    at = torch.ones_like(batch["input_ids"]).bool()
    apart = _apart(way, forward, base, inputs, expected, at)
    coarse, fine = (rounding(base, logits, single=single) for single in (False, True))
    right = apart <= coarse
    if right and apart > fine:
        wrong = ({"segments": 0 * inputs["segments"]}, {"position_ids": at.long().cumsum(1) - 1})
        clear = all(_apart(way, forward, base, inputs | one, expected, at) >= _CLEAR * apart for one in wrong)
        right = clear or _heeds(lambda given: way.state(forward, base, given), inputs, *wrong)
    if right:
        return once
    warnings.warn(
        f"{type(base).__name__} gives other log-probabilities where both responses share a row with their prompt, so "
        "each has a row with the prompt of its own, which takes more time", ApartNotice, stacklevel=5,
    )  # fmt: skip
    return way.layout


def _heeds(
    state: Callable[[dict[str, Tensor]], Tensor], inputs: dict[str, Tensor], no_mask: dict[str, Tensor],
    in_row: dict[str, Tensor],
) -> bool:  # fmt: skip
    """Say whether a model heeds mask and positions of a row of two responses, by bits of the second one's state.

    With the mask the first response moves no bit, since it has a weight of exactly 0, and without it some bit; and
    positions along the row move some bit. Kernels that round by what other tokens are, as of a mixture of experts, fail
    here.
    """
    ids, segments = inputs["input_ids"], inputs["segments"]
    other = {"input_ids": ids.masked_scatter(segments == 1, ids[segments == 0])}  # the prompt again, of equal length

    def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
        first, second = (state(inputs | given)[segments == 2] for given in (one, two))
        return first.equal(second)

    return same({}, other) and not same(no_mask, no_mask | other) and not same({}, in_row)


def _apart(
    way: Way, forward: Callable[..., Any], base: Any, inputs: dict[str, Tensor], logps: Tensor, at: Tensor
) -> float:
    """Return how far a way is from these log-probabilities (B, T, V) at most, at the places where ``at`` is true."""
    try:
        by_way = _logp(way.logits(forward, base, inputs, at))
    except Exception as error:  # the way does not exist in this model
        if out_of_memory(error):
            raise
        return math.inf
    logps = logps[at]
    apart = (by_way - logps).abs().max() if by_way.shape == logps.shape else math.inf
    return math.inf if math.isnan(float(apart)) else float(apart)


def _reach(base: Any) -> int | None:
    """Return how many tokens the attention of all layers reaches by the config; None without such a limit."""
    values = [value for name, value in base.config.get_text_config().to_dict().items() if _REACH.fullmatch(name)]
    flat = [one for value in values for one in (value if isinstance(value, list | tuple) else [value])]
    return min((one for one in flat if isinstance(one, int) and one > 0), default=None)


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


def rounding(base: Any, logits: Tensor, *, single: bool = False) -> float:
    """Return how far rounding can move log-softmax between two ways; ``single``: if the model's type were float32.

    A logit is a sum of H products, in float32 at least: √H roundings of about its own size, then one in the model's
    type. Log-softmax doubles that, and rounds once more by its own size, which is about log V for small logits.
    """
    unit = torch.finfo(torch.float32).eps
    coarsest = max(torch.finfo(p.dtype).eps for p in base.parameters() if p.dtype.is_floating_point)
    width = base.get_input_embeddings().weight.shape[-1]
    largest = float(logits[logits.isfinite()].abs().max())
    rounds = (unit if single else coarsest) + width**0.5 * unit
    return _MARGIN * (2 * rounds * largest + unit * math.log(logits.shape[-1]))


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
