"""Where trainings in the lab end: reward, distance, unobserved mass, and how far winners and losers have moved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gradlab.lab import metrics
from gradlab.lab.fit import Fit, fit
from gradlab.lab.runs import Runs
from gradlab.lab.training import Training
from gradlab.lab.world import World

SETTLED = 0.01  # in total variation
NUMBERS = (
    "expected_utility", "kl_to_reference", "utility_share", "unobserved_mass", "win_logp_change", "lose_logp_change",
    "rest_logp_change",
)  # fmt: skip
"""Columns of ``endpoints``, NaN for a run that failed."""


def trained_paths(loss: Any, worlds: Sequence[World], training: Training, seeds: Sequence[int]) -> pd.DataFrame:
    """Train a loss, one run per world and seed, and return the endpoints along the trainings, see ``endpoints``.

    A run whose policy stops being finite has one row, of the last step, in which all ``NUMBERS`` are NaN. Where a
    training breaks off, its halves are trained until that run is known: the others keep their bits.
    """
    try:
        return endpoints(fit(worlds, loss, training, seed=seeds), worlds, training, seeds)
    except FloatingPointError:
        half = len(worlds) // 2
        if half:
            parts = [
                trained_paths(loss, worlds[part], training, seeds[part]) for part in (slice(half), slice(half, None))
            ]
            return pd.concat(parts, ignore_index=True)
        failed = {"seed": seeds[0], "step": training.steps, **dict.fromkeys(NUMBERS, np.nan), "settled": False}
        return pd.DataFrame([failed])


def ended(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the ends of training, without the step."""
    return rows[rows["step"] == rows["step"].max()].drop(columns="step")


def endpoints(fitted: Fit, worlds: Sequence[World], training: Training, seeds: Sequence[int]) -> pd.DataFrame:
    """Return the endpoints of every recorded step and run of a training, one row each.

    worlds, seeds  as they were given to ``fit``: one per run.

    Columns: ``seed``, ``step``, ``NUMBERS``, which are those of ``metrics`` and the changes of ``sides``, and
    ``settled``, one answer per run: whether the policy at the end is nearer than 0.01 in total variation, on average
    over prompts, to the one recorded nearest to half of the steps. Records are spaced logarithmically, so this may be
    far from half: of 15 records in 500 steps it is step 206, of 3 in 300 step 17.

    Winners and losers are those of the data of each seed, with the training's labels, also where a sampler draws.
    """
    policies = fitted.policies.double()
    utility, observed, reference = (
        torch.as_tensor(np.stack([getattr(world, name) for world in worlds]))
        for name in ("utility", "observed", "ref_logp")
    )
    pairs = torch.as_tensor(Runs.of(worlds, training.pairs, training.labels, seeds).data())
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
