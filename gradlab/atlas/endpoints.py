"""Where trainings in the lab end: reward, distance, unobserved mass, and how far winners and losers have moved."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gradlab.lab import metrics
from gradlab.lab.fit import Fit
from gradlab.lab.training import Training
from gradlab.lab.world import World, draw_pairs, exact_pairs

SETTLED = 0.01  # in total variation


def endpoints(fitted: Fit, worlds: Sequence[World], training: Training, seeds: Sequence[int]) -> pd.DataFrame:
    """Return the endpoints of every recorded step and run of a training, one row each.

    worlds, seeds  as they were given to ``fit``: one per run.

    Columns: ``seed``, ``step``, those of ``metrics`` with their names, the changes of ``sides``, and ``settled``, one
    answer per run: whether the policy moved by less than 0.01 in total variation in the last half of the training.
    """
    policies = fitted.policies.double()
    utility, observed, reference = (
        torch.as_tensor(np.stack([getattr(world, name) for world in worlds]))
        for name in ("utility", "observed", "ref_logp")
    )
    pairs = torch.as_tensor(np.stack([_data(*given, training) for given in zip(worlds, seeds, strict=True)]))
    numbers = {
        "expected_utility": metrics.expected_utility(policies, utility),
        "kl_to_reference": metrics.kl_to_reference(policies, reference),
        "utility_share": metrics.utility_share(policies, utility, reference),
        "unobserved_mass": metrics.unobserved_mass(policies, observed),
        **sides(policies, pairs),
    }
    half = int(np.abs(fitted.steps - training.steps / 2).argmin())
    moved = (policies[-1].exp() - policies[half].exp()).abs().sum(-1).mean(-1) / 2
    steps = len(fitted.steps)
    return pd.DataFrame({
        "seed": np.tile(seeds, steps), "step": np.repeat(fitted.steps, len(seeds)),
        **{name: value.expand(steps, -1).flatten().numpy() for name, value in numbers.items()},
        "settled": np.tile((moved < SETTLED).numpy(), steps),
    })  # fmt: skip


def _data(world: World, seed: int, training: Training) -> np.ndarray:
    return exact_pairs(world) if training.pairs is None else draw_pairs(world, training.pairs, seed=seed)


def sides(policies: Tensor, pairs: Tensor) -> dict[str, Tensor]:
    """Return how log π of winners, of losers and of all else has changed since the start, in nats.

    policies  (S, R, X, Y) log π; the first is the start.
    pairs     (R, X, Y, Y) the shares of the ordered pairs, 1 in sum in each prompt.

    Each is a mean over pairs and prompts, (S, R). All else of a pair is the mass outside of its two responses.
    """
    win, lose = pairs.sum(-1), pairs.sum(-2)
    mean = 1 / policies.shape[-2]  # over prompts
    values = {
        "win_logp_change": torch.einsum("srxy,rxy->sr", policies, win) * mean,
        "lose_logp_change": torch.einsum("srxy,rxy->sr", policies, lose) * mean,
        "rest_logp_change": _rest(policies, pairs) * mean,
    }
    return {name: value - value[0] for name, value in values.items()}


def _rest(logp: Tensor, pairs: Tensor) -> Tensor:
    """Return the sum over prompts of the pairs' mean log(1 − π_i − π_j), (S, R).

    1 − π_i − π_j is summed over the others: the difference would lose all digits where π_i + π_j is near 1.
    """
    size = logp.shape[-1]
    first, second = torch.triu_indices(size, size, 1)
    others = torch.ones(size, len(first), dtype=logp.dtype)
    for side in (first, second):
        others[side, torch.arange(len(side))] = 0.0
    total = (logp.exp() @ others).clamp_min_(torch.finfo(logp.dtype).tiny).log_()
    either = pairs[..., first, second] + pairs[..., second, first]
    return torch.einsum("srxp,rxp->sr", total, either)
