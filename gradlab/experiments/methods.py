"""The methods that the grid experiments compare, and how each is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gradlab.checks import keep_plain, one_of, positive
from gradlab.lab.fit import Fit, fit
from gradlab.lab.policy import Policy
from gradlab.lab.ppo import PPO, fill_unobserved, fit_ppo, fit_reward
from gradlab.lab.training import Training
from gradlab.lab.world import World
from gradlab.losses import (
    PAIR_LOSSES,
    BalancedDPO,
    DealtLoss,
    FixedWeightDPO,
    KnownLoss,
    PairLogps,
    PairLoss,
    balanced_weights,
    pair_loss,
)
from gradlab.plotting import add_looks, look_of
from gradlab.streams import Purpose, stream

_TIE = 1e-9  # of two log-probabilities, in nats: far above rounding


@dataclass(frozen=True)
class PermutedBalancedDPO(DealtLoss):
    """Balanced-DPO with its weights λ dealt out at random among the pairs of a run: a control (ours).

    It keeps the sizes |λ − ½| of a run and λ_ji = 1 − λ_ij, but breaks the tie between a pair's λ and the pair's
    probabilities. Where it does as well as Balanced-DPO, the balancing of single pairs is not what helps.

    beta      β > 0.
    oriented  False: the favoured side is drawn, so that a winner's λ is ½ on average. True: the favoured side is that
              of Balanced-DPO, the more probable response, and only the size is another pair's. In a tie, λ' is ½.

    A run's seed draws its permutation, and which side of each pair is favoured; both stay fixed. The pairs of all
    prompts of a run are shuffled together, those without data too.
    """

    beta: float = 1.0
    oriented: bool = False

    name = "permuted"
    equation = "−log σ(β λ'_w h_w − β λ'_l h_l),  λ' = λ of another pair of the run"
    source = "ours (a control)"

    def __post_init__(self) -> None:
        keep_plain(self, beta=positive("beta", self.beta))

    def number(self, logps: PairLogps) -> Tensor:
        """Return λ_w − ½; that of the loser is its negative."""
        return balanced_weights(logps.win, logps.lose)[0] - 0.5

    def deal(self, pairs: int, seed: int) -> tuple[Tensor, Tensor]:
        """Return a random permutation and random signs."""
        rng = stream(seed, Purpose.PERMUTATION)
        return torch.as_tensor(rng.permutation(pairs)), torch.as_tensor(rng.choice([-1.0, 1.0], pairs))

    def margin(self, logps: PairLogps, dealt: Tensor | None = None) -> Tensor:
        """Return m = β(λ'_w h_w − λ'_l h_l)."""
        excess = self.number(logps) if dealt is None else dealt
        if self.oriented and dealt is not None:
            # Small counts make ties, which only rounding would break: a tie favours neither side.
            ahead = (logps.win - logps.lose).detach()
            excess = dealt.abs() * torch.where(ahead.abs() > _TIE, ahead.sign(), 0.0)
        return self.beta * ((0.5 + excess) * logps.win_logratio - (0.5 - excess) * logps.lose_logratio)


# Controls by name, with the function from β to the loss: registered losses with other numbers.
CONTROLS: dict[str, Callable[[float], KnownLoss]] = {
    "bdpo at 2β": lambda beta: BalancedDPO(2 * beta),
    "fixed λ=0.4": lambda beta: FixedWeightDPO(beta, 0.4),
    "fixed λ=0.5": lambda beta: FixedWeightDPO(beta, 0.5),
    "fixed λ=0.6": lambda beta: FixedWeightDPO(beta, 0.6),
}
# The pair losses that the declared experiments compare. ``train`` takes every registered loss.
LOSSES = ("dpo", "bdpo", "bdpo at 2β", "nbdpo", "nbdpo-symmetric", "fixed λ=0.4", "fixed λ=0.5", "fixed λ=0.6")
PERMUTED = {"permuted λ": False, "permuted |λ−½|": True}  # whether oriented
# Looks of controls, where they differ from their loss's look.
_LOOKS: dict[str, dict[str, Any]] = {
    "bdpo at 2β": {"label": "bDPO at 2β", "color": "#E69F00", "linestyle": "--", "marker": "D"},
    "permuted λ": {"label": "permuted λ", "color": "#CC79A7", "linestyle": "--", "marker": "X"},
    "permuted |λ−½|": {"label": "permuted |λ − ½|", "color": "#882255", "linestyle": (0, (5, 1)), "marker": "d"},
}
add_looks({**{name: look_of(make(1.0)) for name, make in CONTROLS.items()}, **_LOOKS})
PPO_REWARDS = ("model", "minimum", "mean", "maximum", "oracle")
PPO_METHODS = {"ppo": "model", "ppo oracle": "oracle"}
METHODS = (*LOSSES, *PERMUTED, *PPO_METHODS)
END_ONLY = Training(record=1)


def train(
    method: str,
    worlds: Sequence[World],
    training: Training = END_ONLY,
    *,
    beta: float = 1.0,
    seeds: Sequence[int],
    start: np.ndarray | None = None,
    **changes: Any,
) -> Fit:
    """Train a method on each world, with the data of its seed; the other arguments are those of ``fit``.

    method  a name in ``METHODS``, or the name of a registered loss.

    PPO gets a reward model of the same kind of policy, fitted to the same pairs by the same recipe, or the true
    utility.
    """
    pair_losses = (*CONTROLS, *PAIR_LOSSES)
    one_of("method", method, dict.fromkeys((*METHODS, *pair_losses)))
    training = training.but(**changes)
    if training.gradients and method not in pair_losses:
        raise ValueError(f"gradients are logged of pair losses only ({', '.join(pair_losses)}); got method {method!r}")
    if method in PPO_METHODS:
        return train_ppo(PPO_METHODS[method], worlds, training, beta=beta, seeds=seeds, start=start)
    return fit(worlds, loss_of(method, beta), training, seed=list(seeds), start=start)


def loss_of(method: str, beta: float = 1.0) -> PairLoss:
    """Return the loss of a method that trains by a pair loss: any but those of PPO."""
    if method in PERMUTED:
        return PermutedBalancedDPO(beta, PERMUTED[method])
    return CONTROLS[method](beta) if method in CONTROLS else pair_loss(method, beta=beta)


def train_ppo(
    reward: Any,
    worlds: Sequence[World],
    training: Training = END_ONLY,
    *,
    beta: float = 1.0,
    seeds: Sequence[int],
    start: np.ndarray | None = None,
    reward_policy: Policy | None = None,
    **changes: Any,
) -> Fit:
    """Train by PPO in exact expectation on ``reward``.

    reward         ``oracle``, the true utility; or how a reward model's scores of unobserved responses are filled.
    reward_policy  a policy in whose features the reward model is linear; None: the trained policy's features.
    """
    one_of("reward", reward, PPO_REWARDS)
    training, seed = training.but(**changes), list(seeds)
    utility = torch.as_tensor(np.stack([world.utility for world in worlds]))
    if reward == "oracle":
        values = utility
    else:
        values = fit_reward(worlds, training.but(policy=reward_policy or training.policy), seed=seed)
        values = fill_unobserved(values, np.stack([world.observed for world in worlds]), reward)
    return fit_ppo(worlds, values, PPO(beta), training, seed=seed, start=start)


def final(fitted: Fit, seeds: Sequence[int], **keys: Any) -> pd.DataFrame:
    """Return the last recorded row of every run, with its seed and these keys as columns."""
    rows = history(fitted, seeds, **keys)
    return rows[rows["step"] == rows["step"].max()].reset_index(drop=True)


def history(fitted: Fit, seeds: Sequence[int], **keys: Any) -> pd.DataFrame:
    """Return all recorded rows, with the seed and these keys as columns."""
    frame = fitted.history.assign(seed=np.asarray(seeds)[fitted.history["run"]], **keys)
    return frame[[*keys, "seed", "step", *(name for name in fitted.history if name not in ("run", "step"))]]


def seeds_from(first: int, number: int) -> range:
    """Return so many seeds in a row. Of runs that judge, the first is ``FIRST_SEED`` or later; of quick runs, 0."""
    return range(first, first + number)
