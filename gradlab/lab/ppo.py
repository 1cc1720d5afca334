"""A Bradley–Terry reward model and tabular PPO: the other route from the same pairs to a policy.

The paper (arXiv 2502.20847) states: a reward model by Bradley–Terry maximum likelihood, the clipped surrogate, a KL
penalty β to the reference. Learning rates, batches, epochs and the treatment of unobserved responses are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from gradlab.checks import between, count, one_of, positive
from gradlab.lab.descent import Descent, Gradient, Optimizer, recorded_steps, steady
from gradlab.lab.fit import Fit
from gradlab.lab.objective import PairObjective, from_columns, pair_slots, to_columns
from gradlab.lab.policy import FREE_LOGITS, Policy
from gradlab.lab.runs import Runs, Worlds
from gradlab.lab.world import Labels, Purpose, resample, stream
from gradlab.losses import DPO, policy_gradient, ppo_clip

Fill = Literal["model", "minimum", "mean", "maximum"]

# The Bradley–Terry likelihood of scores r is DPO's loss at β = 1, with r in place of log π and a reference of zeros.
_BRADLEY_TERRY = DPO(beta=1.0)


@dataclass(frozen=True)
class PPO:
    """What makes an update PPO's: KL penalty β > 0, clip ε > 0 (None: unclipped), steps a batch, batch size.

    Source: Schulman et al. 2017 (arXiv 1707.06347); the KL penalty inside the reward as in Ziegler et al. 2019
    (arXiv 1909.08593), eq. 2. Raises ValueError, in one line, for a number out of range.
    """

    beta: float = 1.0
    clip: float | None = 0.2
    epochs: int = 4
    samples: int | None = None

    def __post_init__(self) -> None:
        positive("beta", self.beta)
        if self.clip is not None:
            positive("clip", self.clip)
        count("epochs", self.epochs, least=1)
        if self.samples is not None:  # the mean of one sample is the sample: its advantage would always be 0
            count("samples", self.samples, least=2)


def fit_reward(
    worlds: Worlds,
    *,
    policy: Policy = FREE_LOGITS,
    optimizer: Optimizer = "adam",
    learning_rate: float = 0.05,
    steps: int = 500,
    pairs: int | None = None,
    labels: Labels | None = None,
    seed: int | Sequence[int] = 0,
    l2: float = 0.0,
    device: str = "cpu",
    dtype: torch.dtype = torch.float64,
    progress: bool = False,
) -> Tensor:
    """Fit a reward model by Bradley–Terry maximum likelihood; r of shape (..., X, Y), in nats of preference.

    It minimises the mean of −log σ(r_w − r_l) over a prompt's pairs, from r = 0. Only differences within a prompt are
    determined: r recovers u up to a constant a prompt, and what no pair compares is left to start and features.

    policy         what the scores are linear in: ``FreeLogits()`` (default) or ``RadialBasis()``, started at zero.
    pairs, labels, seed  as in ``gradlab.lab.fit.fit``: equal arguments give the very pairs that ``fit`` trains on.
    l2             ≥ 0: adds ½ · l2 · Σ_y r(x, y)² to each prompt's mean pair loss (ours; 0 by default).

    The rest as in ``fit``, which also says what is raised. Source: stated; Rafailov et al. 2023 (2305.18290), eq. 2.
    """
    descent = Descent(optimizer, learning_rate, device, dtype, progress)
    runs = Runs.of(worlds, pairs, labels, seed)
    between("l2", l2, 0)
    count("steps", steps, least=1)
    data, zeros = runs.data(), np.zeros_like(runs.ref_logp)

    def gradient_of(block: slice) -> Gradient:
        likelihood = PairObjective(_BRADLEY_TERRY, data[block], zeros[block], device, dtype).gradient
        return (lambda scores: likelihood(scores) + l2 * scores) if l2 else likelihood

    scores = descent.run(
        runs, gradient_of, torch.as_tensor(zeros), policy, np.array([steps]),
        slots=pair_slots(_BRADLEY_TERRY, data), label="reward model", normalise=False,
    )  # fmt: skip
    return runs.unflatten(scores)[-1]


def fill_unobserved(reward: np.ndarray | Tensor, observed: np.ndarray | Tensor, how: Fill) -> Tensor:
    """Reward of responses that appear in no pair: as the model has it, or taken from the prompt's observed ones.

    reward    (..., X, Y) in nats of preference.
    observed  bool, broadcastable to reward's shape, such as ``World.observed``; each prompt needs one True.
    how       ``model`` keeps the reward; ``minimum``, ``mean`` and ``maximum`` are those of the observed responses.

    Returns a new tensor of reward's shape. Raises ValueError, in one line. Source: ours.
    """
    one_of("how", how, get_args(Fill))
    reward, mask = _tensor(reward), _tensor(observed, bool)
    try:
        mask = mask.to(reward.device).broadcast_to(reward.shape)
    except RuntimeError:
        wanted, got = tuple(reward.shape), tuple(mask.shape)
        raise ValueError(f"observed must broadcast to reward's shape {wanted}, got {got}") from None
    if not mask.any(-1).all():
        raise ValueError(f"observed must hold a response in every prompt, got {int((~mask.any(-1)).sum())} without")
    if how == "model":
        return reward.clone()
    if how == "mean":
        filling = torch.where(mask, reward, 0).sum(-1, keepdim=True) / mask.sum(-1, keepdim=True)
    elif how == "minimum":
        filling = torch.where(mask, reward, torch.inf).amin(-1, keepdim=True)
    else:
        filling = torch.where(mask, reward, -torch.inf).amax(-1, keepdim=True)
    return torch.where(mask, reward, filling)


def ideal_logp(reward: np.ndarray | Tensor, ref_logp: np.ndarray | Tensor, beta: float = 1.0) -> Tensor:
    """Log of π_ref exp(r/β), normalised: the policy that maximises E_π[r] − β KL(π‖π_ref).

    reward and ref_logp (..., X, Y), broadcast against each other. Source: Rafailov et al. 2023 (2305.18290), eq. 4.
    """
    return torch.log_softmax(_tensor(ref_logp) + _tensor(reward) / positive("beta", beta), -1)


@steady("cpu")
def fit_ppo(
    worlds: Worlds,
    reward: np.ndarray | Tensor,
    *,
    beta: float = 1.0,
    policy: Policy = FREE_LOGITS,
    clip: float | None = 0.2,
    epochs: int = 4,
    samples: int | None = None,
    optimizer: Optimizer = "adam",
    learning_rate: float = 0.05,
    steps: int = 500,
    seed: int | Sequence[int] = 0,
    start: np.ndarray | Tensor | None = None,
    record: int = 25,
    device: str = "cpu",
    dtype: torch.dtype = torch.float64,
    progress: bool = False,
) -> Fit:
    """Train one policy a world by PPO against a given reward, with a KL penalty to the world's reference.

    Each batch comes from the policy π_old at its first step. On it ``epochs`` gradient steps descend the clipped
    surrogate with the advantage r − β log(π_old/π_ref) − baseline, whose baseline is the batch's mean in each prompt.
    At ``ideal_logp`` every advantage is zero, sampled ones too: under ``gd``, or with one epoch, the policy comes to
    rest there. Adam with more epochs does not: between batches the advantage keeps its sign past the optimum and
    Adam its step size, so the policy ends in a small cycle around it (KL ≈ 1e-3 at 4 epochs and a rate of 0.05).

    worlds    a World, or nested sequences of worlds of one size.
    reward    r, broadcastable to (..., X, Y), in nats of preference: from ``fit_reward``, or the oracle's, which is
              ``world.utility``.
    beta      β > 0, the KL coefficient.
    clip      ε > 0 of the ratio π/π_old (2017 default 0.2; ours too); None does not clip.
    epochs    gradient steps on each batch; 1 is the plain policy gradient.
    samples   None: the exact expectation under π_old, over all responses. N ≥ 2: N responses a prompt, from π_old.
    steps     gradient steps in all, so that there are ⌈steps / epochs⌉ batches.
    seed      draws the samples: one for all runs, or one a run. Equal seeds give equal bits.

    The rest as in ``gradlab.lab.fit.fit``, which also says what is raised. In ``Fit.history`` the columns are those of
    ``fit``: ``loss`` is −(E_π[r] − β KL), a mean over prompts, and ``held_out_loss`` is NaN: no pairs are involved.
    Source: stated (a clipped surrogate with a KL penalty); batches and baseline ours.
    """
    descent = Descent(optimizer, learning_rate, device, dtype, progress)
    update = PPO(beta, clip, epochs, samples)
    runs = Runs.of(worlds, None, None, seed)
    rewards = runs.spread("reward", reward)
    kept = recorded_steps(steps, record)

    def gradient_of(block: slice) -> Gradient:
        reward, ref_logp = (to_columns(values[block], device, dtype) for values in (rewards, runs.ref_logp))
        return _Surrogate(update, reward, ref_logp, runs.seeds[block], runs.prompts).gradient

    policies = descent.run(runs, gradient_of, runs.start(start), policy, kept, slots=runs.responses, label="ppo")
    history = runs.history(policies, kept, beta=beta)
    history["loss"] = _objective(policies, rewards, torch.as_tensor(runs.ref_logp), beta).neg().flatten().numpy()
    history["held_out_loss"] = np.nan
    settings = {
        "loss": repr(update), "policy": repr(policy), "optimizer": optimizer, "learning_rate": learning_rate,
        "steps": steps,
    }  # fmt: skip
    return Fit(kept, runs.unflatten(policies), None, settings, history.copy)


class _Surrogate:
    """PPO's gradient for a block of runs, item first; it takes a new batch every ``epochs`` calls."""

    def __init__(self, update: PPO, reward: Tensor, ref_logp: Tensor, seeds: list[int], prompts: int) -> None:
        self.update, self.reward, self.ref_logp = update, reward, ref_logp
        self.prompts = prompts
        self.streams = [stream(seed, Purpose.RESPONSES) for seed in seeds]
        self.calls = 0

    @torch.enable_grad()
    def gradient(self, logp: Tensor) -> Tensor:
        """∂/∂log π of the surrogate's mean over the batch, shape (Y, C)."""
        if self.calls % self.update.epochs == 0:
            self._collect(logp)
        self.calls += 1
        leaf = logp.detach().requires_grad_()
        if self.update.clip is None:
            surrogate = policy_gradient(leaf, self.old_logp, self.advantage)
        else:
            surrogate = ppo_clip(leaf, self.old_logp, self.advantage, self.update.clip)
        return torch.autograd.grad(surrogate, leaf, self.weight)[0]

    def _collect(self, logp: Tensor) -> None:
        """Take a batch from π_old = π: the weight of each response in it, and its advantage."""
        self.old_logp = logp
        self.weight = logp.exp() if self.update.samples is None else self._shares(logp)
        penalised = self.reward - self.update.beta * (logp - self.ref_logp)
        self.advantage = penalised - (self.weight * penalised).sum(0)

    def _shares(self, logp: Tensor) -> Tensor:
        """The shares of the drawn responses (Y, C): equal draws have equal losses, so their count is all they need."""
        if not logp.isfinite().all():  # nothing can be drawn from a policy that broke, which ``Descent`` reports
            return torch.full_like(logp, torch.nan)
        prob = from_columns(logp, len(self.streams), self.prompts).double().exp().cpu().numpy()
        # To ``resample`` a response is a pair with one possible partner.
        drawn = [
            resample(one[..., None], self.update.samples or 0, rng)[..., 0]
            for one, rng in zip(prob, self.streams, strict=True)
        ]
        return to_columns(np.stack(drawn), str(logp.device), logp.dtype)


def _objective(policies: Tensor, reward: Tensor, ref_logp: Tensor, beta: float) -> Tensor:
    """E_π[r] − β KL(π‖π_ref) of log π (S, R, X, Y), a mean over prompts: (S, R)."""
    logp = policies.double().cpu()
    return (logp.exp() * (reward - beta * (logp - ref_logp))).sum(-1).mean(-1)


def _tensor(values: np.ndarray | Tensor, kind: type = float) -> Tensor:
    """A tensor as it is; anything else as a copy in numpy, since torch warns of read-only arrays."""
    return values.detach() if isinstance(values, Tensor) else torch.as_tensor(np.array(values, dtype=kind))
