"""Follow a gradient step by step in PyTorch: the eager loop, which is the reference for the engine."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from gradlab.checks import count
from gradlab.console import printable
from gradlab.lab.objective import from_columns, mix, to_columns
from gradlab.lab.optimizers import optimizer_of
from gradlab.lab.policy import is_free
from gradlab.lab.problem import Gradient, Problem
from gradlab.lab.training import Training


def descend(problem: Problem, training: Training, wanted: np.ndarray, *, progress: bool = False) -> Tensor:
    """Descend from the problem's start, block by block; return log π at the ``wanted`` steps, (S, R, X, Y).

    Raises FloatingPointError if a policy stops being finite.
    """
    runs, device, dtype = problem.runs, training.device, training.precision
    features = training.features(runs.responses).to(device, dtype)
    parts = []
    with progress_bar(problem, wanted, progress) as bar, steady(device):
        for block in runs.blocks(problem.slots, device):
            width = block.stop - block.start
            columns = to_columns(problem.start[block], device, dtype)

            def tick(steps: int, width: int = width) -> None:
                bar.update(steps * width)

            gradient = problem.gradient(block, training)
            followed = _follow(gradient, columns, features, training, wanted, tick, problem.normalised)
            parts.append(from_columns(followed, width, runs.prompts))
    policies = torch.cat(parts, 1)
    check_finite(policies, wanted, training.learning_rate)
    return policies


def progress_bar(problem: Problem, wanted: np.ndarray, progress: bool) -> tqdm:
    """Return a bar that counts the steps of all runs, shown if ``progress``."""
    runs = problem.runs.count
    return tqdm(
        total=runs * int(wanted[-1]), desc=printable(f"{problem.label}: {runs} runs"), unit="step", disable=not progress
    )


def _follow(
    gradient: Gradient,
    start: Tensor,
    features: Tensor,
    training: Training,
    wanted: np.ndarray,
    tick: Callable[[int], None],
    normalised: bool,
) -> Tensor:
    """Take all steps of one block; return its columns at the wanted steps, (S, Y, C)."""
    theta = torch.zeros(features.shape[1], start.shape[1], dtype=start.dtype, device=start.device, requires_grad=True)
    stepper = optimizer_of(training.optimizer).stepper([theta], training.learning_rate)
    free = is_free(features)
    kept, due, last = [], set(wanted.tolist()), int(wanted[-1])
    for step in range(last + 1):
        values = theta.detach()
        logp = start + (values if free else mix(features, values))
        if normalised:
            logp = torch.log_softmax(logp, 0)
        if step in due:
            kept.append(logp)
        if step == last:
            break
        slope = gradient(logp)
        if normalised:  # through the softmax: ∂L/∂logit = g − π Σ g
            slope = torch.addcmul(slope, logp.exp(), slope.sum(0), value=-1)
        theta.grad = slope if free else mix(features.T, slope)
        stepper.step()
        if step % 50 == 49 or step == last - 1:
            tick(step % 50 + 1)
    return torch.stack(kept)


def recorded_steps(steps: int, record: int) -> np.ndarray:
    """Return the steps to record, sorted: 0, about ``record`` log-spaced steps from 1 on, and the last step."""
    count("steps", steps, least=1)
    count("record", record, least=1)
    spaced = np.geomspace(1, steps, record).round().astype(int) if record > 1 else []
    return np.unique([0, *spaced, steps])


def check_finite(policies: Tensor, steps: np.ndarray, learning_rate: float) -> None:
    """Raise a FloatingPointError that names the first recorded step at which a policy (S, ...) is not finite."""
    broken = ~policies.isfinite().flatten(1).all(1)
    if broken.any():
        step = steps[int(broken.nonzero()[0, 0])]
        raise FloatingPointError(f"the policy is not finite at step {step}; learning_rate={learning_rate} is too large")


@contextlib.contextmanager
def steady(device: str) -> Iterator[None]:
    """Use one thread on the CPU (two on a busy core can be slower by orders), determinism on CUDA; also a decorator."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    cpu = torch.device(device).type == "cpu"
    torch.set_num_threads(1)
    if not cpu:
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if not cpu:  # calling it imports torch's compiler, which takes a second
            torch.use_deterministic_algorithms(deterministic)
