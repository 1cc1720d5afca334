"""Training of policies on a line by pair losses, unchanged, on the log densities of one coordinate.

A loss that looks at log π itself sees the coordinate: a log density may be above 0, and then Balanced-DPO's weights
leave [0, 1]. Such a training is refused, unless it is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gradlab.checks import count, several, shown
from gradlab.lab.descent import recorded_steps, steady
from gradlab.lab.line.bump_world import LineWorld
from gradlab.lab.line.coordinates import Coordinate, scaled
from gradlab.lab.line.interval import OFF
from gradlab.lab.line.line_policies import LinePolicy, line_policy
from gradlab.lab.optimizers import optimizer_of
from gradlab.lab.training import Training, recipe_of, refuse_sampler
from gradlab.losses import BatchLoss, LogisticLoss, PairLogps, PairLoss
from gradlab.losses.pair import differentiated, reads_lengths, slopes

_ROUNDING = 1e-9  # of a weight
LINE_TRAINING = Training(optimizer="adam", learning_rate=0.02, steps=400, pairs=256, record=20)


@dataclass(frozen=True, eq=False)
class LineFit:
    """Policies that were trained on a line.

    policy    their family.
    theta     parameters at the end, (runs, k).
    logp      log π in y at the nodes of the worlds' interval, (runs, n).
    history   a row per run and recorded step, from 0 on, with the columns run, step and

              utility  E_π[u] in nats, NaN where π has left the interval.
              kl       KL(π‖π_ref) in nats, likewise.
              mass     the integral of π over the interval.
              outside  the share of pairs whose λ_w is outside [0, 1] at this step.
              turned   the share of pairs with both log densities above 0: Balanced-DPO's weights are then
                       within [0, 1], but with the sides exchanged.
              outside_so_far  the mean of ``outside`` over all steps up to this one.
              broken   whether a gradient was not finite; from then on the run has not moved.
    """

    policy: LinePolicy
    theta: Tensor
    logp: Tensor
    history: pd.DataFrame

    @property
    def ends(self) -> pd.DataFrame:
        """Return the last row of every run, in the order of the runs."""
        return self.history[self.history["step"] == self.history["step"].max()].reset_index(drop=True)


def fit_line(
    worlds: LineWorld | Sequence[LineWorld],
    loss: PairLoss,
    policy: LinePolicy | str = "gaussian",
    coordinates: Coordinate | Sequence[Coordinate] | None = None,
    training: Training = LINE_TRAINING,
    *,
    seed: int | Sequence[int] = 0,
    anyway: bool = False,
    **changes: Any,
) -> LineFit:
    """Train a policy per world by a pair loss on log densities in a coordinate.

    worlds       one per run, or one for all; with one reference and one interval.
    coordinates  one per run, or one for all; None: y. Responses are the same in every coordinate, and so are the
                 policy's parameters: only the densities that the loss sees change.
    training     of its fields count optimizer, learning_rate, steps, pairs (must be given), and record.
    seed         one per run, or that of the first run; it draws the pairs, and the network's first weights.
    anyway       train although weights leave [0, 1], or values are not finite; the history counts both.

    Where weights leave [0, 1], Balanced-DPO's have a pole, at log π_w + log π_l = 0. A run whose pairs come near to it
    makes rounding errors larger at every step, so that its numbers may not repeat on another machine.

    Raises ValueError, in one line, where the loss is not defined on these densities, or the policy leaves the interval,
    unless ``anyway``.
    """
    of_runs = several("worlds", worlds, LineWorld, "a LineWorld, such as bump_world(0)")
    coordinates = scaled(1.0) if coordinates is None else coordinates
    chosen = several("coordinates", coordinates, Coordinate, "a Coordinate, such as scaled(10)")
    if isinstance(seed, Sequence) and not isinstance(seed, (str, bytes)):
        seeds = [count("seed", number) for number in seed]
        runs = max(len(of_runs), len(chosen), len(seeds))
    else:
        runs = max(len(of_runs), len(chosen))
        seeds = [count("seed", seed) + run for run in range(runs)]
    of_runs, chosen = of_runs * (runs if len(of_runs) == 1 else 1), chosen * (runs if len(chosen) == 1 else 1)
    if not len(of_runs) == len(chosen) == len(seeds):
        got = f"{len(of_runs)}, {len(chosen)}, {len(seeds)}"
        raise ValueError(f"worlds, coordinates and seed must be one, or one per run, got {got}")
    if len({(id(world.reference), world.interval) for world in of_runs}) > 1:
        raise ValueError("worlds must share one reference and one interval in one fit_line")
    if isinstance(loss, (BatchLoss, type)) or not callable(loss):
        raise ValueError(f"loss must be a loss of pairs, such as DPO(beta=1.0), got {shown(loss)}")
    training = recipe_of(training, changes)
    refuse_sampler(training, "a policy on a line")
    pairs = count("pairs", training.pairs, least=1)
    return _Run(of_runs, loss, line_policy(policy), chosen, training, seeds, pairs, anyway).trained()


class _Run:
    """A batch of trainings that go step by step."""

    def __init__(
        self, worlds: list[LineWorld], loss: PairLoss, policy: LinePolicy, chosen: list[Coordinate],
        training: Training, seeds: list[int], pairs: int, anyway: bool,
    ) -> None:  # fmt: skip
        self.worlds, self.loss, self.policy, self.chosen = worlds, loss, policy, chosen
        self.training, self.anyway = training, anyway
        self.reference, self.interval = worlds[0].reference, worlds[0].interval
        drawn = [world.pairs(pairs, one) for world, one in zip(worlds, seeds, strict=True)]
        win, lose = (torch.stack(side) for side in zip(*drawn, strict=True))
        self.y = torch.cat([win, lose], 1)
        self.slope = torch.stack([to.log_slope(y) for to, y in zip(chosen, self.y, strict=True)])
        self.ref = self.reference.log_density(self.y) - self.slope
        self.theta = policy.start(self.reference, seeds)
        self.utility = torch.stack([world.utility(self.interval.nodes) for world in worlds])
        self.broken = torch.zeros(len(worlds), dtype=torch.bool)
        self.strict = not (getattr(loss, "winner_down", False) or getattr(loss, "loser_up", False))
        self.lengths = torch.ones((), dtype=torch.float64) if reads_lengths(loss) else None

    @steady("cpu")
    def trained(self) -> LineFit:
        """Return the policies after all steps."""
        steps = self.training.steps
        rule = optimizer_of(self.training.optimizer)
        factors = rule.factors(self.training.learning_rate, steps)
        memory: Sequence[Tensor] = [torch.zeros_like(self.theta) for _ in range(rule.memories)]
        keep, rows, outside_sum = set(recorded_steps(steps, self.training.record)), [], 0.0
        for step in range(steps + 1):
            gradient, outside, turned = self.gradient()
            outside_sum = outside_sum + outside
            if step in keep or step == steps:
                rows.append(self.row(step, outside, turned, outside_sum / (step + 1)))
            if step == steps:
                break
            theta, memory = rule.update(self.theta, gradient, memory, factors[step], torch.sqrt)
            self.theta = torch.where(self.broken[:, None], self.theta, theta)
        history = pd.concat(rows).sort_values(["run", "step"], ignore_index=True)
        if not self.anyway:
            self._stay_inside(history)
        return LineFit(self.policy, self.theta, self.at_nodes(), history)

    def gradient(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of the mean losses, (runs, k), and the shares of pairs outside and turned, (runs,)."""
        theta = self.theta.requires_grad_()
        with torch.enable_grad():
            logp = self.policy.log_density(theta, self.y, self.reference) - self.slope
        pairs = self.pairs(logp.detach())
        at_win, at_lose, weight = loss_slopes(self.loss, pairs)
        outside = ((weight < -_ROUNDING) | (weight > 1 + _ROUNDING)).double()
        turned = ((pairs.win > 0) & (pairs.lose > 0)).double().mean(1)
        if not self.anyway:
            self._refuse(pairs, at_win, at_lose, weight, outside)
        pull = torch.cat([at_win, at_lose], 1) / at_win.shape[1]
        (gradient,) = torch.autograd.grad(logp, theta, pull)
        self.theta = theta.detach()
        self.broken = self.broken | ~gradient.isfinite().all(1)
        return torch.where(self.broken[:, None], 0.0, gradient), outside.mean(1), turned

    def pairs(self, logp: Tensor) -> PairLogps:
        """Return the pairs with log densities in their coordinates, (runs, pairs)."""
        half = logp.shape[1] // 2
        win, lose, ref_win, ref_lose = (side[:, part] for side in (logp, self.ref)
                                        for part in (slice(half), slice(half, None)))  # fmt: skip
        return PairLogps(win, lose, ref_win, ref_lose, self.lengths, self.lengths)

    def at_nodes(self) -> Tensor:
        """Return log π at the interval's nodes, (runs, n)."""
        return self.policy.log_density(self.theta, self.interval.nodes, self.reference)

    def row(self, step: int, outside: Tensor, turned: Tensor, so_far: Tensor) -> pd.DataFrame:
        """Return the measures of every run at this step."""
        logp = self.at_nodes()
        density = logp.exp()
        mass = self.interval.integral(density)
        there = (mass - 1).abs() <= OFF
        utility = self.interval.integral(density * self.utility)
        kl = self.interval.integral(density * (logp - self.worlds[0].ref_logp))
        columns = {
            "utility": torch.where(there, utility, torch.nan), "kl": torch.where(there, kl, torch.nan), "mass": mass,
            "outside": outside, "turned": turned, "outside_so_far": so_far, "broken": self.broken,
        }  # fmt: skip
        return pd.DataFrame({name: column.numpy() for name, column in columns.items()}).assign(
            run=np.arange(len(mass)), step=step
        )[["run", "step", *columns]]

    def _refuse(self, pairs: PairLogps, at_win: Tensor, at_lose: Tensor, weight: Tensor, outside: Tensor) -> None:
        """Raise ValueError where slopes are not finite, or weights leave [0, 1] though the loss's do not."""
        finite = at_win.isfinite() & at_lose.isfinite()
        bad = ~finite | (outside.bool() if self.strict else torch.zeros_like(finite))
        if not bool(bad.any()):
            return
        run, pair = map(int, bad.nonzero()[0])
        where = f"log densities {float(pairs.win[run, pair]):.3g} and {float(pairs.lose[run, pair]):.3g}"
        called = getattr(self.loss, "name", "this function")
        found = f"λ_w = {float(weight[run, pair]):.3g}" if bool(finite[run, pair]) else "no finite slope"
        raise ValueError(
            f"loss must be defined on densities, with λ_w in [0, 1]; {called} in the coordinate "
            f"{self.chosen[run].name} has {found} at {where}, since a log density, unlike a log-probability, may be "
            "above 0: use relative-bdpo, or fixed-weight (λ = ½), or train with anyway=True"
        )

    def _stay_inside(self, history: pd.DataFrame) -> None:
        off = history[~((history["mass"] - 1).abs() <= OFF)]
        if len(off):
            first = off.iloc[0]
            raise ValueError(
                f"policy must integrate to one on [{self.interval.low:g}, {self.interval.high:g}], got a total of "
                f"{first['mass']:.6g} in run {first['run']:.0f} at step {first['step']:.0f}: it has left the interval, "
                "or is narrower than its panels"
            )


def loss_slopes(loss: PairLoss, pairs: PairLogps) -> tuple[Tensor, Tensor, Tensor]:
    """Return ∂L/∂log π_w, ∂L/∂log π_l, and the winner's weight λ_w, each in the pairs' shape.

    λ_w = s_w/(s_w − s_l), with the slopes s of the margin of a ``LogisticLoss``, or else of the loss; ½ where neither
    side has a slope.
    """
    at_win, at_lose = slopes(differentiated(loss), pairs)
    total = at_win - at_lose
    weight = torch.where((at_win == 0) & (at_lose == 0), 0.5, at_win / total)
    if isinstance(loss, LogisticLoss):
        pull = loss.slope(loss.margin(pairs).detach())
        at_win, at_lose = pull * at_win, pull * at_lose
    return at_win, at_lose, weight
