"""Log-probabilities of single tokens from hidden states or logits, with gradients of their own that need few copies.

Of a token y with logits z, log π = z_y − log Σ exp z, and its gradient is 1[y] − softmax z. PyTorch's operations make
four tensors as large as the logits on the way; these make two, or as few rows of them as are wanted.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint


def from_logits(logits: Tensor, target: Tensor) -> Tensor:
    """Return log π (N,) of each target (N,), float32 at least, from logits (N, V).

    The backward pass writes the gradient over what the forward pass kept, so another one through the same graph is an
    error.
    """
    return _FromLogits.apply(logits, target)  # type: ignore[return-value]


def from_hidden(head: nn.Module, hidden: Tensor, target: Tensor, chunk: int) -> Tensor:
    """Return log π (N,) of each target (N,) from hidden states (N, H), with the logits of ``chunk`` tokens at a time.

    head  the model's output layer.

    Where the layer is linear and not trained, the forward pass finds the gradient too, but for a factor per token, and
    keeps only that: (N, H). Else the backward pass computes the logits again, except the last chunk's: it begins with
    them, so nothing would be saved.
    """
    if _is_still(head) and torch.is_grad_enabled() and hidden.requires_grad:
        return _FromHidden.apply(hidden, head.weight, target, chunk)  # type: ignore[return-value]

    def part(hidden: Tensor, target: Tensor) -> Tensor:
        return from_logits(head(hidden), target)

    *early, last = zip(hidden.split(chunk), target.split(chunk), strict=True)
    recomputed = functools.partial(checkpoint, part, use_reentrant=False, preserve_rng_state=False)
    early_part = recomputed if torch.is_grad_enabled() else part
    return torch.cat([*(early_part(*pair) for pair in early), part(*last)])


class _FromLogits(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:
        logps = logits.log_softmax(-1, torch.promote_types(logits.dtype, torch.float32))
        ctx.save_for_backward(logps, target)
        ctx.kind = logits.dtype
        return logps.gather(-1, target[:, None])[:, 0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        logps, target = ctx.saved_tensors
        slope = logps.exp_().mul_(-factor[:, None]).scatter_add_(-1, target[:, None], factor[:, None])
        return slope.to(ctx.kind), None


class _FromHidden(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, target: Tensor, chunk: int) -> Tensor:
        found, slopes = [], torch.empty_like(hidden)
        for states, ids, slope in zip(hidden.split(chunk), target.split(chunk), slopes.split(chunk), strict=True):
            logits = nn.functional.linear(states, weight)
            logps = logits.log_softmax(-1, torch.promote_types(logits.dtype, torch.float32))
            found.append(logps.gather(-1, ids[:, None])[:, 0])
            mean = logps.exp_().to(logits.dtype) @ weight.to(logits.dtype)
            slope.copy_(weight.index_select(0, ids) - mean)
        ctx.save_for_backward(slopes)
        return torch.cat(found)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (slopes,) = ctx.saved_tensors
        return (slopes * factor[:, None]).to(slopes.dtype), None, None, None


def _is_still(head: nn.Module) -> bool:
    """Say whether an output layer is one matrix that is not trained, and nothing else happens when it is called."""
    plain = type(head) is nn.Linear and head.bias is None and not head.weight.requires_grad
    return plain and not (head._forward_hooks or head._forward_pre_hooks)
