"""A training problem: the runs, what they minimise, and where they start. ``Training`` says how to train on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from gradlab.lab.objective import Deal, PairObjective, pair_slots
from gradlab.lab.runs import Runs
from gradlab.lab.seen_pairs import SeenPairs
from gradlab.lab.training import Training
from gradlab.lab.world import resample
from gradlab.losses import PairLoss
from gradlab.streams import Purpose, stream

Gradient = Callable[[Tensor], Tensor]
"""A function from log π (Y, C) to ∂L/∂log π (Y, C), responses first: columns are (run, prompt)."""


class Problem(Protocol):
    """The members that ``descend`` needs of a problem; pairs, reward models and PPO each have a class."""

    @property
    def runs(self) -> Runs:
        """The worlds, as one batch."""
        ...

    @property
    def start(self) -> Tensor:
        """The log π at step 0, or the scores; (R, X, Y)."""
        ...

    @property
    def label(self) -> str:
        """The name that a progress bar shows."""
        ...

    @property
    def slots(self) -> int:
        """The number of rows of a gradient's tensors, which decides the size of a block."""
        ...

    @property
    def normalised(self) -> bool:
        """True if the logits are log-probabilities; False if they are free scores, as in a reward model."""
        ...

    def stochastic(self, training: Training) -> bool:
        """Return whether steps draw random numbers."""
        ...

    def gradient(self, block: slice, training: Training) -> Gradient:
        """Return the gradient of a block of runs."""
        ...


@dataclass(frozen=True, eq=False)
class PairProblem:
    """The mean pair loss of each prompt: runs, loss, data (R, X, Y, Y) of pair weights, and log π at step 0.

    A reward model has scores r in place of log π, not ``normalised``, and a reference of zeros.

    reference  log π_ref, (R, X, Y); None: that of the runs.
    ridge      ≥ 0: adds ½ · ridge · Σ_y r(x, y)² to each prompt's mean; of scores alone.
    """

    runs: Runs
    loss: PairLoss
    data: np.ndarray
    start: Tensor
    reference: np.ndarray | None = None
    normalised: bool = True
    ridge: float = 0.0

    @property
    def label(self) -> str:
        """The loss's name, or the reward model's."""
        return self.loss.name if self.normalised else "reward model"

    @property
    def ref_logp(self) -> np.ndarray:
        """The reference, (R, X, Y)."""
        return self.runs.ref_logp if self.reference is None else self.reference

    def stochastic(self, training: Training) -> bool:
        """Return whether each step has a mini-batch."""
        return training.batch is not None

    @property
    def slots(self) -> int:
        """The number of rows of a gradient's tensors: one per pair."""
        return pair_slots(self.loss, self.data)

    def objective(self, block: slice, training: Training) -> PairObjective:
        """Return the mean pair loss of a block of runs."""
        ref_logp = self.ref_logp[block]
        deal = Deal.of(self.loss, self.runs.seeds[block])
        how = training.device, training.precision
        return PairObjective(self.loss, self.data[block], ref_logp, *how, deal, self.runs.lengths[block])

    def gradient(self, block: slice, training: Training) -> Gradient:
        """Return the objective's gradient; with a mini-batch or a sampler, on what that call's step sees."""
        objective = self.objective(block, training)
        if self.ridge:
            return lambda scores: objective.gradient(scores) + self.ridge * scores
        if not training.plain:
            return self._sampled(objective, block, training)
        if training.batch is None:
            return objective.gradient
        size, data = training.batch, self.data[block]
        streams = [stream(seed, Purpose.BATCHES) for seed in self.runs.seeds[block]]  # one per run

        def gradient(logp: Tensor) -> Tensor:
            drawn = [resample(weights, size, rng) for weights, rng in zip(data, streams, strict=True)]
            objective.reweight(np.stack(drawn))
            return objective.gradient(logp)

        return gradient

    def _sampled(self, objective: PairObjective, block: slice, training: Training) -> Gradient:
        """Return the gradient on the pairs that a sampler shows, and against a reference that may move."""
        seen, every = self.seen(block, training), training.reference_every

        def gradient(logp: Tensor) -> Tensor:
            moved = every is not None and seen.step > 0 and seen.step % every == 0
            if moved:
                objective.rereference(logp)
            weights = seen.next(logp, moved)
            if weights is not None:
                objective.reweight(weights)
            return objective.gradient(logp)

        return gradient

    def seen(self, block: slice, training: Training) -> SeenPairs:
        """Return the pair weights of a block of runs, step by step."""
        runs = self.runs
        given = self.data[block], self.ref_logp[block], runs.utility[block], runs.comparable[block]
        return SeenPairs(training, *given, runs.seeds[block])
