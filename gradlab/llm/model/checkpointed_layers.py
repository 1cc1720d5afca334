"""Layers that keep few activations for the backward pass, and compute the others again there."""

from __future__ import annotations

import math
from typing import Any

from gradlab.llm.model.heads import layers_of, unwrapped
from gradlab.llm.model.loading import has_dropout


def checkpoint_layers(model: Any, share: float, *, first: int = 0) -> None:
    """Let this share of a model's layers keep only their input, and compute the rest again in the backward pass.

    share  0 to 1, rounded up to whole layers, of those from layer ``first`` on; the ones below have no backward pass.

    They are the first layers. The backward pass begins with the last ones, which free what they kept, so that what the
    first ones compute again finds room. ValueError where the model takes only all or none. Source: ours.
    """
    if not share:
        return
    from transformers.modeling_layers import GradientCheckpointingLayer

    lower = layers_of(unwrapped(model))[1][:first] if first else ()
    below = {id(part) for layer in lower for part in layer.modules()}
    parts = [part for part in model.modules() if isinstance(part, GradientCheckpointingLayer)]
    layers = [part for part in parts if id(part) not in below]
    if share < 1 and not layers:
        name = type(unwrapped(model)).__name__
        raise ValueError(f"gradient_checkpointing must be 0 or 1 for {name}, got {share:g}")
    # The later name came with transformers 5.24 or so, and the earlier one warns since.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False, "preserve_rng_state": has_dropout(model)})
    for layer in layers[math.ceil(share * len(layers)) :]:
        layer.gradient_checkpointing = False
    if hasattr(model, "peft_config"):  # the base's embedding is not trained, and a layer needs an input with a graph
        model.enable_input_require_grads()
