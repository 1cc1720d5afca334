"""Policy-gradient losses: the plain surrogate and PPO's clipped one, per sample and never reduced."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gradlab.checks import positive


def policy_gradient(logp: Tensor, old_logp: Tensor, advantage: Tensor) -> Tensor:
    """Return −(π/π_old) A, whose gradient at π = π_old is the policy gradient −A ∇log π.

    logp       log π of the sampled actions, any shape; the gradient flows through it.
    old_logp   log π_old of the policy that drew the samples, same shape.
    advantage  A, same shape, in units of reward; detached here.

    Returns the loss of each sample, same shape. Source: Williams 1992, with importance weights (Schulman et al. 2017,
    arXiv 1707.06347, eq. 6).
    """
    return -_ratio(logp, old_logp) * advantage.detach()


def ppo_clip(logp: Tensor, old_logp: Tensor, advantage: Tensor, clip: float = 0.2) -> Tensor:
    """Return −min(ρA, clip(ρ, 1 − ε, 1 + ε)A) with ρ = π/π_old.

    logp, old_logp, advantage as in ``policy_gradient``; clip is ε > 0. Returns the loss of each sample, same shape.
    Source: Schulman et al. 2017 (arXiv 1707.06347), eq. 7.
    """
    positive("clip", clip)
    advantage = advantage.detach()
    ratio = _ratio(logp, old_logp)
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)


def _ratio(logp: Tensor, old_logp: Tensor) -> Tensor:
    """Return π/π_old, capped at the root of the largest number, far beyond use: an overflow makes gradients NaN."""
    return torch.exp((logp - old_logp.detach()).clamp(max=0.5 * math.log(torch.finfo(logp.dtype).max)))
