"""Log-probabilities of whole responses, in as little memory as they need, from the model's forward."""

from __future__ import annotations

import functools
import re
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gradlab.llm.model.group import Group
from gradlab.llm.model.heads import Way, unwrapped, way_of

CHUNK = 1024  # tokens whose logits exist at one time; on a GPU fewer take longer, see figures/benchmarks/cuda
# Names in a config whose value, unless 1 or None, says that logits are more than lm_head's output: a cap may not show
# on the small logits of a model that starts from random weights.
_SCALED = re.compile(r"(?!attn|attention|router).*logits?_\w*(scal|cap)\w*|(lm_head|output)_multiplier\w*")


def with_logps(model: Any, *, chunk: int = CHUNK, group: Group | None = None) -> Any:
    """Make a causal language model give log-probabilities of responses; return the same model.

    Afterwards ``model(**collate(rows, pad, layout=model.layout))`` is Σ_t log π(y_t|x, y_<t) of each response, (R,) in
    nats. With ``mean=True`` it is the mean over the response's tokens. All other calls work as before, so that saving,
    generating, checkpointing, LoRA, DDP and FSDP2 keep working.

    Log-sum-exp is in float32 at least, whatever the model's type. Only responses' tokens get logits, ``chunk`` of them
    at a time, which are computed again for the gradient, except the last. Source: ours.

    The model is tried once, on nine tokens: where its decoder and its output embedding do not give its own logits, its
    whole forward does, and where responses to one prompt cannot share a row, ``model.layout`` sets them apart, each
    with a notice (``way_of``). ValueError where log π cannot be right.

    group  the processes that hold the model, which all make the same call before the model is spread: the main process
           tries it, and the others may hold it on the meta device. Left out: this process alone.
    """
    plain_forward = model.forward
    base = unwrapped(model)
    config = base.config.get_text_config().to_dict()
    scaled = any(value not in (None, 1) for name, value in config.items() if _SCALED.fullmatch(name))
    way = (group or Group()).on_main(lambda: way_of(plain_forward, base, linear=not scaled))

    @functools.wraps(plain_forward)  # generate() looks at the signature
    def forward(*args: Any, targets: Tensor | None = None, **inputs: Any) -> Any:
        if targets is None:
            return plain_forward(*args, **inputs)
        return _sequence_logps(way, plain_forward, base, chunk, targets=targets, **inputs)

    model.forward, model.layout = forward, way.layout
    return model


def _sequence_logps(
    way: Way, whole: Any, base: Any, chunk: int, *, places: Tensor, targets: Tensor, responses: Tensor,
    lengths: Tensor, mean: bool = False, **inputs: Tensor,
) -> Tensor:  # fmt: skip
    state = way.state(whole, base, inputs).flatten(0, 1).index_select(0, places)
    by_token = _gathered(state, targets) if way.whole else _chunked(base.get_output_embeddings(), state, targets, chunk)
    sums = by_token.new_zeros(len(lengths)).index_add(0, responses, by_token)
    return sums / lengths.clamp(min=1) if mean else sums


def _chunked(head: nn.Module, hidden: Tensor, target: Tensor, chunk: int) -> Tensor:
    """Return log π of each target (N,) from hidden states (N, H), with the logits of ``chunk`` tokens at a time.

    The last chunk's logits stay: the backward pass begins with them, so nothing is saved by computing them again.
    """

    def part(hidden: Tensor, target: Tensor) -> Tensor:
        return _gathered(head(hidden), target)

    *early, last = zip(hidden.split(chunk), target.split(chunk), strict=True)
    again = functools.partial(checkpoint, part, use_reentrant=False) if torch.is_grad_enabled() else part
    return torch.cat([*(again(*pair) for pair in early), part(*last)])


def _gathered(logits: Tensor, target: Tensor) -> Tensor:
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits.gather(-1, target[:, None])[:, 0] - logits.logsumexp(-1)
