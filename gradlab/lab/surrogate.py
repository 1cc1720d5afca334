"""PPO as a problem to descend: its settings, the surrogate that it minimises, and the batches of that, step by step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gradlab.checks import count, keep_plain, positive
from gradlab.lab.objective import from_columns, to_columns
from gradlab.lab.problem import Gradient
from gradlab.lab.runs import Runs
from gradlab.lab.training import Training
from gradlab.lab.world import resample
from gradlab.losses import policy_gradient, ppo_clip
from gradlab.streams import Purpose, stream


@dataclass(frozen=True)
class PPO:
    """The settings of PPO's update: KL penalty β > 0, clip ε > 0 (None: unclipped), steps per batch, batch size.

    Source: Schulman et al. 2017 (arXiv 1707.06347); the KL penalty inside the reward as in Ziegler et al. 2019
    (arXiv 1909.08593), eq. 2. Raises ValueError, in one line, for a number out of range.
    """

    beta: float = 1.0
    clip: float | None = 0.2
    epochs: int = 4
    samples: int | None = None

    def __post_init__(self) -> None:
        clip = None if self.clip is None else positive("clip", self.clip)
        # The mean of one sample is the sample: its advantage would always be 0.
        samples = None if self.samples is None else count("samples", self.samples, least=2)
        epochs = count("epochs", self.epochs, least=1)
        keep_plain(self, beta=positive("beta", self.beta), clip=clip, epochs=epochs, samples=samples)

    def loss(self, logp: Tensor, old_logp: Tensor, advantage: Tensor) -> Tensor:
        """Return the surrogate of each response, clipped or not, in the advantage's units; all have one shape."""
        if self.clip is None:
            return policy_gradient(logp, old_logp, advantage)
        return ppo_clip(logp, old_logp, advantage, self.clip)


@dataclass(frozen=True, eq=False)
class PPOProblem:
    """PPO's surrogate: runs, the update, rewards in nats of preference and log π at step 0, (R, X, Y) each."""

    runs: Runs
    update: PPO
    reward: Tensor
    start: Tensor
    label = "ppo"
    normalised = True

    @property
    def slots(self) -> int:
        """The number of rows of a gradient's tensors: one per response."""
        return self.runs.responses

    def stochastic(self, training: Training) -> bool:
        """Return whether responses are sampled."""
        return self.update.samples is not None

    def gradient(self, block: slice, training: Training) -> Gradient:
        """Return the surrogate's gradient, which takes a new batch every ``epochs`` calls."""
        device, dtype, runs = training.device, training.precision, self.runs
        reward, ref_logp = (to_columns(values[block], device, dtype) for values in (self.reward, runs.ref_logp))
        return _Surrogate(self.update, reward, ref_logp, runs.seeds[block], runs.prompts).gradient


class _Surrogate:
    """PPO's gradient for a block of runs, item first; it takes a new batch every ``epochs`` calls."""

    def __init__(self, update: PPO, reward: Tensor, ref_logp: Tensor, seeds: list[int], prompts: int) -> None:
        self.update, self.reward, self.ref_logp = update, reward, ref_logp
        self.prompts = prompts
        self.streams = [stream(seed, Purpose.RESPONSES) for seed in seeds]
        self.calls = 0

    @torch.enable_grad()
    def gradient(self, logp: Tensor) -> Tensor:
        """Return ∂/∂log π of the surrogate's mean over the batch, shape (Y, C)."""
        if self.calls % self.update.epochs == 0:
            self._collect(logp)
        self.calls += 1
        leaf = logp.detach().requires_grad_()
        surrogate = self.update.loss(leaf, self.old_logp, self.advantage)
        return torch.autograd.grad(surrogate, leaf, self.weight)[0]

    def _collect(self, logp: Tensor) -> None:
        """Take a batch from π_old = π: the weight of each response in it, and its advantage."""
        self.old_logp = logp
        self.weight = logp.exp() if self.update.samples is None else self._shares(logp)
        penalised = self.reward - self.update.beta * (logp - self.ref_logp)
        self.advantage = penalised - (self.weight * penalised).sum(0)

    def _shares(self, logp: Tensor) -> Tensor:
        """Return the shares of the drawn responses (Y, C): equal draws have equal losses, so counts are enough."""
        if not logp.isfinite().all():  # nothing can be drawn from a policy that broke, which ``descend`` reports
            return torch.full_like(logp, torch.nan)
        prob = from_columns(logp, len(self.streams), self.prompts).double().exp().cpu().numpy()
        # For ``resample``, a response is a pair with one possible partner.
        drawn = [
            resample(policy[..., None], self.update.samples or 0, rng)[..., 0]
            for policy, rng in zip(prob, self.streams, strict=True)
        ]
        return to_columns(np.stack(drawn), str(logp.device), logp.dtype)
