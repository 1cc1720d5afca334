"""Train tabular policies on preference pairs: many independent runs at once, bit for bit what each would be alone."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gradlab.checks import count, one_of
from gradlab.lab.descent import Descent, Gradient, Optimizer, recorded_steps, steady
from gradlab.lab.engine import NotFusable, fused, notice
from gradlab.lab.gradient_log import gradient_log
from gradlab.lab.objective import PairObjective, pair_slots, to_columns
from gradlab.lab.policy import FREE_LOGITS, Policy, features_of
from gradlab.lab.runs import Runs, Worlds
from gradlab.lab.world import Labels, Purpose, World, resample, stream
from gradlab.losses import DPO, PairLoss

Engine = Literal["auto", "eager", "fused"]


@dataclass(frozen=True, eq=False)
class Fit:
    """A finished training. Leading axes ``...`` are those of the worlds that were given (none for a single one).

    steps      (S,) the recorded steps; 0 is the start.
    policies   (S, ..., X, Y) log π at those steps; ``history`` is made from them, so leave them as they are.
    gradients  the gradient log, see ``gradlab.lab.gradient_log``; None unless asked for.
    settings   the arguments of the training; ``engine`` is the one that ran.
    """

    steps: np.ndarray
    policies: Tensor
    gradients: pd.DataFrame | None
    settings: dict[str, Any]
    _history: Callable[[], pd.DataFrame] = field(repr=False)

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: the history, and not the data that it is made from, which are many times as large."""
        return {**self.__dict__, "history": self.history, "_history": None}

    @functools.cached_property
    def history(self) -> pd.DataFrame:
        """Tidy frame: a row for each run (flat index over the leading axes) and recorded step; made when first read."""
        return self._history()

    @property
    def logp(self) -> Tensor:
        """Log π at the end, (..., X, Y)."""
        return self.policies[-1]


@steady("cpu")
def fit(
    worlds: Worlds,
    loss: PairLoss,
    *,
    policy: Policy = FREE_LOGITS,
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
    engine: Engine = "auto",
    progress: bool = False,
) -> Fit:
    """Train one policy a world on the mean pair loss of each prompt (a sum over prompts, which do not interact).

    worlds         a World, or nested sequences of worlds of one size: leading axes of independent runs.
    loss           any ``PairLoss``: one value a pair.
    policy         ``FreeLogits()`` (default) or ``RadialBasis()``.
    optimizer      ``adam`` (β₁ = 0.9, β₂ = 0.999) or ``gd``, plain gradient descent.
    learning_rate  > 0.
    steps          how many, ≥ 1.
    pairs          None: the exact expectation over all comparable pairs. N: a finite data set of N pairs a prompt.
    batch          None: full batch. B: a fresh mini-batch of B pairs a prompt in each step, drawn from that data.
    labels         ``soft`` (Bradley–Terry probabilities; default for exact data) or ``hard`` (sampled in finite
                   data, the default there; the better response in exact data).
    seed           draws data and batches: one for all runs, or one a run. Equal seeds give equal bits, on
                   one kind of processor.
    start          log π at step 0, broadcastable to (..., X, Y); default: each world's reference.
    record         about how many log-spaced steps to keep, besides the start.
    gradients      also keep the gradient log.
    device, dtype  where and in which precision to train; float64 on the CPU is the reference.
    engine         ``eager``: step by step in PyTorch, the reference. ``fused``: all steps in one compiled function,
                   many times as fast, see ``gradlab.lab.engine``; where that is impossible, eager with a notice.
                   ``auto`` (default): fused, but eager without a notice for mini-batches and off the CPU.
    progress       show a progress bar.

    Held-out loss is measured on N fresh pairs a prompt where data are finite, else on the exact pairs.
    Raises ValueError, in one line, for a bad argument; FloatingPointError if the policy stops being finite. Warns with
    ``EagerNotice``, once for each reason, where the engine was wanted and cannot be.
    """
    descent = Descent(optimizer, learning_rate, device, dtype, progress)
    if isinstance(loss, type) or not isinstance(loss, PairLoss):
        raise ValueError(f"loss must be a PairLoss such as DPO(beta=1.0) or pair_loss('dpo'), got {loss!r}")
    runs = Runs.of(worlds, pairs, labels, seed)
    if batch is not None:
        count("batch", batch, least=1)
    one_of("engine", engine, get_args(Engine))
    kept = recorded_steps(steps, record)
    logged = recorded_steps(steps, 10)[:-1] if gradients else np.empty(0, int)
    wanted = np.union1d(kept, np.union1d(logged, logged + 1)).astype(int)
    data = runs.data()

    def gradient_of(block: slice) -> Gradient:
        objective = PairObjective(loss, data[block], runs.ref_logp[block], device, dtype)
        if batch is None:
            return objective.gradient
        return _batch_gradient(objective, data[block], batch, runs.seeds[block])

    begin = runs.start(start)
    policies = None
    if engine == "fused" or (engine == "auto" and batch is None and device == "cpu"):
        policies = _fused(descent, loss, runs, data, begin, policy, wanted, batch)
    used = "eager" if policies is None else "fused"
    if policies is None:
        slots = pair_slots(loss, data)
        policies = descent.run(runs, gradient_of, begin, policy, wanted, slots=slots, label=loss.name)
    recorded = policies[np.searchsorted(wanted, kept)]
    history = functools.partial(_history, loss, recorded, kept, runs, data)
    log = None
    if gradients:
        before, after = (policies[np.searchsorted(wanted, at)] for at in (logged, logged + 1))
        features = policy.features(runs.responses)
        log = gradient_log(loss, before, after, logged, data, runs.ref_logp, features, runs.seeds)
    settings = {
        "loss": repr(loss), "policy": repr(policy), "optimizer": optimizer, "learning_rate": learning_rate,
        "steps": steps, "pairs": pairs, "batch": batch, "labels": runs.labels, "seed": runs.seeds,
        "started": "reference" if start is None else "given", "dtype": str(dtype), "device": device, "engine": used,
    }  # fmt: skip
    return Fit(kept, runs.unflatten(recorded), log, settings, history)


def dpo_reference(world: World, steps: int = 300, **settings: Any) -> World:
    """Give the world its own policy after ``steps`` steps of DPO as reference.

    The paper does this with 300 steps on language models (stated); on the grid it is ours. ``settings`` go to ``fit``;
    its default loss is ``DPO()``.
    """
    loss = settings.pop("loss", DPO())
    trained = fit(world, loss, steps=steps, record=1, **settings)
    return world.with_reference(trained.logp.double().cpu().numpy())


def _fused(
    descent: Descent, loss: PairLoss, runs: Runs, data: np.ndarray, start: Tensor, policy: Policy, wanted: np.ndarray,
    batch: int | None,
) -> Tensor | None:  # fmt: skip
    """Log π at the wanted steps by ``gradlab.lab.engine``, or None, with a notice, where it cannot."""
    if batch is not None:
        notice(loss.name, "every step has a mini-batch of its own")
        return None
    try:
        features = features_of(policy, runs.responses)
        return fused(descent, loss, data, runs.ref_logp, start, features, wanted, label=loss.name)
    except NotFusable as reason:
        notice(loss.name, reason)
        return None


@steady("cpu")
def _history(loss: PairLoss, policies: Tensor, steps: np.ndarray, runs: Runs, data: np.ndarray) -> pd.DataFrame:
    """The metrics and losses of every recorded step and run; policies (S, R, X, Y)."""
    history = runs.history(policies, steps, beta=getattr(loss, "beta", math.nan))
    history["loss"] = _losses(loss, policies, runs, data)
    fresh = history["loss"] if runs.pairs is None else _losses(loss, policies, runs, runs.data(split=1))
    return history.assign(held_out_loss=fresh)


def _losses(loss: PairLoss, policies: Tensor, runs: Runs, data: np.ndarray) -> np.ndarray:
    """The mean loss of every recorded step and run, flat, step by step; policies (S, R, X, Y)."""
    values = []
    for block in runs.blocks(pair_slots(loss, data), "cpu"):
        objective = PairObjective(loss, data[block], runs.ref_logp[block], "cpu", torch.float64)
        by_prompt = torch.stack([objective.value(to_columns(logp[block], "cpu", torch.float64)) for logp in policies])
        live = by_prompt[:, : (block.stop - block.start) * runs.prompts]
        values.append(live.unflatten(1, (-1, runs.prompts)).mean(-1))
    return torch.cat(values, 1).flatten().numpy()


def _batch_gradient(objective: PairObjective, data: np.ndarray, batch: int, seeds: list[int]) -> Gradient:
    """The objective's gradient on a fresh mini-batch each time, every run drawing from a stream of its own."""
    streams = [stream(seed, Purpose.BATCHES) for seed in seeds]

    def gradient(logp: Tensor) -> Tensor:
        drawn = [resample(weights, batch, rng) for weights, rng in zip(data, streams, strict=True)]
        objective.reweight(np.stack(drawn))
        return objective.gradient(logp)

    return gradient
