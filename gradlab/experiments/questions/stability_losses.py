"""The held-out loss at each of many steps: how far it has risen at the end, and its largest sudden rise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gradlab.lab.descent import steady
from gradlab.lab.objective import Deal, PairObjective, from_columns, to_columns
from gradlab.lab.world import World, draw_pairs, exact_pairs
from gradlab.losses import DealtLoss, PairLogps, PairLoss

_STEPS = 64  # that are computed at a time: the pairs of one run at so many steps stay in the cache


@steady("cpu")
def held_out_losses(
    loss: PairLoss, policies: Tensor, worlds: Sequence[World], seeds: Sequence[int], pairs: int | None
) -> np.ndarray:
    """Return the mean held-out loss of each run at each step, (S, R): what ``Fit.history`` has, up to rounding.

    policies  (S, R, X, Y) log π, one run per world and seed.
    pairs     held-out pairs per prompt; None: the exact pairs.

    Only pairs that were drawn are computed, so this is many times as fast; but not of a ``DealtLoss``, whose pairs take
    numbers of all pairs.
    """
    data = [
        exact_pairs(world) if pairs is None else draw_pairs(world, pairs, seed=seed, split=1)
        for world, seed in zip(worlds, seeds, strict=True)
    ]
    if isinstance(loss, DealtLoss):
        return _dealt(loss, policies, np.stack(data), worlds, seeds)
    runs = [_of_run(loss, policies[:, run], weights, worlds[run]) for run, weights in enumerate(data)]
    return torch.stack(runs, 1).numpy()


def rise_at_the_end(losses: np.ndarray) -> np.ndarray:
    """Return how far the loss lies above its minimum at the last step, (R,) ≥ 0; losses (S, R)."""
    return losses[-1] - losses.min(0)


def largest_rise(losses: np.ndarray) -> np.ndarray:
    """Return the largest rise from one step to the next, (R,) ≥ 0; losses (S, R)."""
    return np.maximum(np.diff(losses, axis=0).max(0), 0.0)


def _of_run(loss: PairLoss, policies: Tensor, weights: np.ndarray, world: World) -> Tensor:
    """Return the loss of one run at each step, (S,); policies (S, X, Y), weights (X, Y, Y)."""
    prompt, win, lose = np.nonzero(weights)
    share = torch.as_tensor(weights[prompt, win, lose] / world.prompts)
    win, lose = (torch.as_tensor(prompt * world.responses + side) for side in (win, lose))
    fixed = [torch.as_tensor(table.ravel().copy()) for table in (world.ref_logp, world.token_counts)]
    given = [table[side, None] for table in fixed for side in (win, lose)]
    values = []
    for part in policies.flatten(1).T.contiguous().split(_STEPS, 1):
        columns = part.contiguous()
        values.append(share @ loss(PairLogps(columns[win], columns[lose], *given)))
    return torch.cat(values)


def _dealt(
    loss: PairLoss, policies: Tensor, data: np.ndarray, worlds: Sequence[World], seeds: Sequence[int]
) -> np.ndarray:
    """Return the losses (S, R) of a loss whose pairs take numbers of other pairs of their run."""
    ref_logp = np.stack([world.ref_logp for world in worlds])
    lengths = np.stack([world.token_counts for world in worlds])
    objective = PairObjective(loss, data, ref_logp, "cpu", torch.float64, Deal.of(loss, seeds), lengths)
    columns = torch.stack([objective.value(to_columns(logp, "cpu", torch.float64)) for logp in policies])
    return from_columns(columns[:, None], len(worlds), worlds[0].prompts)[..., 0].mean(-1).numpy()
