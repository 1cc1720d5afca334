"""Policy-gradient losses: the plain surrogate, PPO's clipped one and estimates of KL, per sample and never reduced."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from gradlab.checks import one_of, positive

KLEstimator = Literal["k1", "k2", "k3"]


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


def kl_estimate(logp: Tensor, ref_logp: Tensor, kind: KLEstimator = "k1") -> Tensor:
    """Return an estimate of KL(π‖π_ref) from actions drawn from π.

    With d = log π/π_ref: k1 = d, k2 = d²/2, k3 = e⁻ᵈ − 1 + d.

    logp      log π of the sampled actions, any shape, in nats; the gradient flows through it.
    ref_logp  log π_ref, same shape; detached here.

    Returns one estimate per action, same shape, in nats; k2 and k3 are never negative. On average k1 and k3 are
    KL(π‖π_ref), and k2 is so up to the third order of d. Their gradients are another matter. On average over actions
    drawn from π, ∇k1 is 0, ∇k2 is the gradient of KL(π‖π_ref), and ∇k3 is the gradient of KL(π_ref‖π). ValueError for
    another kind. Source: Schulman 2020 (joschu.net/blog/kl-approx.html); the gradients, Tang & Munos 2025 (arXiv
    2506.09477).
    """
    one_of("kind", kind, get_args(KLEstimator))
    logratio = logp - ref_logp.detach()
    if kind == "k1":
        return logratio
    return logratio.square() / 2 if kind == "k2" else torch.expm1(_capped(-logratio)) + logratio


def _ratio(logp: Tensor, old_logp: Tensor) -> Tensor:
    """Return π/π_old, capped: an overflow makes gradients NaN."""
    return torch.exp(_capped(logp - old_logp.detach()))


def _capped(log: Tensor) -> Tensor:
    """Return logarithms, at most that of the root of the largest number, which is far beyond use."""
    return log.clamp(max=0.5 * math.log(torch.finfo(log.dtype).max))
