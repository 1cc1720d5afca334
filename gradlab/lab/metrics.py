"""The metrics of a policy: each function takes log π of shape (..., X, Y) and returns one number per run, (...)."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

Metric = Callable[..., Tensor]


def _checked(metric: Metric) -> Metric:
    """Return the metric with checks: TypeError and ValueError, in one line, for tensors that it cannot take."""
    signature = inspect.signature(metric)

    @functools.wraps(metric)
    def checked(*given: Tensor, **named: Tensor) -> Tensor:
        bound = signature.bind(*given, **named).arguments
        for name, value in bound.items():
            _check_tensor(name, value, bool if name == "observed" else float)
        shapes = {name: tuple(value.shape) for name, value in bound.items()}
        try:
            torch.broadcast_shapes(*shapes.values())
        except RuntimeError:
            words = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            raise ValueError(f"shapes must broadcast, got {words}") from None
        return metric(**bound)

    return checked


def _check_tensor(name: str, value: Tensor, kind: type) -> None:
    fits = isinstance(value, Tensor) and (value.dtype == torch.bool if kind is bool else value.is_floating_point())
    if not fits or value.layout is not torch.strided or value.is_meta:
        got = f"a tensor of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{name} must be a {'boolean' if kind is bool else 'floating-point'} tensor, got {got}")
    if value.ndim < 2 or 0 in value.shape[-2:]:
        raise ValueError(f"{name} must have shape (..., prompts, responses), got {tuple(value.shape)}")


@_checked
def expected_utility(logp: Tensor, utility: Tensor) -> Tensor:
    """Return E_π[u], in nats of preference, a mean over prompts."""
    return (logp.exp() * utility).sum(-1).mean(-1)


@_checked
def utility_share(logp: Tensor, utility: Tensor, ref_logp: Tensor) -> Tensor:
    """Return (E_π[u] − E_ref[u]) / (max u − E_ref[u]), a mean over the prompts in which anything can be gained.

    0: as good as the reference. 1: always the best response. Negative: worse than the reference. NaN where all
    responses of all prompts are equally good.
    """
    # As regrets, max u − E[u]: a flat prompt's is 0 exactly, whereas max u − E_ref[u] is rounding noise of any sign.
    regret = utility.amax(-1, keepdim=True) - utility
    reachable = (ref_logp.exp() * regret).sum(-1)
    gained = reachable - (logp.exp() * regret).sum(-1)
    share = torch.where(reachable > 0, gained / reachable, torch.nan)
    return share.nanmean(-1)


@_checked
def kl_to_reference(logp: Tensor, ref_logp: Tensor) -> Tensor:
    """Return KL(π‖π_ref), in nats, a mean over prompts."""
    return (logp.exp() * (logp - ref_logp)).sum(-1).mean(-1)


@_checked
def entropy(logp: Tensor) -> Tensor:
    """Return the entropy −E_π[log π], in nats, a mean over prompts."""
    return -(logp.exp() * logp).sum(-1).mean(-1)


@_checked
def unobserved_mass(logp: Tensor, observed: Tensor) -> Tensor:
    """Return the probability on responses that appear in no pair, a mean over prompts; 0 where all are observed."""
    return (logp.exp() * ~observed).sum(-1).mean(-1)


@_checked
def top1_accuracy(logp: Tensor, utility: Tensor) -> Tensor:
    """Return the share of prompts whose most probable response is a best one; where several tie, their mean counts."""
    top = logp == logp.amax(-1, keepdim=True)
    best = utility == utility.amax(-1, keepdim=True)
    return ((top & best).sum(-1) / top.sum(-1)).to(logp.dtype).mean(-1)


@_checked
def win_rate(logp: Tensor, opponent_logp: Tensor, utility: Tensor) -> Tensor:
    """Return P(y ≻ y') for y ~ π, y' ~ opponent, by Bradley–Terry, a mean over prompts; equal utilities count ½."""
    preference = torch.sigmoid(utility[..., :, None] - utility[..., None, :])
    # Sums, not matrix products: a product's rounding would depend on what else is in the batch.
    beats_opponent = (preference * opponent_logp.exp()[..., None, :]).sum(-1)
    return (logp.exp() * beats_opponent).sum(-1).mean(-1)


def summary(logp: Tensor, utility: Tensor, observed: Tensor, ref_logp: Tensor, beta: float) -> dict[str, np.ndarray]:
    """Return all of the metrics above for log π (..., X, Y), as arrays of shape (...).

    utility, observed and ref_logp broadcast against logp. The policy's unobserved mass is compared with that of the
    ideal policy π_ref exp(u/β), which is the best trade of utility against β times KL.
    """
    ideal = torch.log_softmax(ref_logp + utility / beta, -1)
    shape = logp.shape[:-2]
    numbers = {
        "utility": expected_utility(logp, utility),
        "utility_share": utility_share(logp, utility, ref_logp),
        "kl": kl_to_reference(logp, ref_logp),
        "entropy": entropy(logp),
        "unobserved_mass": unobserved_mass(logp, observed),
        "unobserved_mass_reference": unobserved_mass(ref_logp, observed),
        "unobserved_mass_ideal": unobserved_mass(ideal, observed),
        "top1_accuracy": top1_accuracy(logp, utility),
        "win_rate": win_rate(logp, ref_logp, utility),
    }
    return {name: value.expand(shape).cpu().numpy() for name, value in numbers.items()}
