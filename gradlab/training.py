"""Train tabular policies on preference pairs: many independent runs at once, bit for bit what each would be alone."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from gradlab import metrics
from gradlab.checks import count, one_of, positive
from gradlab.gradients import gradient_log
from gradlab.losses import DPO, PairLoss
from gradlab.objective import PairObjective, from_columns, to_columns
from gradlab.policy import FreeLogits, Policy
from gradlab.world import Labels, World, draw_pairs, exact_pairs, resample, stream

Optimizer = Literal["adam", "gd"]
Worlds = World | Sequence["Worlds"]

# Pairs × columns of one block: its tensors stay in a core's cache, and below the size at which torch starts threads.
BLOCK_SLOTS = 2**15
# The purpose of the stream that draws mini-batches; the world's own streams have lower numbers.
_BATCHES = (10,)


@dataclass(frozen=True, eq=False)
class Fit:
    """A finished training. Leading axes ``...`` are those of the worlds that were given (none for a single one).

    history    tidy frame: a row for each run (flat index over the leading axes) and recorded step.
    steps      (S,) the recorded steps; 0 is the start.
    policies   (S, ..., X, Y) log π at those steps.
    gradients  the gradient log, see ``gradlab.gradients``; None unless asked for.
    settings   the arguments of the training.
    """

    history: pd.DataFrame
    steps: np.ndarray
    policies: Tensor
    gradients: pd.DataFrame | None
    settings: dict[str, Any]

    @property
    def logp(self) -> Tensor:
        """Log π at the end, (..., X, Y)."""
        return self.policies[-1]


def fit(
    worlds: Worlds,
    loss: PairLoss,
    *,
    policy: Policy | None = None,
    optimizer: Optimizer = "adam",
    learning_rate: float = 0.05,
    steps: int = 500,
    pairs: int | None = None,
    batch: int | None = None,
    labels: Labels | None = None,
    seed: int | Sequence[int] = 0,
    start: np.ndarray | Tensor | None = None,
    record: int = 25,
    gradients: bool = False,
    device: str = "cpu",
    dtype: torch.dtype = torch.float64,
    progress: bool = False,
) -> Fit:
    """Train one policy a world on the mean pair loss of each prompt (a sum over prompts, which do not interact).

    worlds         a World, or nested sequences of worlds of one size: leading axes of independent runs.
    loss           any ``PairLoss``: one value a pair.
    policy         ``FreeLogits()`` (default) or ``RadialBasis()``.
    optimizer      ``adam`` (β₁ = 0.9, β₂ = 0.999) or ``gd``, plain gradient descent.
    learning_rate  > 0.
    pairs          None: the exact expectation over all comparable pairs. N: a finite data set of N pairs a prompt.
    batch          None: full batch. B: a fresh mini-batch of B pairs a prompt in each step, drawn from that data.
    labels         ``soft`` (Bradley–Terry probabilities; default for exact data) or ``hard`` (sampled in finite
                   data, the default there; the better response in exact data).
    seed           draws data and batches: one for all runs, or one a run. Equal seeds give equal bits.
    start          log π at step 0, broadcastable to (..., X, Y); default: each world's reference.
    record         about how many log-spaced steps to keep, besides the start.
    gradients      also keep the gradient log.
    progress       show a progress bar.

    Held-out loss is measured on N fresh pairs a prompt where data are finite, else on the exact pairs.
    Raises ValueError, in one line, for a bad argument; FloatingPointError if the policy stops being finite.
    """
    problem = _Problem.of(worlds, pairs, labels, seed)
    policy = policy or FreeLogits()
    one_of("optimizer", optimizer, get_args(Optimizer))
    positive("learning_rate", learning_rate)
    if batch is not None:
        count("batch", batch, least=1)
    kept = recorded_steps(steps, record)
    logged = recorded_steps(steps - 1, 10) if gradients else np.empty(0, int)
    wanted = np.union1d(kept, np.union1d(logged, logged + 1)).astype(int)
    features = policy.features(problem.responses).to(device, dtype)
    begin = problem.start(start)
    data = problem.data()

    bar = tqdm(
        total=problem.runs * steps,
        desc=f"{loss.name}: {problem.runs} runs",
        disable=not progress,
        unit="step",
    )
    parts = []
    with bar, _reproducible(device):
        for runs in problem.blocks(data, loss, device):
            objective = PairObjective(loss, data[runs], problem.ref_logp[runs], device, dtype)
            gradient = (
                objective.gradient
                if batch is None
                else _batch_gradient(objective, data[runs], batch, problem.seeds[runs])
            )
            columns = to_columns(begin[runs], device, dtype)
            tick = functools.partial(_advance, bar, runs.stop - runs.start)
            done = descend(gradient, columns, features, optimizer, learning_rate, wanted, tick)
            parts.append(from_columns(done, runs.stop - runs.start, problem.prompts))
    policies = torch.cat(parts, 1)
    _check_finite(policies, wanted, learning_rate)

    settings = {
        "loss": loss.name, "hyper": repr(loss), "policy": policy.name, "optimizer": optimizer,
        "learning_rate": learning_rate, "steps": steps, "pairs": pairs, "batch": batch, "labels": problem.labels,
    }  # fmt: skip
    recorded = policies[np.searchsorted(wanted, kept)]
    log = None
    if gradients:
        before, after = (policies[np.searchsorted(wanted, at)] for at in (logged, logged + 1))
        log = gradient_log(loss, before, after, logged, data, problem.ref_logp, features.cpu(), problem.seeds)
    return Fit(
        history=_history(loss, recorded, kept, problem, data),
        steps=kept,
        policies=recorded.reshape(len(kept), *problem.shape, problem.prompts, problem.responses),
        gradients=log,
        settings=settings,
    )


def dpo_reference(world: World, steps: int = 300, **settings: Any) -> World:
    """Give the world its own policy after ``steps`` steps of DPO as reference.

    The paper does this with 300 steps on language models (stated); on the grid it is ours. ``settings`` go to ``fit``;
    its default loss is ``DPO()``.
    """
    loss = settings.pop("loss", DPO())
    trained = fit(world, loss, steps=steps, record=1, **settings)
    return world.with_reference(trained.logp.double().cpu().numpy())


def recorded_steps(steps: int, record: int) -> np.ndarray:
    """0, about ``record`` log-spaced steps from 1 on, and the last: sorted whole numbers."""
    count("steps", steps, least=1)
    count("record", record, least=1)
    spaced = np.geomspace(1, steps, record).round().astype(int) if record > 1 else []
    return np.unique([0, *spaced, steps])


def descend(
    gradient: Callable[[Tensor], Tensor],
    start: Tensor,
    features: Tensor,
    optimizer: Optimizer,
    learning_rate: float,
    wanted: np.ndarray,
    tick: Callable[[int], object] | None = None,
    *,
    normalise: bool = True,
) -> Tensor:
    """Follow ``gradient`` from ``start`` (Y, C) and return the log-policies at the ``wanted`` steps, (S, Y, C).

    gradient maps log π (Y, C) to ∂L/∂log π (Y, C); features is Φ (Y, K). With ``normalise=False`` the logits are
    free scores and not log-probabilities: a reward model. tick is told now and then how many steps are done.
    """
    identity = torch.equal(features, torch.eye(*features.shape, dtype=features.dtype, device=features.device))
    theta = torch.zeros(features.shape[1], start.shape[1], dtype=start.dtype, device=start.device, requires_grad=True)
    if optimizer == "adam":
        stepper: torch.optim.Optimizer = torch.optim.Adam([theta], lr=learning_rate, fused=True)
    else:
        stepper = torch.optim.SGD([theta], lr=learning_rate)

    def log_policy() -> Tensor:
        values = theta.detach()
        logits = start + (values if identity else features @ values)
        return torch.log_softmax(logits, 0) if normalise else logits

    kept, due = [], set(wanted.tolist())
    for step in range(int(wanted[-1]) + 1):
        logp = log_policy()
        if step in due:
            kept.append(logp.clone())
        if step == wanted[-1]:
            break
        slope = gradient(logp)
        if normalise:  # through the softmax: ∂L/∂logit = g − π Σ g
            slope = slope - logp.exp() * slope.sum(0)
        theta.grad = slope if identity else features.T @ slope
        stepper.step()
        if tick and (step % 50 == 49 or step == wanted[-1] - 1):
            tick(step % 50 + 1)
    return torch.stack(kept)


@dataclass(frozen=True, eq=False)
class _Problem:
    """The worlds as arrays over one flat axis of R runs, and how to draw their data."""

    worlds: list[World]
    shape: tuple[int, ...]
    seeds: list[int]
    pairs: int | None
    labels: Labels

    @classmethod
    def of(cls, worlds: Worlds, pairs: int | None, labels: Labels | None, seed: int | Sequence[int]) -> _Problem:
        flat, shape = _flatten(worlds)
        sizes = {world.utility.shape for world in flat}
        if len(sizes) > 1:
            raise ValueError(f"worlds must have one size to train together, got {sorted(sizes)}")
        seeds = [seed] * len(flat) if isinstance(seed, (int, np.integer)) else list(seed)
        if len(seeds) != len(flat):
            raise ValueError(f"seed must be one number or one a run: {len(flat)} runs, got {len(seeds)} seeds")
        for one in seeds:
            count("seed", one)
        if pairs is not None:
            count("pairs", pairs, least=1)
        labels = labels or ("soft" if pairs is None else "hard")
        one_of("labels", labels, get_args(Labels))
        return cls(flat, shape, seeds, pairs, labels)

    @property
    def runs(self) -> int:
        return len(self.worlds)

    @property
    def prompts(self) -> int:
        return self.worlds[0].prompts

    @property
    def responses(self) -> int:
        return self.worlds[0].responses

    @functools.cached_property
    def ref_logp(self) -> np.ndarray:
        return np.stack([world.ref_logp for world in self.worlds])

    def data(self, split: int = 0) -> np.ndarray:
        """Pair weights (R, X, Y, Y); split 0 is for training, 1 holds fresh pairs."""
        if self.pairs is None:
            return np.stack([exact_pairs(world, labels=self.labels) for world in self.worlds])
        drawn = (
            draw_pairs(world, self.pairs, labels=self.labels, seed=seed, split=split)
            for world, seed in zip(self.worlds, self.seeds, strict=True)
        )
        return np.stack(list(drawn))

    def start(self, start: np.ndarray | Tensor | None) -> Tensor:
        """Log π at step 0, (R, X, Y), checked."""
        ref_logp = torch.as_tensor(self.ref_logp)
        if start is None:
            return ref_logp
        given = torch.as_tensor(start).to(ref_logp)
        wanted = (*self.shape, self.prompts, self.responses)
        try:
            given = given.broadcast_to(wanted)
        except RuntimeError:
            raise ValueError(f"start must broadcast to shape {wanted}, got {tuple(given.shape)}") from None
        if not torch.allclose(given.logsumexp(-1), torch.zeros(()).to(given), atol=1e-6):
            raise ValueError("start must hold log-probabilities that sum to one over responses in every prompt")
        return given.reshape(ref_logp.shape)

    def blocks(self, data: np.ndarray, loss: PairLoss, device: str) -> Iterator[slice]:
        """Runs in blocks whose tensors stay in the cache; a GPU takes far larger ones."""
        size = int(((data.sum(-1) + data.sum(-2)) > 0).sum(-1).max())
        slots = size * (size - 1) // (2 if loss.antisymmetric else 1)
        room = BLOCK_SLOTS * (1 if torch.device(device).type == "cpu" else 1000)
        width = max(1, room // (slots * self.prompts))
        return (slice(first, min(first + width, self.runs)) for first in range(0, self.runs, width))


def _history(loss: PairLoss, policies: Tensor, steps: np.ndarray, problem: _Problem, data: np.ndarray) -> pd.DataFrame:
    """One row a run and recorded step, from log π (S, R, X, Y)."""
    logp = policies.double().cpu()
    stacked = {
        name: torch.as_tensor(np.stack([getattr(world, name) for world in problem.worlds]))
        for name in ("utility", "observed", "ref_logp")
    }
    numbers = metrics.summary(logp, **stacked, beta=getattr(loss, "beta", 1.0))
    numbers["loss"] = _losses(loss, logp, problem, data)
    finite = problem.pairs is not None
    numbers["held_out_loss"] = _losses(loss, logp, problem, problem.data(split=1)) if finite else numbers["loss"]
    grid = pd.MultiIndex.from_product([steps, range(problem.runs)], names=["step", "run"])
    frame = pd.DataFrame({name: value.ravel() for name, value in numbers.items()}, index=grid).reset_index()
    return frame.sort_values(["run", "step"], ignore_index=True)[["run", "step", *numbers]]


def _losses(loss: PairLoss, logp: Tensor, problem: _Problem, data: np.ndarray) -> np.ndarray:
    """The mean loss of each recorded step and run, (S, R)."""
    values = []
    for runs in problem.blocks(data, loss, "cpu"):
        objective = PairObjective(loss, data[runs], problem.ref_logp[runs], "cpu", torch.float64)
        by_prompt = torch.stack([objective.value(to_columns(step[runs], "cpu", torch.float64)) for step in logp])
        live = by_prompt[:, : (runs.stop - runs.start) * problem.prompts]
        values.append(live.unflatten(1, (-1, problem.prompts)).mean(-1))
    return torch.cat(values, 1).numpy()


def _batch_gradient(
    objective: PairObjective, data: np.ndarray, batch: int, seeds: list[int]
) -> Callable[[Tensor], Tensor]:
    """The objective's gradient on a fresh mini-batch each time, every run drawing from a stream of its own."""
    count("batch", batch, least=1)
    streams = [stream(seed, *_BATCHES) for seed in seeds]

    def gradient(logp: Tensor) -> Tensor:
        drawn = [resample(weights, batch, rng) for weights, rng in zip(data, streams, strict=True)]
        objective.reweight(np.stack(drawn))
        return objective.gradient(logp)

    return gradient


def _flatten(worlds: Worlds) -> tuple[list[World], tuple[int, ...]]:
    if isinstance(worlds, World):
        return [worlds], ()
    if not isinstance(worlds, Sequence) or len(worlds) == 0:
        raise ValueError(f"worlds must be a World or a sequence with at least one, got {worlds!r}")
    parts = [_flatten(part) for part in worlds]
    if len({shape for _, shape in parts}) > 1:
        raise ValueError("worlds must nest evenly: every sequence at one depth needs the same length")
    return [world for flat, _ in parts for world in flat], (len(parts), *parts[0][1])


def _check_finite(policies: Tensor, steps: np.ndarray, learning_rate: float) -> None:
    broken = ~policies.isfinite().flatten(1).all(1)
    if broken.any():
        step = steps[int(broken.nonzero()[0, 0])]
        raise FloatingPointError(f"the policy is not finite at step {step}; learning_rate={learning_rate} is too large")


def _advance(bar: tqdm, runs: int, steps: int) -> None:
    bar.update(runs * steps)


@contextlib.contextmanager
def _reproducible(device: str) -> Iterator[None]:
    """On CUDA, make scatter and index additions deterministic while training; the CPU's always are."""
    before = torch.are_deterministic_algorithms_enabled()
    if torch.device(device).type != "cpu":
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
