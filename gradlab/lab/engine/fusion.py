"""The fused training loop as ``gradlab.lab.fit`` calls it, in place of ``descend``; or the reason why it cannot run."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gradlab.lab.descent import check_finite, progress_bar
from gradlab.lab.engine.trace import NotFusable, derivative
from gradlab.lab.objective import Deal, is_antisymmetric
from gradlab.lab.policy import is_free
from gradlab.lab.problem import PairProblem
from gradlab.lab.training import Training
from gradlab.losses import PairLoss

if TYPE_CHECKING:
    from gradlab.lab.engine.kernel import Plan
    from gradlab.lab.engine.machine import Kernel

# The kernels of this process, each with the constants that it was examined with.
_KERNELS: dict[Plan, tuple[Kernel, set[tuple[float, ...]]]] = {}
_SAID: set[str] = set()


class EagerNotice(UserWarning):
    """A warning that a training runs eager, to the same result but more slowly."""


def notice(label: str, reason: NotFusable | str) -> None:
    """Say once in this process that ``label`` trains eager, and why."""
    text = f"{label} trains eager, which is slower, since {reason}"
    if text not in _SAID:
        _SAID.add(text)
        warnings.warn(text, EagerNotice, stacklevel=5)  # the line that calls ``fit``


def fused(problem: PairProblem, training: Training, wanted: np.ndarray, *, progress: bool = False) -> Tensor:
    """Train as ``descend`` does, in one compiled function; return log π at the ``wanted`` steps, (S, R, X, Y).

    Each run gives the same bits as it gives alone. After 200 steps in float64, probabilities agree with the eager
    loop's to 1e-10. Raises NotFusable before anything is trained; FloatingPointError as ``descend`` does.
    """
    runs = problem.runs
    features = training.features(runs.responses)
    shared = not is_free(features)
    plan, kernel, constants = ready(problem.loss, training, shared)
    from gradlab.lab.engine.run import Columns, KernelRun

    mixing = features.detach().double().numpy() if shared else np.empty((runs.responses, 0))
    columns = Columns(
        problem.data.reshape(-1, runs.responses, runs.responses),
        runs.ref_logp.reshape(-1, runs.responses),
        problem.start.numpy().reshape(-1, runs.responses),
        np.broadcast_to(mixing, (runs.count * runs.prompts, *mixing.shape)),
    )
    done = 0
    with progress_bar(problem, wanted, progress) as bar:

        def tick(column_steps: int) -> None:
            nonlocal done
            bar.update((done + column_steps) // runs.prompts - done // runs.prompts)
            done += column_steps

        deal = Deal.of(problem.loss, runs.seeds)
        policies = KernelRun(plan, kernel, constants, training.learning_rate, wanted, tick, deal).follow(columns)
    logp = torch.from_numpy(policies).unflatten(1, (runs.count, runs.prompts))
    check_finite(logp, wanted, training.learning_rate)
    return logp


def ready(loss: PairLoss, training: Training, shared: bool) -> tuple[Plan, Kernel, list[float]]:
    """Return the loss's plan and kernel, from this process, the disk or the compiler; and the constants for a call.

    Raises NotFusable where the engine cannot train so.
    """
    dtype, device = training.precision, training.device
    if training.batch is not None:
        raise NotFusable("every step has a mini-batch of its own")
    if device != "cpu" or dtype not in (torch.float64, torch.float32):
        raise NotFusable(f"a kernel has no {dtype} on {device}, but float64 and float32 on the cpu")
    try:
        from gradlab.lab.engine import machine
        from gradlab.lab.engine.examine import examine
        from gradlab.lab.engine.kernel import Plan, write
    except ImportError as error:  # where there is no wheel of llvmlite
        raise NotFusable(f"{error.name} is not installed") from error
    trace, constants = derivative(loss, training.precision)
    kind = str(training.precision).removeprefix("torch.")
    plan = Plan(trace, is_antisymmetric(loss), shared, training.optimizer, kind)
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
    # Examined anew for every loss, not for every kernel: what has been compiled before must not matter.
    kernel, examined = _KERNELS[plan]
    if tuple(constants) not in examined:
        examine(plan, kernel, constants, loss)
        examined.add(tuple(constants))
    return plan, kernel, constants
