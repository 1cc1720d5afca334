"""Train tabular policies on preference pairs: many runs at once, each bit for bit as if it were trained alone."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gradlab.checks import shown
from gradlab.lab.descent import descend, recorded_steps, steady
from gradlab.lab.engine import NotFusable, fused, notice
from gradlab.lab.gradient_log import gradient_log
from gradlab.lab.objective import Deal, PairObjective, pair_slots, to_columns
from gradlab.lab.problem import PairProblem
from gradlab.lab.runs import Runs, Worlds
from gradlab.lab.surrogate import PPOProblem
from gradlab.lab.training import Engine, Training, recipe_of
from gradlab.lab.world import World
from gradlab.losses import DPO, BatchLoss, DealtLoss, PairLoss


@dataclass(frozen=True, eq=False)
class Fit:
    """A finished training. Leading axes ``...`` are those of the worlds that were given (none for a single world).

    steps      (S,) the recorded steps; 0 is the start.
    policies   (S, ..., X, Y) log π at those steps; ``history`` is computed from them, so do not change them.
    gradients  the gradient log, see ``gradlab.lab.gradient_log``; None unless asked for.
    settings   the loss, the fields of ``Training`` (those of samplers only where there is one, or the reference moves),
               and the seeds, as JSON-able data; ``engine`` names what ran, ``labels`` the kind that was used,
               ``started`` "reference" or "given".
    """

    steps: np.ndarray
    policies: Tensor
    gradients: pd.DataFrame | None
    settings: dict[str, Any]
    _history: Callable[[], pd.DataFrame] = field(repr=False)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the history, and not the data that it is computed from, which are many times as large."""
        return {**self.__dict__, "history": self.history, "_history": None}

    @functools.cached_property
    def history(self) -> pd.DataFrame:
        """The metrics as a tidy frame, one row per run (flat index over the leading axes) and recorded step.

        Computed when it is first read.
        """
        return self._history()

    @property
    def logp(self) -> Tensor:
        """The policy at the end, as log π, (..., X, Y)."""
        return self.policies[-1]


@steady("cpu")
def fit(
    worlds: Worlds,
    loss: PairLoss | BatchLoss,
    training: Training = Training(),
    *,
    seed: int | Sequence[int] = 0,
    start: np.ndarray | Tensor | None = None,
    progress: bool = False,
    **changes: Any,
) -> Fit:
    """Train one policy per world on the mean pair loss of each prompt (a sum over prompts, which do not interact).

    worlds    a World, or nested sequences of worlds of one size: leading axes of independent runs.
    loss      any ``PairLoss``: one value per pair. Or a ``BatchLoss``, which trains eager: all pairs of a run are one
              batch, in which each prompt has the same weight.
    training  how to train; ``changes`` are fields of it, such as ``pairs=100``.
    seed      draws data and batches: one for all runs, or one per run. Equal seeds give equal bits, on one kind of
              processor.
    start     log π at step 0, broadcastable to (..., X, Y); default: each world's reference.
    progress  show a progress bar.

    The held-out loss is measured on N fresh pairs per prompt where data are finite, else on the exact pairs. Losses of
    the history and the sample of the gradient log weigh pairs as the data do, whatever the sampler, and compare with
    the first reference, as all metrics do.
    Raises ValueError, in one line, for a bad argument; FloatingPointError if the policy stops being finite. Warns with
    ``EagerNotice``, once for each reason, where the engine was asked for and cannot train.
    """
    training = recipe_of(training, changes)
    if isinstance(loss, type) or not isinstance(loss, PairLoss):
        raise ValueError(f"loss must be a PairLoss such as DPO(beta=1.0) or pair_loss('dpo'), got {shown(loss)}")
    if training.gradients and isinstance(loss, (DealtLoss, BatchLoss)):
        raise ValueError(f"gradients must be False for {loss!r}, whose pairs take numbers of other pairs, got True")
    runs = Runs.of(worlds, training.pairs, training.labels, seed)
    problem = PairProblem(runs, loss, runs.data(), runs.start(start))
    kept = recorded_steps(training.steps, training.record)
    logged = recorded_steps(training.steps, 10)[:-1] if training.gradients else np.empty(0, int)
    wanted = np.union1d(kept, np.union1d(logged, logged + 1)).astype(int)
    policies, engine = follow(problem, training, wanted, progress)
    recorded = policies[np.searchsorted(wanted, kept)]
    log = _gradient_log(problem, training, policies, wanted, logged) if training.gradients else None
    history = functools.partial(_history, problem, recorded, kept)
    settings = {"loss": repr(loss), **settings_of(training, runs, start), "engine": engine}
    return Fit(kept, runs.unflatten(recorded), log, settings, history)


def follow(
    problem: PairProblem | PPOProblem, training: Training, wanted: np.ndarray, progress: bool
) -> tuple[Tensor, Engine]:
    """Return log π at the wanted steps, (S, R, X, Y), and the engine that ran.

    Warns with ``EagerNotice`` where the engine was asked for and cannot train.
    """
    batches = isinstance(problem, PairProblem) and isinstance(problem.loss, BatchLoss)
    eager = batches or problem.stochastic(training) or training.device != "cpu"
    unasked = training.engine == "auto" and eager
    if training.engine != "eager" and not unasked:
        try:
            return fused(problem, training, wanted, progress=progress), "fused"
        except NotFusable as reason:
            notice(problem.label, reason)
    return descend(problem, training, wanted, progress=progress), "eager"


def settings_of(training: Training, runs: Runs, start: np.ndarray | Tensor | None) -> dict[str, Any]:
    """Return the settings of a training for ``Fit.settings``, without the loss; ``start`` is as it was given."""
    started = "reference" if start is None else "given"
    return {**training.settings(), "labels": runs.labels, "seed": runs.seeds, "started": started}


def dpo_reference(world: World, steps: int = 300, **settings: Any) -> World:
    """Return the world with a new reference: the policy that ``steps`` steps of DPO train on it.

    The paper does this with 300 steps on language models (stated); on the grid it is ours. ``settings`` go to ``fit``;
    the default loss is ``DPO()``.
    """
    if not isinstance(world, World):
        raise ValueError(f"world must be a World, got {shown(world)}")
    loss = settings.pop("loss", DPO())
    trained = fit(world, loss, steps=steps, record=1, **settings)
    return world.with_reference(trained.logp.double().cpu().numpy())


def _gradient_log(
    problem: PairProblem, training: Training, policies: Tensor, wanted: np.ndarray, logged: np.ndarray
) -> pd.DataFrame:
    """Return the gradient log at the ``logged`` steps, from log π at the ``wanted`` steps."""
    runs = problem.runs
    before, after = (policies[np.searchsorted(wanted, at)] for at in (logged, logged + 1))
    features = training.features(runs.responses)
    return gradient_log(problem.loss, before, after, logged, problem.data, runs, features)


@steady("cpu")
def _history(problem: PairProblem, policies: Tensor, steps: np.ndarray) -> pd.DataFrame:
    """Return the metrics and losses of every recorded step and run; policies (S, R, X, Y)."""
    runs, loss = problem.runs, problem.loss
    history = runs.history(policies, steps, beta=getattr(loss, "beta", math.nan))
    history["loss"] = _losses(loss, policies, runs, problem.data)
    fresh = history["loss"] if runs.pairs is None else _losses(loss, policies, runs, runs.data(split=1))
    return history.assign(held_out_loss=fresh)


def _losses(loss: PairLoss, policies: Tensor, runs: Runs, data: np.ndarray) -> np.ndarray:
    """Return the mean loss of every recorded step and run, flat, step by step; policies (S, R, X, Y)."""
    values = []
    for block in runs.blocks(pair_slots(loss, data), "cpu"):
        deal = Deal.of(loss, runs.seeds[block])
        given = data[block], runs.ref_logp[block], "cpu", torch.float64, deal, runs.lengths[block]
        objective = PairObjective(loss, *given)
        by_prompt = torch.stack([objective.value(to_columns(logp[block], "cpu", torch.float64)) for logp in policies])
        live = by_prompt[:, : (block.stop - block.start) * runs.prompts]
        values.append(live.unflatten(1, (-1, runs.prompts)).mean(-1))
    return torch.cat(values, 1).flatten().numpy()
