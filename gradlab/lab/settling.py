"""Where a training settles: the policy at which the gradient is 0, with pair weights that follow the policy.

A sampler's weights are detached. So this is the point at which the *field* g(θ; s(θ)) vanishes, with s = s(θ): not the
minimum of any loss that has s(θ) in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gradlab.checks import count, of_kind, several
from gradlab.lab.descent import steady
from gradlab.lab.objective import PairObjective, to_columns
from gradlab.lab.samplers import Sampler, pair_weights, sampler_of
from gradlab.lab.world import World, exact_pairs
from gradlab.losses import BatchLoss, DealtLoss, PairLoss

SETTLED = 1e-10  # of the residual
FARTHEST = 300.0  # nats: beyond −log π of this a response drifts away
CORNER = 1e-6  # a policy that leaves less to all but one response drifts into a corner, where gradients vanish
_AIM = 0.1 * SETTLED
_NUDGE = 1e-7  # of a logit, for differences; the field is of order 1, so that they have about 9 right digits
_LONGEST = 1.0, 0.2  # no logit moves farther in one iteration: nats, and of the largest −log π
_PATIENCE = 0.3, 3.0  # by how much the pseudo-time step may shrink and grow
_GROWTH = 1.2  # by how much it grows at least where the residual falls


@dataclass(frozen=True, eq=False)
class SettledPoint:
    """The ends of the search of ``settle``, for R worlds with X prompts.

    logp      (R, X, Y) log π at the end.
    residual  (R, X) the largest residual of a response: the gradient by its logit over the share of pairs that show it.
              Without the division a response that is hardly ever drawn would seem to rest wherever it is.
    settled   (R, X) True where the residual is below 1e-10, no −log π above 300 nats, and no π above 1 − 1e-6.
    """

    logp: Tensor
    residual: Tensor
    settled: Tensor


@steady("cpu")
def settle(
    worlds: Sequence[World], loss: PairLoss, sampler: Sampler | str = "uniform", *, steps: int = 200
) -> SettledPoint:
    """Return the policies at which training on exact soft labels with free logits stands still.

    loss     any loss of single pairs; one of batches, or one that deals numbers among pairs, is not accepted.
    sampler  with full support; its weights are those of the policy that is found.
    steps    of the search, at most.

    Pseudo-transient continuation from the reference (Kelley and Keyes 1998): implicit Euler steps along the gradient's
    flow, each response at a rate of its own, that grow into Newton steps as the residual falls. So it goes where the
    flow leads, and not to the root that is nearest in some other sense. ValueError for a loss or sampler of another
    kind.
    """
    law = sampler_of(sampler)
    of_kind("loss", loss, PairLoss, "a PairLoss such as DPO(beta=1.0)")
    given = several("worlds", worlds, World, "a World, such as gaussian_world(2, 8)")
    if len(sizes := {world.utility.shape for world in given}) > 1:
        raise ValueError(f"worlds must have one size to settle together, got {sorted(sizes)}")
    count("steps", steps, least=1)
    if isinstance(loss, (BatchLoss, DealtLoss)) or not law.full_support:
        raise ValueError(f"settle needs a loss of single pairs and a sampler with full support, got {loss!r} and {law}")
    prompts = [_Prompts.of(world) for world in given]
    every = _Prompts(*(np.concatenate(parts) for parts in zip(*(vars(one).values() for one in prompts), strict=True)))
    logits = torch.from_numpy(every.ref_logp.copy())
    residual = torch.full((len(logits),), torch.inf, dtype=torch.float64)
    pace = torch.ones(len(logits), dtype=torch.float64)
    active, search = torch.arange(len(logits)), _Field(loss, law, every)
    for _ in range(steps + 1):
        force = search(logits[active])
        size = force.abs().amax(-1)
        ratio = torch.where(residual[active].isfinite(), residual[active] / size, 1.0).clamp(*_PATIENCE)
        residual[active] = size
        pace[active] = (pace[active] * torch.where(ratio > 1, ratio.clamp(min=_GROWTH), ratio)).clamp(max=1e12)
        far = torch.log_softmax(logits[active], -1).amin(-1) < -FARTHEST
        left = ~((size < _AIM) | far)
        if not left.any():
            break
        if left.sum() <= 0.7 * len(active):
            force, active = force[left], active[left]
            search = _Field(loss, law, every.at(active.numpy()))
        moved = logits[active] + _step(search, logits[active], force, pace[active])
        sound = moved.isfinite().all(-1)  # what is lost in rounding has drifted away
        logits[active[sound]] = moved[sound]
        if not sound.all():
            residual[active[~sound]], active = torch.inf, active[sound]
            if not len(active):
                break
            search = _Field(loss, law, every.at(active.numpy()))
    logp = torch.log_softmax(logits, -1)
    settled = (residual < SETTLED) & (logp.amin(-1) >= -FARTHEST) & (logp.amax(-1).exp() <= 1 - CORNER)
    shape = len(given), -1
    return SettledPoint(logp.view(*shape, logp.shape[-1]), residual.view(shape), settled.view(shape))


def _step(search: _Field, logits: Tensor, force: Tensor, pace: Tensor) -> Tensor:
    """Return the change of the logits (N, Y) in one implicit step; their sum stays."""
    unit = torch.eye(logits.shape[-1], dtype=torch.float64)
    slope = torch.stack([search(logits + _NUDGE * row) - force for row in unit], -1) / _NUDGE
    change = torch.linalg.solve(unit / pace[:, None, None] - slope, force)
    change = change - change.mean(-1, keepdim=True)
    nats, share = _LONGEST
    longest = (-share * torch.log_softmax(logits, -1).amin(-1, keepdim=True)).clamp(min=nats)
    return change * (longest / change.abs().amax(-1, keepdim=True)).clamp(max=1)


@dataclass(frozen=True, eq=False)
class _Prompts:
    """The prompts of all worlds in one row: weights and comparable pairs (N, Y, Y), all else (N, Y)."""

    ref_logp: np.ndarray
    utility: np.ndarray
    data: np.ndarray
    comparable: np.ndarray
    lengths: np.ndarray

    @classmethod
    def of(cls, world: World) -> _Prompts:
        pairs = exact_pairs(world), world.comparable().astype(float)
        return cls(world.ref_logp, world.utility, *pairs, world.token_counts)

    def at(self, places: np.ndarray) -> _Prompts:
        return _Prompts(*(values[places] for values in vars(self).values()))


class _Field:
    """The descent direction of a prompt's logits, each over the share of pairs that show the response; (N, Y)."""

    def __init__(self, loss: PairLoss, sampler: Sampler, prompts: _Prompts) -> None:
        self.sampler = sampler
        given = [torch.from_numpy(values.copy()) for values in vars(prompts).values()]
        self.ref_logp, self.utility, self.data, self.comparable, _ = given
        rows = prompts.data[None], prompts.ref_logp[None]
        self.objective = PairObjective(loss, *rows, "cpu", torch.float64, lengths=prompts.lengths[None])

    def __call__(self, logits: Tensor) -> Tensor:
        """Return minus the gradient, through the softmax, over the shares."""
        logp = torch.log_softmax(logits, -1)
        pairs = pair_weights(self.sampler, logp, self.ref_logp, self.utility)
        weights = self.sampler.reweighted(self.data, pairs, self.comparable)
        self.objective.reweight(weights[None].numpy())
        slope = self.objective.gradient(to_columns(logp[None], "cpu", torch.float64))[:, : len(logp)].T
        through = slope - logp.exp() * slope.sum(-1, keepdim=True)
        return -through / (weights.sum(-1) + weights.sum(-2))
