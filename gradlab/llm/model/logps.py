"""Log-probabilities of whole responses, in as little memory as they need, from the model's forward."""

from __future__ import annotations

import functools
import re
from typing import Any

from torch import Tensor

from gradlab.llm.model.group import Group
from gradlab.llm.model.heads import Way, unwrapped, way_of
from gradlab.llm.model.token_logps import from_hidden, from_logits

CHUNK = 2048  # tokens whose logits exist at one time; on a GPU fewer take longer, see figures/benchmarks/cuda
# Names in a config whose value, unless 1 or None, says that logits are more than lm_head's output: a cap may not show
# on the small logits of a model that starts from random weights.
_SCALED = re.compile(r"(?!attn|attention|router).*logits?_\w*(scal|cap)\w*|(lm_head|output)_multiplier\w*")


def with_logps(model: Any, *, chunk: int = CHUNK, group: Group | None = None) -> Any:
    """Make a causal language model give log-probabilities of responses; return the same model.

    Afterwards ``model(**collate(rows, pad, layout=model.layout))`` is Σ_t log π(y_t|x, y_<t) of each response, (R,) in
    nats. With ``mean=True`` it is the mean over the response's tokens. All other calls work as before, so that saving,
    generating, checkpointing, LoRA, DDP and FSDP2 keep working.

    Log-sum-exp is in float32 at least, whatever the model's type. Only responses' tokens get logits, ``chunk`` of them
    at a time (``from_hidden``). A graph serves one backward pass. Source: ours.

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
    if way.whole:
        by_token = from_logits(state, targets)
    else:
        by_token = from_hidden(base.get_output_embeddings(), state, targets, chunk)
    sums = by_token.new_zeros(len(lengths)).index_add(0, responses, by_token)
    return sums / lengths.clamp(min=1) if mean else sums
