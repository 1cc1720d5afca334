"""A Bradley–Terry reward model and tabular PPO: a second route from the same pairs to a policy.

The paper (arXiv 2502.20847) states: a reward model by Bradley–Terry maximum likelihood, the clipped surrogate, a KL
penalty β to the reference. Learning rates, batches, epochs and the treatment of unobserved responses are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from gradlab.arrays import bool_array, real_array
from gradlab.checks import between, count, keep_plain, one_of, positive, shown
from gradlab.lab.descent import descend, recorded_steps, steady
from gradlab.lab.engine import notice
from gradlab.lab.fit import Fit, settings_of
from gradlab.lab.objective import PairObjective, from_columns, pair_slots, to_columns
from gradlab.lab.problem import Gradient
from gradlab.lab.runs import Runs, Worlds
from gradlab.lab.training import FIELDS, Training, recipe_of
from gradlab.lab.world import resample
from gradlab.losses import DPO, policy_gradient, ppo_clip
from gradlab.streams import Purpose, stream

Fill = Literal["model", "minimum", "mean", "maximum"]

# The Bradley–Terry likelihood of scores r is DPO's loss at β = 1, with r in place of log π and a reference of zeros.
_BRADLEY_TERRY = DPO(beta=1.0)


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


_OF_PPO = tuple(field.name for field in fields(PPO))


@dataclass(frozen=True, eq=False)
class RewardProblem:
    """The Bradley–Terry likelihood of scores: runs, data (R, X, Y, Y) of pair weights, and the weight of ½ Σ r²."""

    runs: Runs
    data: np.ndarray
    l2: float
    label = "reward model"
    normalised = False

    @property
    def start(self) -> Tensor:
        """The scores at step 0, which are zeros, (R, X, Y)."""
        return torch.zeros(self.runs.ref_logp.shape, dtype=torch.float64)

    @property
    def slots(self) -> int:
        """The number of rows of a gradient's tensors: one per pair."""
        return pair_slots(_BRADLEY_TERRY, self.data)

    def gradient(self, block: slice, training: Training) -> Gradient:
        """Return the gradient of the mean pair loss and of the penalty."""
        zeros = np.zeros_like(self.runs.ref_logp[block])
        objective = PairObjective(_BRADLEY_TERRY, self.data[block], zeros, training.device, training.precision)
        if not self.l2:
            return objective.gradient
        return lambda scores: objective.gradient(scores) + self.l2 * scores


def fit_reward(
    worlds: Worlds,
    training: Training = Training(),
    *,
    seed: int | Sequence[int] = 0,
    l2: float = 0.0,
    progress: bool = False,
    **changes: Any,
) -> Tensor:
    """Fit a reward model by Bradley–Terry maximum likelihood; r of shape (..., X, Y), in nats of preference.

    It minimises the mean of −log σ(r_w − r_l) over a prompt's pairs, from r = 0. Only differences within a prompt are
    determined: r recovers u up to a constant per prompt. The start and the features decide what no pair compares.

    training  as in ``fit``; ``changes`` are fields of it. Its policy gives the features that the scores are linear in;
              its data are the same pairs that ``fit`` trains on with equal arguments. Only the end is returned,
              whatever ``record`` says.
    l2        ≥ 0: adds ½ · l2 · Σ_y r(x, y)² to each prompt's mean pair loss (ours; 0 by default).

    Raises the errors of ``fit``. Mini-batches and the gradient log are refused: a reward model has neither. Source:
    stated; Rafailov et al. 2023 (2305.18290), eq. 2.
    """
    training = _exact(recipe_of(training, changes), "a reward model")
    l2 = between("l2", l2, 0)
    runs = Runs.of(worlds, training.pairs, training.labels, seed)
    problem = RewardProblem(runs, runs.data(), l2)
    return runs.unflatten(descend(problem, training, np.array([training.steps]), progress=progress))[-1]


def fill_unobserved(reward: np.ndarray | Tensor, observed: np.ndarray | Tensor, how: Fill) -> Tensor:
    """Return the reward with another value for responses that appear in no pair, taken from the prompt's observed ones.

    reward    (..., X, Y) in nats of preference.
    observed  bool, broadcastable to reward's shape, such as ``World.observed``; each prompt needs one True.
    how       ``model`` keeps the model's reward; ``minimum``, ``mean`` and ``maximum`` are taken over the observed
              responses.

    Returns a new tensor of reward's shape. Raises ValueError, in one line. Source: ours.
    """
    one_of("how", how, get_args(Fill))
    reward, mask = _tensor("reward", reward, real_array), _tensor("observed", observed, bool_array)
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
    """Return log(π_ref exp(r/β)), normalised: the policy that maximises E_π[r] − β KL(π‖π_ref).

    reward and ref_logp (..., X, Y), broadcast against each other. Source: Rafailov et al. 2023 (2305.18290), eq. 4.
    """
    reward, ref_logp = _tensor("reward", reward, real_array), _tensor("ref_logp", ref_logp, real_array)
    return torch.log_softmax(ref_logp + reward / positive("beta", beta), -1)


@dataclass(frozen=True, eq=False)
class PPOProblem:
    """PPO's surrogate: runs, the update, rewards (R, X, Y) in nats of preference, and log π at step 0."""

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

    def gradient(self, block: slice, training: Training) -> Gradient:
        """Return the surrogate's gradient, which takes a new batch every ``epochs`` calls."""
        device, dtype, runs = training.device, training.precision, self.runs
        reward, ref_logp = (to_columns(values[block], device, dtype) for values in (self.reward, runs.ref_logp))
        return _Surrogate(self.update, reward, ref_logp, runs.seeds[block], runs.prompts).gradient


@steady("cpu")
def fit_ppo(
    worlds: Worlds,
    reward: np.ndarray | Tensor,
    update: PPO = PPO(),
    training: Training = Training(),
    *,
    seed: int | Sequence[int] = 0,
    start: np.ndarray | Tensor | None = None,
    progress: bool = False,
    **changes: Any,
) -> Fit:
    """Train one policy per world by PPO against a given reward, with a KL penalty to the world's reference.

    Each batch comes from the policy π_old at its first step. ``epochs`` gradient steps on it descend the clipped
    surrogate with the advantage r − β log(π_old/π_ref) − baseline; the baseline is the batch's mean in each prompt.
    At ``ideal_logp`` every advantage is zero, sampled ones too: under ``gd``, or with one epoch, the policy comes to
    rest there. Adam with more epochs does not: between batches the advantage keeps its sign past the optimum and
    Adam its step size, so the policy ends in a small cycle around it (KL ≈ 1e-3 at 4 epochs and a rate of 0.05).

    worlds    a World, or nested sequences of worlds of one size.
    reward    r, broadcastable to (..., X, Y), in nats of preference: from ``fit_reward``, or the oracle's, which is
              ``world.utility``.
    update    β, clip, epochs and samples, see ``PPO``.
    training  as in ``fit``; its steps are all gradient steps, so there are ⌈steps / epochs⌉ batches. Its pairs and
              labels say what the reward was fitted to, and are not used here. PPO is always eager.
    changes   fields of ``update`` or of ``training``.
    seed      draws the samples: one for all runs, or one per run. Equal seeds give equal bits.

    ``start``, ``progress`` and the errors are as in ``fit``. ``Fit.history`` has the columns of ``fit``: ``loss`` is
    −(E_π[r] − β KL), a mean over prompts, and ``held_out_loss`` is NaN, since no pairs are involved. ``Fit.settings``
    has the keys of ``fit``. Source: stated (a clipped surrogate with a KL penalty); batches and baseline ours.
    """
    if not isinstance(update, PPO):
        raise ValueError(f"update must be a PPO, such as PPO(beta=1.0), got {shown(update)}")
    for name in changes:
        one_of("a field of PPO or Training", name, (*_OF_PPO, *FIELDS))
    update = replace(update, **{name: changes.pop(name) for name in _OF_PPO if name in changes})
    training = _exact(recipe_of(training, changes), "PPO")
    runs = Runs.of(worlds, training.pairs, training.labels, seed)
    problem = PPOProblem(runs, update, runs.spread("reward", reward), runs.start(start))
    kept = recorded_steps(training.steps, training.record)
    policies = descend(problem, training, kept, progress=progress)
    history = runs.history(policies, kept, beta=update.beta)
    reached = _objective(policies, problem.reward, torch.as_tensor(runs.ref_logp), update.beta)
    history["loss"] = reached.neg().flatten().numpy()
    history["held_out_loss"] = np.nan
    settings = {"loss": repr(update), **settings_of(training, runs, start), "engine": "eager"}
    return Fit(kept, runs.unflatten(policies), None, settings, history.copy)


def _exact(training: Training, what: str) -> Training:
    """Return the training; refuse fields that only a pair loss can use; say once that the engine is not used."""
    if training.batch is not None:
        raise ValueError(f"batch must be None for {what}, got {training.batch}")
    if training.gradients:
        raise ValueError(f"gradients must be False for {what}, got True: the gradient log is about pair losses")
    if training.engine == "fused":
        notice(what, "the engine trains pair losses only")
    return training


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


def _objective(policies: Tensor, reward: Tensor, ref_logp: Tensor, beta: float) -> Tensor:
    """Return E_π[r] − β KL(π‖π_ref) for log π (S, R, X, Y), a mean over prompts: (S, R)."""
    logp = policies.double().cpu()
    return (logp.exp() * (reward - beta * (logp - ref_logp))).sum(-1).mean(-1)


def _tensor(name: str, values: np.ndarray | Tensor, check: Callable[[str, Any], np.ndarray]) -> Tensor:
    """Return a tensor in its type, on its device; anything else as a copy, since torch warns of read-only arrays."""
    array = check(name, values)
    return values.detach() if isinstance(values, Tensor) else torch.from_numpy(array.copy())
