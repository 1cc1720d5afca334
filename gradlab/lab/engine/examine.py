"""A kernel's examination with each loss that it is to train: a few steps on a small problem, against autograd."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from gradlab.lab.engine.run import Columns, KernelRun
from gradlab.lab.engine.trace import NotFusable
from gradlab.lab.objective import Deal
from gradlab.lab.optimizers import optimizer_of
from gradlab.lab.samplers import Sampler, pair_weights
from gradlab.lab.surrogate import PPO
from gradlab.losses import DealtLoss, PairLogps, PairLoss, reads_lengths
from gradlab.streams import Purpose, stream

# Far above any rounding, far below the effect of a wrong formula. Both types are compared with PyTorch in float64: in
# float32, Adam would amplify the rounding of PyTorch's sums, which the kernel avoids (``_gradient_of_log_policy``).
TOLERANCE = {"float64": 1e-7, "float32": 1e-3}
PROMPTS, RESPONSES, FEATURES, STEPS, RATE = 3, 5, 2, 4, 0.1
WIN, LOSE = (~torch.eye(RESPONSES, dtype=torch.bool)).nonzero().T


def examine(run: KernelRun, loss: PairLoss | PPO, sampler: Sampler) -> None:
    """Raise NotFusable unless the kernel trains as the loss does, on a problem whose prompts all differ.

    One prompt has a response without pairs, and every pair has another weight.
    """
    rng = stream(0, Purpose.EXAMINED)
    weights = rng.random((PROMPTS, RESPONSES, RESPONSES)) * (1 - np.eye(RESPONSES))
    weights[0, 1] = weights[0, :, 1] = 0
    reference, start = np.log(rng.dirichlet(np.ones(RESPONSES), (2, PROMPTS)))
    # Where slopes cancel, autograd leaves only rounding times the probability; Adam would amplify that.
    start[0, 1] = -20
    start[0] -= np.log(np.exp(start[0]).sum())
    features = rng.standard_normal((PROMPTS, RESPONSES, FEATURES if run.plan.shared else 0))
    reward = rng.standard_normal((PROMPTS, RESPONSES))
    lengths = 1 + 9 * rng.random((PROMPTS, RESPONSES))
    columns = Columns(weights, reference, start, features, reward, lengths, reward, weights > 0)
    # The prompts are one run. Before the last step, PPO's batch ends, and a sampler or a reference follows the policy.
    deal, epochs = None if isinstance(loss, PPO) else Deal.of(loss, [0]), min(run.epochs, STEPS - 1)
    often = {
        "sampler_every": min(run.sampler_every, STEPS - 1),
        "reference_every": run.reference_every and min(run.reference_every, STEPS - 1),
    }
    run = replace(run, learning_rate=RATE, wanted=np.array([STEPS]), deal=deal, epochs=epochs, **often)
    try:
        reached, expected = run.follow(columns)[0], _by_autograd(run, loss, sampler, columns)
    except ValueError as error:  # weights that are not normalised may leave all bounds on this problem
        raise NotFusable("its weights are not finite where a kernel is examined") from error
    if run.plan.goal != "scores":
        reached, expected = np.exp(reached), np.exp(expected)
    if not np.allclose(reached, expected, rtol=0, atol=TOLERANCE[run.plan.dtype], equal_nan=True):
        raise NotFusable("its kernel does not do here what the loss does, with these numbers")


@torch.enable_grad()
def _by_autograd(run: KernelRun, loss: PairLoss | PPO, sampler: Sampler, columns: Columns) -> np.ndarray:
    """Return log π after the steps, or the scores, (X, Y), by plain PyTorch."""
    data, reference, start, features, reward, lengths, utility, comparable = map(torch.as_tensor, columns)
    features = features if run.plan.shared else torch.eye(RESPONSES, dtype=torch.float64).expand(PROMPTS, -1, -1)
    # Not by ``rule.stepper``: making a torch.optim.Adam loads PyTorch's compiler, which takes longer than all of this.
    rule = optimizer_of(run.plan.optimizer)
    theta, *memory = torch.zeros(1 + rule.memories, PROMPTS, features.shape[2], dtype=torch.float64)
    old, advantage, weights = start, start, data

    def reached() -> Tensor:
        scores = start + (features @ theta[:, :, None])[:, :, 0]
        return scores if run.plan.goal == "scores" else torch.log_softmax(scores, 1)

    for step, factors in enumerate(rule.factors(RATE, STEPS).tolist()):
        theta.requires_grad_()
        logp = reached()
        if run.reference_every is not None and step > 0 and step % run.reference_every == 0:
            reference = logp.detach()
        if run.plan.rule is not None and step % run.sampler_every == 0:
            weights = sampler.reweighted(data, pair_weights(sampler, logp, reference, utility), comparable)
        if not isinstance(loss, PPO):
            value = (_values(loss, logp, reference, lengths) * weights[:, WIN, LOSE]).sum()
            value = value + 0.5 * run.penalty * logp.square().sum() if run.plan.goal == "scores" else value
        else:
            if step % run.epochs == 0:
                old = logp.detach()
                penalised = reward - run.penalty * (old - reference)
                advantage = penalised - (old.exp() * penalised).sum(1, keepdim=True)
            value = (loss.loss(logp, old, advantage) * old.exp()).sum()
        (gradient,) = torch.autograd.grad(value, theta)
        theta, memory = rule.update(theta.detach(), gradient, memory, factors, torch.sqrt)
    return reached().numpy()


def _values(loss: PairLoss, logp: Tensor, reference: Tensor, lengths: Tensor) -> Tensor:
    """Return the loss of each ordered pair, (X, pairs)."""
    tables = (logp, reference, lengths) if reads_lengths(loss) else (logp, reference)
    pairs = PairLogps(*(table[:, side] for table in tables for side in (WIN, LOSE)))
    return loss(pairs, *((_dealt(loss, pairs),) if isinstance(loss, DealtLoss) else ()))


def _dealt(loss: DealtLoss, pairs: PairLogps) -> Tensor:
    """Return what each ordered pair gets, (X, pairs): a pair's two orders get a pair's two orders."""
    slots = np.triu_indices(RESPONSES, 1)
    source, sign = (part[0].T for part in Deal(loss, [0]).places(np.array([RESPONSES]), np.stack(slots), PROMPTS))
    slot, prompt = np.divmod(source, PROMPTS)
    given = torch.empty(PROMPTS, RESPONSES, RESPONSES, dtype=torch.float64)
    given[:, WIN, LOSE] = loss.number(pairs).detach()
    taken = torch.empty_like(given)
    for first, other in (slots, slots[::-1]):
        taken[:, first, other] = given[prompt, first[slot], other[slot]] * torch.from_numpy(sign)
    return taken[:, WIN, LOSE]
