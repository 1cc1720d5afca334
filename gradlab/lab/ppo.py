"""A Bradley–Terry reward model and tabular PPO: a second route from the same pairs to a policy.

The paper (arXiv 2502.20847) states: a reward model by Bradley–Terry maximum likelihood, the clipped surrogate, a KL
penalty β to the reference. Learning rates, batches, epochs and the treatment of unobserved responses are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from gradlab.arrays import bool_array, real_array
from gradlab.checks import between, one_of, positive, shown
from gradlab.lab.descent import recorded_steps, steady
from gradlab.lab.fit import Fit, follow, settings_of
from gradlab.lab.problem import PairProblem
from gradlab.lab.runs import Runs, Worlds
from gradlab.lab.surrogate import PPO, PPOProblem
from gradlab.lab.training import FIELDS, Training, recipe_of, refuse_sampler
from gradlab.losses import DPO

Fill = Literal["model", "minimum", "mean", "maximum"]

# The Bradley–Terry likelihood of scores r is DPO's loss at β = 1, with r in place of log π and a reference of zeros.
_BRADLEY_TERRY = DPO(beta=1.0)


_OF_PPO = tuple(field.name for field in fields(PPO))


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
    zeros = np.zeros(runs.ref_logp.shape)
    problem = PairProblem(runs, _BRADLEY_TERRY, runs.data(), torch.as_tensor(zeros), zeros, normalised=False, ridge=l2)
    scores, _ = follow(problem, training, np.array([training.steps]), progress)
    return runs.unflatten(scores)[-1]


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
              labels say what the reward was fitted to, and are not used here. Sampled PPO is eager.
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
    policies, engine = follow(problem, training, kept, progress)
    history = runs.history(policies, kept, beta=update.beta)
    reached = _objective(policies, problem.reward, torch.as_tensor(runs.ref_logp), update.beta)
    history["loss"] = reached.neg().flatten().numpy()
    history["held_out_loss"] = np.nan
    settings = {"loss": repr(update), **settings_of(training, runs, start), "engine": engine}
    return Fit(kept, runs.unflatten(policies), None, settings, history.copy)


def _exact(training: Training, what: str) -> Training:
    """Return the training; refuse fields that only a pair loss can use."""
    if training.batch is not None:
        raise ValueError(f"batch must be None for {what}, got {training.batch}")
    refuse_sampler(training, what)
    if training.gradients:
        raise ValueError(f"gradients must be False for {what}, got True: the gradient log is about pair losses")
    return training


def _objective(policies: Tensor, reward: Tensor, ref_logp: Tensor, beta: float) -> Tensor:
    """Return E_π[r] − β KL(π‖π_ref) for log π (S, R, X, Y), a mean over prompts: (S, R)."""
    logp = policies.double().cpu()
    return (logp.exp() * (reward - beta * (logp - ref_logp))).sum(-1).mean(-1)


def _tensor(name: str, values: np.ndarray | Tensor, check: Callable[[str, Any], np.ndarray]) -> Tensor:
    """Return a tensor in its type, on its device; anything else as a copy, since torch warns of read-only arrays."""
    array = check(name, values)
    return values.detach() if isinstance(values, Tensor) else torch.from_numpy(array.copy())
