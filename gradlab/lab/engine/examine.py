"""A kernel's examination with each loss that it is to train: a few steps on a small problem, against autograd."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gradlab.lab.engine.kernel import Plan
from gradlab.lab.engine.machine import Kernel
from gradlab.lab.engine.run import Columns, KernelRun
from gradlab.lab.engine.trace import NotFusable
from gradlab.lab.objective import Deal
from gradlab.lab.optimizers import optimizer_of
from gradlab.losses import DealtLoss, PairLogps, PairLoss
from gradlab.streams import Purpose, stream

# Far above any rounding, far below the effect of a wrong formula. Both types are compared with PyTorch in float64: in
# float32, Adam would amplify the rounding of PyTorch's sums, which the kernel avoids (``_gradient_of_log_policy``).
TOLERANCE = {"float64": 1e-7, "float32": 1e-3}
PROMPTS, RESPONSES, FEATURES, STEPS, RATE = 3, 5, 2, 4, 0.1


def examine(plan: Plan, kernel: Kernel, constants: Sequence[float], loss: PairLoss) -> None:
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
    features = rng.standard_normal((PROMPTS, RESPONSES, FEATURES if plan.shared else 0))
    columns = Columns(weights, reference, start, features)
    deal = Deal.of(loss, [0])  # the prompts are one run
    reached = KernelRun(plan, kernel, constants, RATE, np.array([STEPS]), deal=deal).follow(columns)[0]
    expected = _by_autograd(plan, loss, columns)
    if not np.allclose(np.exp(reached), np.exp(expected), rtol=0, atol=TOLERANCE[plan.dtype], equal_nan=True):
        raise NotFusable("its kernel does not do here what the loss does, with these numbers")


@torch.enable_grad()
def _by_autograd(plan: Plan, loss: PairLoss, columns: Columns) -> np.ndarray:
    """Return log π after the steps, (X, Y), by plain PyTorch."""
    weights, reference, start, features = map(torch.as_tensor, columns)
    features = features if plan.shared else torch.eye(RESPONSES, dtype=torch.float64).expand(PROMPTS, -1, -1)
    # Not by ``rule.stepper``: making a torch.optim.Adam loads PyTorch's compiler, which takes longer than all of this.
    rule = optimizer_of(plan.optimizer)
    theta, *memory = torch.zeros(1 + rule.memories, PROMPTS, features.shape[2], dtype=torch.float64)
    win, lose = (~torch.eye(RESPONSES, dtype=torch.bool)).nonzero().T
    for factors in rule.factors(RATE, STEPS).tolist():
        logp = torch.log_softmax(start + (features @ theta.requires_grad_()[:, :, None])[:, :, 0], 1)
        pairs = PairLogps(logp[:, win], logp[:, lose], reference[:, win], reference[:, lose])
        dealt = (_dealt(loss, pairs, win, lose),) if isinstance(loss, DealtLoss) else ()
        value = loss(pairs, *dealt)
        (gradient,) = torch.autograd.grad((value * weights[:, win, lose]).sum(), theta)
        theta, memory = rule.update(theta.detach(), gradient, memory, factors, torch.sqrt)
    return torch.log_softmax(start + (features @ theta[:, :, None])[:, :, 0], 1).numpy()


def _dealt(loss: DealtLoss, pairs: PairLogps, win: Tensor, lose: Tensor) -> Tensor:
    """Return what each ordered pair (win, lose) gets, (X, pairs): a pair's two orders get a pair's two orders."""
    slots = np.triu_indices(RESPONSES, 1)
    source, sign = (part[0].T for part in Deal(loss, [0]).places(np.array([RESPONSES]), np.stack(slots), PROMPTS))
    slot, prompt = np.divmod(source, PROMPTS)
    given = torch.empty(PROMPTS, RESPONSES, RESPONSES, dtype=torch.float64)
    given[:, win, lose] = loss.number(pairs).detach()
    taken = torch.empty_like(given)
    for first, other in (slots, slots[::-1]):
        taken[:, first, other] = given[prompt, first[slot], other[slot]] * torch.from_numpy(sign)
    return taken[:, win, lose]
