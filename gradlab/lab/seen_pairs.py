"""The pairs that each step of a training sees: the data's shares, times a sampler's weights of the current policy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gradlab.lab.objective import to_columns
from gradlab.lab.samplers import NoWeight, pair_weights
from gradlab.lab.training import Training
from gradlab.lab.world import resample
from gradlab.streams import Purpose, stream


class SeenPairs:
    """The pair weights of a block of runs, step by step; no gradient flows through them.

    data, comparable (R, X, Y, Y), ref_logp and utility (R, X, Y); one seed per run, which draws its mini-batches.
    Weights are computed in float64, one column of 32 or more beside the other, so that each has the bits it has alone.
    """

    def __init__(
        self,
        training: Training,
        data: np.ndarray,
        ref_logp: np.ndarray,
        utility: np.ndarray,
        comparable: np.ndarray,
        seeds: Sequence[int],
    ) -> None:
        self.training, self.sampler = training, training.law
        self.shape, device = data.shape, training.device
        self.even = torch.as_tensor(data, device=device)
        self.reference, self.utility = (
            self._rows(to_columns(values, device, torch.float64)) for values in (ref_logp, utility)
        )
        columns, responses = len(self.reference), data.shape[-1]
        self.data, self.comparable = (
            torch.zeros(columns, responses, responses, dtype=torch.float64, device=device) for _ in range(2)
        )
        for padded, values in ((self.data, data), (self.comparable, comparable)):
            padded[: data.shape[0] * data.shape[1]] = torch.as_tensor(values, device=device).flatten(0, 1)
        self.streams = [stream(seed, Purpose.BATCHES) for seed in seeds]
        self.step, self.stale = 0, True
        self.pairs = self.law = self.data

    def next(self, logp: Tensor, moved: bool) -> Tensor | None:
        """Return the weights of the next step, (R, X, Y, Y), from log π (Y, C); None where they are the last step's.

        moved  True if the reference has just become this policy.
        """
        if moved:
            self.reference, self.stale = self._rows(logp), True
        fresh = self.step % self.training.sampler_every == 0 and (self.stale or self.sampler.moves)
        if fresh:
            self._follow(self._rows(logp))
        self.step += 1
        if self.training.batch is not None:
            return self._drawn(self.training.batch)
        return self._live(self.law) if fresh else None

    def _follow(self, logp: Tensor) -> None:
        """Take the sampler's weights of log π (C, Y)."""
        self.stale = False
        if not logp.isfinite().all():  # no pair can be drawn by a policy that broke, which ``descend`` reports
            self.pairs = self.law = torch.full_like(self.data, torch.nan)
            return
        self.pairs = pair_weights(self.sampler, logp, self.reference, self.utility)
        self.law = self.sampler.reweighted(self.data, self.pairs, self.comparable)
        bare = self._live(self.law).sum((-2, -1)) <= 0
        if bare.any():
            prompt = int(bare.nonzero()[0, 1])
            raise NoWeight(
                f"sampler must give weight to some pair of the data in every prompt; "
                f"{self.sampler} gives none in prompt {prompt} at step {self.step}"
            )

    def _drawn(self, size: int) -> Tensor:
        """Return the weights of a mini-batch, (R, X, Y, Y)."""
        law = self._live(self.law) if self.sampler.drawn else self.even
        if not law.isfinite().all():
            return law
        drawn = [resample(own, size, rng) for own, rng in zip(law.cpu().numpy(), self.streams, strict=True)]
        shares = torch.from_numpy(np.stack(drawn)).to(law.device)
        if self.sampler.drawn:
            return shares if self.sampler.normalised else shares * law.sum((-2, -1), keepdim=True)
        padded = torch.zeros_like(self.data)
        padded[: self.shape[0] * self.shape[1]] = shares.flatten(0, 1)
        return self._live(self.sampler.reweighted(padded, self.pairs, self.comparable))

    def _live(self, columns: Tensor) -> Tensor:
        """Turn (C, Y, Y) into (R, X, Y, Y), without the filling."""
        return columns[: self.shape[0] * self.shape[1]].view(self.shape)

    def _rows(self, columns: Tensor) -> Tensor:
        """Turn (Y, C) into (C, Y)."""
        return columns.detach().double().T.contiguous()
