"""The fused training loop as ``gradlab.lab.fit`` calls it, in place of ``Descent.run``; or why it cannot be."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gradlab.lab.descent import Descent, check_finite
from gradlab.lab.engine.trace import NotFusable, derivative
from gradlab.lab.objective import is_antisymmetric
from gradlab.lab.policy import is_free
from gradlab.losses import PairLoss

if TYPE_CHECKING:
    from gradlab.lab.engine.kernel import Plan
    from gradlab.lab.engine.machine import Kernel

# Those of this process, each with the constants that it was examined with.
_KERNELS: dict[Plan, tuple[Kernel, set[tuple[float, ...]]]] = {}
_SAID: set[str] = set()


class EagerNotice(UserWarning):
    """A training runs eager, to the same result but more slowly."""


def notice(label: str, reason: NotFusable | str) -> None:
    """Say once in this process that ``label`` trains eager, and why."""
    text = f"{label} trains eager, which is slower, since {reason}"
    if text not in _SAID:
        _SAID.add(text)
        warnings.warn(text, EagerNotice, stacklevel=5)  # the line that calls ``fit``


def fused(
    descent: Descent, loss: PairLoss, weights: np.ndarray, ref_logp: np.ndarray, start: Tensor, features: Tensor,
    wanted: np.ndarray, *, label: str,
) -> Tensor:  # fmt: skip
    """Train as ``Descent.run`` does on a ``PairObjective``; log π at the ``wanted`` steps, (S, R, X, Y).

    weights   (R, X, Y, Y) shares of the ordered pairs.
    ref_logp, start  (R, X, Y) log π_ref, and log π at step 0.
    features  Φ of the policy, (Y, K); the unit matrix for free logits.

    Each run has the bits that it has alone. After 200 steps in float64, probabilities agree with the eager loop's to
    1e-10. Raises NotFusable before anything is trained; FloatingPointError as ``Descent.run``.
    """
    if descent.device != "cpu" or descent.dtype not in (torch.float64, torch.float32):
        raise NotFusable(f"a kernel has no {descent.dtype} on {descent.device}, but float64 and float32 on the cpu")
    shared = not is_free(features)
    plan, kernel, constants = _ready(loss, descent, shared)
    from gradlab.lab.engine.run import Columns, Training

    runs, prompts, responses = ref_logp.shape
    own = features.detach().double().numpy() if shared else np.empty((responses, 0))
    columns = Columns(
        weights.reshape(-1, responses, responses),
        ref_logp.reshape(-1, responses),
        start.numpy().reshape(-1, responses),
        np.broadcast_to(own, (runs * prompts, *own.shape)),
    )
    done = 0
    with descent.bar(label, runs, int(wanted[-1])) as bar:

        def tick(column_steps: int) -> None:
            nonlocal done
            bar.update((done + column_steps) // prompts - done // prompts)
            done += column_steps

        policies = Training(plan, kernel, constants, descent.learning_rate, wanted, tick).follow(columns)
    logp = torch.from_numpy(policies).unflatten(1, (runs, prompts))
    check_finite(logp, wanted, descent.learning_rate)
    return logp


def _ready(loss: PairLoss, descent: Descent, shared: bool) -> tuple[Plan, Kernel, list[float]]:
    """The loss's kernel, from this process, the disk or the compiler; and the constants to call it with."""
    try:
        from gradlab.lab.engine import machine
        from gradlab.lab.engine.examine import examine
        from gradlab.lab.engine.kernel import Plan, write
    except ImportError as error:  # where there is no wheel of llvmlite
        raise NotFusable(f"{error.name} is not installed") from error
    trace, constants = derivative(loss, descent.dtype)
    plan = Plan(trace, is_antisymmetric(loss), shared, descent.optimizer, str(descent.dtype).removeprefix("torch."))
    if plan not in _KERNELS:
        assembly = write(plan)
        saved = machine.load(assembly)
        try:
            code = saved or machine.compile(assembly)
            _KERNELS[plan] = machine.Kernel(code), set()
        except Exception as error:  # whatever it is: training goes on without the compiler
            raise NotFusable(f"its kernel cannot be compiled here: {str(error).partition(chr(10))[0]}") from error
        if saved is None:
            machine.save(assembly, code)
    # Of every loss anew, and not of every kernel: which ones have been compiled before must not matter.
    kernel, examined = _KERNELS[plan]
    if tuple(constants) not in examined:
        examine(plan, kernel, constants, loss)
        examined.add(tuple(constants))
    return plan, kernel, constants
