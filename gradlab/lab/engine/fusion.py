"""The fused training loop as ``gradlab.lab.fit`` calls it, in place of ``descend``; or the reason why it cannot run."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from gradlab.lab.descent import check_finite, progress_bar
from gradlab.lab.engine.trace import NotFusable, derivative, surrogate_derivative
from gradlab.lab.objective import Deal, is_antisymmetric, to_columns
from gradlab.lab.policy import is_free
from gradlab.lab.problem import PairProblem
from gradlab.lab.samplers import Uniform
from gradlab.lab.surrogate import PPO, PPOProblem
from gradlab.lab.training import Training
from gradlab.losses import PairLoss

if TYPE_CHECKING:
    from gradlab.lab.engine.kernel import Plan
    from gradlab.lab.engine.machine import Kernel
    from gradlab.lab.engine.run import Columns, KernelRun

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


def fused(
    problem: PairProblem | PPOProblem, training: Training, wanted: np.ndarray, *, progress: bool = False
) -> Tensor:
    """Train as ``descend`` does, in one compiled function; return log π at the ``wanted`` steps, (S, R, X, Y).

    Each run gives the same bits as it gives alone. After 200 steps in float64, probabilities agree with the eager
    loop's to 1e-10; not those of losses with a kink where a side is at its reference (BPO, DPOP, MinorDPO), since
    rounding then decides on which side of it a start at the reference lies. Raises NotFusable before anything is
    trained, or where a sampler's weights do not fit into the kernel's numbers; FloatingPointError as ``descend`` does.
    """
    features = training.features(problem.runs.responses)
    shared = not is_free(features)
    if isinstance(problem, PairProblem):
        run = ready(problem.loss, training, shared, None if problem.normalised else problem.ridge)
        run = replace(run, deal=Deal.of(problem.loss, problem.runs.seeds))
    else:
        run = ready(problem.update, training, shared)
    mixing = features.detach().double().numpy() if shared else np.empty((len(features), 0))
    done, prompts = 0, problem.runs.prompts
    with progress_bar(problem, wanted, progress) as bar:

        def tick(column_steps: int) -> None:
            nonlocal done
            bar.update((done + column_steps) // prompts - done // prompts)
            done += column_steps

        policies = replace(run, wanted=wanted, tick=tick).follow(_columns(problem, mixing, training))
    logp = torch.from_numpy(policies).unflatten(1, (problem.runs.count, prompts))
    if run.plan.rule is not None and not logp.isfinite().all():  # the eager loop tells what is wrong, if anything is
        raise NotFusable("its sampler's weights do not fit into the kernel's numbers")
    check_finite(logp, wanted, training.learning_rate)
    return logp


def _columns(problem: PairProblem | PPOProblem, mixing: np.ndarray, training: Training) -> Columns:
    """Return the problems of all columns; ``mixing`` is Φ."""
    from gradlab.lab.engine.run import Columns

    runs, responses = problem.runs, problem.runs.responses
    count = runs.count * runs.prompts
    utility = np.broadcast_to(0.0, (count, responses))
    comparable = np.broadcast_to(False, (count, responses, responses))
    if isinstance(problem, PairProblem):
        weights = problem.data if training.plain or _follows(training) else _fixed(problem, training)
        weights, reference = weights.reshape(-1, responses, responses), problem.ref_logp
        reward = np.broadcast_to(0.0, (count, responses))
    else:
        weights, reference = np.broadcast_to(0.0, (count, responses, responses)), runs.ref_logp
        reward = problem.reward.numpy().reshape(-1, responses)
    start = problem.start.numpy().reshape(-1, responses)
    features, lengths = np.broadcast_to(mixing, (count, *mixing.shape)), runs.lengths.reshape(-1, responses)
    if not training.plain:
        utility, comparable = runs.utility.reshape(-1, responses), runs.comparable.reshape(-1, responses, responses)
    return Columns(weights, reference.reshape(-1, responses), start, features, reward, lengths, utility, comparable)


def _follows(training: Training) -> bool:
    """Say whether weights of pairs, or the reference, follow the policy."""
    return training.law.moves or training.reference_every is not None


def _fixed(problem: PairProblem, training: Training) -> np.ndarray:
    """Return the pair weights of a sampler that does not move, (R, X, Y, Y)."""
    parts: list[Any] = []
    for block in problem.runs.blocks(problem.slots, "cpu"):
        start = to_columns(problem.start[block], "cpu", torch.float64)
        parts.append(problem.seen(block, training).next(start, moved=False))
    return torch.cat(parts).numpy()


def ready(loss: PairLoss | PPO, training: Training, shared: bool, ridge: float | None = None) -> KernelRun:
    """Return the kernel of a loss, from this process, the disk or the compiler, with all numbers but those of the runs.

    ridge  of a reward model, whose scores are free; None: parameters give log-probabilities.

    Raises NotFusable where the engine cannot train so.
    """
    dtype, device = training.precision, training.device
    if training.batch is not None:
        raise NotFusable("every step has a mini-batch of its own")
    if isinstance(loss, PPO) and loss.samples is not None:
        raise NotFusable("every batch is a new sample")
    if device != "cpu" or dtype not in (torch.float64, torch.float32):
        raise NotFusable(f"a kernel has no {dtype} on {device}, but float64 and float32 on the cpu")
    try:
        from gradlab.lab.engine import machine
        from gradlab.lab.engine.examine import examine
        from gradlab.lab.engine.kernel import Plan, write
        from gradlab.lab.engine.run import KernelRun
        from gradlab.lab.engine.sampling import rule_of
    except ImportError as error:  # where there is no wheel of llvmlite
        raise NotFusable(f"{error.name} is not installed") from error
    kind = str(dtype).removeprefix("torch.")
    if isinstance(loss, PPO):
        trace, constants = surrogate_derivative(loss, dtype)
        plan = Plan(trace, False, shared, training.optimizer, kind, "surrogate")
        penalty, epochs = loss.beta, loss.epochs
    else:
        trace, constants = derivative(loss, dtype)
        goal = "pairs" if ridge is None else "scores"
        plan = Plan(trace, is_antisymmetric(loss), shared, training.optimizer, kind, goal)
        penalty, epochs = ridge or 0.0, 1
    law: tuple[float, ...] = ()
    if _follows(training):
        rule, law = (None, ()) if type(training.law) is Uniform else rule_of(training.law)
        plan = replace(plan, rule=rule, moved=training.reference_every is not None)
    if plan not in _KERNELS:
        assembly = write(plan)
        saved = machine.load(assembly)
        try:
            code = saved or machine.compile(assembly)
            _KERNELS[plan] = machine.Kernel(code, arguments=plan.arguments), set()
        except Exception as error:  # whatever it is: training goes on without the compiler
            raise NotFusable(f"its kernel cannot be compiled here: {str(error).partition(chr(10))[0]}") from error
        if saved is None:
            machine.save(assembly, code)
    # Examined anew for every loss, not for every kernel: what has been compiled before must not matter.
    kernel, examined = _KERNELS[plan]
    often = training.sampler_every, training.reference_every
    fixed = training.learning_rate, np.empty(0, int), penalty, epochs
    run = KernelRun(plan, kernel, constants, *fixed, None, law, *often)
    numbers = (*constants, penalty, float(epochs), *law, *(float(every or 0) for every in often))
    if numbers not in examined:
        examine(run, loss, training.law)
        examined.add(numbers)
    return run
