"""The runs of the experiment on sampling: where losses settle, trainings under samplers, and how fast they converge.

Worlds have no mask, since a sampler could draw any response. β = 1 unless said otherwise. All of it is ours; samplers
are those of ``gradlab.lab.samplers``, whose β is that of the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gradlab.experiments.methods import loss_of, train
from gradlab.experiments.questions.frontier import at_levels
from gradlab.lab.descent import recorded_steps, steady
from gradlab.lab.fit import Fit, dpo_reference, fit
from gradlab.lab.samplers import Sampler, pair_weights, sampler_of
from gradlab.lab.settling import settle
from gradlab.lab.training import Training
from gradlab.lab.world import World, draw_pairs, exact_pairs, gaussian_world
from gradlab.losses import pair_loss
from gradlab.theory import bdpo_share_corrected

# Samplers as the experiment calls them. MixP without its normalisation is the form with the closed-form step size.
SAMPLERS = {
    "uniform": "uniform",
    "reference": "reference",
    "on-policy": "on-policy",
    "mixture": "mixture:alpha=0.5",
    "tempered": "tempered:temperature=2",
    "top-k": "top-k:k=10",
    "best-worst": "best-worst:draws=4",
    "mix-r": "mix-r",
    "mix-p": "mix-p:beta={beta}",
    "mix-p, closed-form step": "mix-p:beta={beta},normalised=False",
    "pilaf": "pilaf:beta={beta}",
    "rejection": "rejection:beta={beta}",
    "wpo": "wpo",
    "importance": "importance:how=self-normalised,sampler=on-policy",
    "importance, plain": "importance:how=plain,sampler=on-policy",
    "importance, clipped": "importance:how=clipped,clip=5,sampler=on-policy",
}
FRESH = "fresh"  # 16 fresh pairs in every step
PATH = ("imbalance", "imbalance_all", "corrected")  # means along the training
ARRIVED = 1e-3  # nats from where the loss settles


def law(name: str, beta: float) -> Sampler:
    """Return the sampler that the experiment calls so, for a loss of this β."""
    return sampler_of(SAMPLERS[name].format(beta=float(beta)))


def world_of(reference: str, seed: int, **given: Any) -> World:
    """Return the world of a seed; "trained" is the policy of 300 steps of DPO on 100 pairs, from a uniform one."""
    if reference != "trained":
        return gaussian_world(reference=reference, seed=seed, **given)  # type: ignore[arg-type]
    return dpo_reference(gaussian_world(seed=seed, **given), 300, pairs=100, seed=seed, learning_rate=0.05)


def _kl(logp: Tensor, other: Tensor) -> Tensor:
    return (logp.exp() * (logp - other)).sum(-1).clamp(min=0)


# --- where a loss settles ---


def points(
    loss: str, beta: float, scale: float, reference: str, samplers: Sequence[str], shift: float, prompts: int,
    first_seed: int, seeds: int,
) -> pd.DataFrame:  # fmt: skip
    """Return where a loss settles under each sampler, a row per seed and prompt.

    ``kl_uniform`` is KL from the point under uniform sampling where both have settled, ``kl_ideal`` that from
    π_ref exp(u/β), NaN where it has not settled.
    """
    numbers = range(first_seed, first_seed + seeds)
    worlds = [world_of(reference, seed, scale=scale, shift=shift, prompts=prompts) for seed in numbers]
    ideal = torch.as_tensor(np.stack([world.ideal_logp(beta) for world in worlds]))
    found = {name: settle(worlds, loss_of(loss, beta), law(name, beta)) for name in samplers}
    even, rows = found["uniform"], []
    for name, point in found.items():
        both = point.settled & even.settled
        rows.append(pd.DataFrame({
            "seed": np.repeat(list(numbers), prompts), "prompt": np.tile(np.arange(prompts), seeds), "sampler": name,
            "settled": point.settled.flatten().numpy().astype(float),
            "kl_uniform": _kl(point.logp, even.logp).where(both, torch.nan).flatten().numpy(),
            "kl_ideal": _kl(point.logp, ideal).where(point.settled, torch.nan).flatten().numpy(),
            "residual": point.residual.flatten().numpy(),
        }))  # fmt: skip
    return pd.concat(rows).assign(kind="point", method=loss, beta=beta, scale=scale, reference=reference)


def rounds(reference: str, times: int, samplers: Sequence[str], shift: float, prompts: int, first_seed: int,
           seeds: int) -> pd.DataFrame:  # fmt: skip
    """Return iterative DPO, settled in each round and then its own reference: KL from π_ref exp(t u/β), t = ``times``.

    A row per sampler and seed, with ``kl_ideal`` a mean over prompts; NaN where a prompt has not settled.
    """
    numbers = range(first_seed, first_seed + seeds)
    worlds = [world_of(reference, seed, shift=shift, prompts=prompts, scale=1.0) for seed in numbers]
    ideal = torch.as_tensor(np.stack([world.ideal_logp(1 / times) for world in worlds]))
    rows = []
    for name in samplers:
        moved, settled = worlds, torch.ones(seeds, dtype=torch.bool)
        for _ in range(times):
            point = settle(moved, pair_loss("dpo", beta=1.0), law(name, 1.0))
            settled &= point.settled.all(-1)
            moved = [world.with_reference(logp.numpy()) for world, logp in zip(moved, point.logp, strict=True)]
        reached = torch.as_tensor(np.stack([world.ref_logp for world in moved]))
        away = _kl(reached, ideal).mean(-1).where(settled, torch.nan)
        rows.append(pd.DataFrame({"seed": numbers, "sampler": name, "kl_ideal": away.numpy()}))
    return pd.concat(rows).assign(kind="rounds", method="dpo", beta=1.0, reference=reference, scale=1.0)


# --- trainings ---


def trained(
    method: str, betas: Sequence[float], sampler: str, reference: str, data: str, frozen: bool, moved: int | None,
    training: Training, shift: float, first_seed: int, seeds: int, levels: bool,
) -> pd.DataFrame:  # fmt: skip
    """Return the trainings of one method under one sampler, over β: an end per seed, paths at β = 1, and KL levels.

    data    "100" and the like: so many hard-labelled pairs per prompt; "population": exact soft labels; "fresh": 16
            fresh hard-labelled pairs per prompt in each step.
    frozen  the sampler keeps the weights that it has at the start.
    moved   the reference becomes the policy every so many steps; None: it stays.
    levels  add values at KL levels, β and checkpoints pooled.
    """
    numbers = list(range(first_seed, first_seed + seeds))
    worlds = [world_of(reference, seed, shift=shift) for seed in numbers]
    given: dict[str, Any] = {"pairs": None if data in ("population", FRESH) else int(data)}
    given["batch"] = 16 if data == FRESH else None
    given["reference_every"] = moved
    if frozen:
        given["sampler_every"] = training.steps
    ends, paths = [], []
    for beta in betas:
        fitted = train(method, worlds, training.but(sampler=law(sampler, beta), **given), beta=beta, seeds=numbers)
        rows = measured(fitted, worlds, numbers, law(sampler, beta), given["pairs"], frozen)
        ends.append(_ended(rows).assign(kind="end", beta=beta))
        paths.append(rows.assign(beta=beta))
    found = [*ends]
    if levels:
        every = pd.concat(paths)[["seed", "beta", "step", "kl", "utility_share"]]
        every = every.sort_values(["seed", "beta", "step"])
        at = at_levels(every, ["seed", "beta"], ["utility_share"]).groupby(["seed", "kl"], as_index=False)
        found.append(at[["utility_share"]].mean().rename(columns={"kl": "level"}).assign(kind="level"))
        shown = pd.concat(paths).query("beta == 1")
        found.append(shown[["seed", "step", "beta", *PATH, "kl", "utility_share"]].assign(kind="path"))
    named = {"method": method, "sampler": sampler, "reference": reference, "data": data, "frozen": float(frozen)}
    return pd.concat(found).assign(**named, moved=float(moved or 0))


@steady("cpu")
def measured(
    fitted: Fit, worlds: Sequence[World], seeds: Sequence[int], sampler: Sampler, pairs: int | None, frozen: bool
) -> pd.DataFrame:
    """Return reward, KL and imbalance of every recorded step, a row per seed and step, means over prompts.

    ``imbalance`` is the mean of |log π_l/π_w| over the pairs that the step sees, ``imbalance_all`` over all comparable
    pairs, ``corrected`` the mean of 1 − |1 − 1/LM| over the pairs seen. ``frontier_gap`` is the least KL(π‖π_ref
    exp(u/T)) over T.
    """
    logp = fitted.policies.double()
    utility, ref_logp = (torch.as_tensor(np.stack([getattr(w, n) for w in worlds])) for n in ("utility", "ref_logp"))
    every = torch.as_tensor(np.stack([exact_pairs(world) for world in worlds]))
    comparable = torch.as_tensor(np.stack([world.comparable() for world in worlds])).double()
    data = every
    if pairs is not None:
        drawn = [draw_pairs(world, pairs, seed=seed) for world, seed in zip(worlds, seeds, strict=True)]
        data = torch.as_tensor(np.stack(drawn))
    rows = []
    for step, policy in zip(fitted.steps, logp, strict=True):
        seen = sampler.reweighted(
            data, pair_weights(sampler, logp[0] if frozen else policy, ref_logp, utility), comparable
        )
        seen = seen / seen.sum((-2, -1), keepdim=True)
        size, share = imbalance_of(policy)
        rows.append(pd.DataFrame({
            "seed": seeds, "step": step,
            "imbalance": (seen * size).sum((-2, -1)).mean(-1).numpy(),
            "imbalance_all": (every * size).sum((-2, -1)).mean(-1).numpy(),
            "corrected": (seen * share).sum((-2, -1)).mean(-1).numpy(),
            "frontier_gap": frontier_gap(policy, ref_logp, utility).numpy(),
        }))  # fmt: skip
    history = fitted.history.assign(seed=np.asarray(seeds)[fitted.history["run"]])
    return history[["seed", "step", "kl", "utility", "utility_share"]].merge(pd.concat(rows), on=["seed", "step"])


def imbalance_of(logp: Tensor) -> tuple[Tensor, Tensor]:
    """Return |log π_l/π_w| and the share of it that bDPO corrects, of all pairs, (..., Y, Y) each."""
    win, lose = logp.numpy()[..., :, None], logp.numpy()[..., None, :]
    return torch.as_tensor(np.abs(win - lose)), torch.as_tensor(bdpo_share_corrected(win, lose))


_TEMPERATURES = torch.as_tensor(np.geomspace(0.02, 500, 241))


def frontier_gap(logp: Tensor, ref_logp: Tensor, utility: Tensor) -> Tensor:
    """Return the least mean over prompts of KL(π‖π_ref exp(u/T)) on a grid of T; all (..., X, Y) → (...)."""
    best = torch.full(logp.shape[:-2], torch.inf, dtype=torch.float64)
    for temperature in _TEMPERATURES:
        ideal = torch.log_softmax(ref_logp + utility / temperature, -1)
        best = torch.minimum(best, _kl(logp, ideal).mean(-1))
    return best


def _ended(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the ends, with means along the training (over steps, linear between recorded ones) of ``PATH``."""
    rows = rows.sort_values(["seed", "step"])
    ends = rows.groupby("seed", as_index=False).last()
    ends = ends.assign(end_imbalance=ends["imbalance"], end_corrected=ends["corrected"])
    for name in PATH:
        along = [np.trapezoid(of[name], of["step"]) / of["step"].iloc[-1] for _, of in rows.groupby("seed")]
        ends[name] = along
    return ends


def support(methods: Sequence[str], samplers: Sequence[str], training: Training, first_seed: int,
            seeds: int) -> pd.DataFrame:  # fmt: skip
    """Return how far a training under a sampler ends from the same training under uniform sampling, exact labels."""
    numbers = list(range(first_seed, first_seed + seeds))
    worlds = [gaussian_world(seed=seed) for seed in numbers]
    rows = []
    for method in methods:
        even = fit(worlds, loss_of(method, 1.0), training, seed=numbers).logp.double()
        for name in samplers:
            other = fit(worlds, loss_of(method, 1.0), training.but(sampler=law(name, 1.0)), seed=numbers).logp.double()
            away = _kl(other, even).mean(-1).numpy()
            rows.append(pd.DataFrame({"seed": numbers, "method": method, "sampler": name, "kl_uniform": away}))
    return pd.concat(rows).assign(kind="support", beta=1.0, reference="uniform", scale=4.0)


# --- speed ---


def speed(
    loss: str, scale: float, reference: str, samplers: Sequence[str], rates: Sequence[float], steps: int,
    shift: float, prompts: int, first_seed: int, seeds: int,
) -> pd.DataFrame:  # fmt: skip
    """Return the convergence of gradient descent with exact labels to where the loss settles, a row per seed and rate.

    rates  learning rates in multiples of (n − 1)/(2β²), at which mix-P without normalisation should be quadratic.

    ``arrived`` is the first step at a mean KL below 1e-3, NaN where that takes more steps; ``order`` the order of
    convergence: the slope of log e_(t+1) on log e_t, e the largest error of log π, between 0.5 and 1e-9 per prompt.
    Rows of kind "curve" have the mean KL over seeds at each step, at the rate that arrives first on average.
    """
    beta, numbers = 1.0, list(range(first_seed, first_seed + seeds))
    worlds = [world_of(reference, seed, scale=scale, shift=shift, prompts=prompts) for seed in numbers]
    unit = (worlds[0].responses - 1) / (2 * beta**2)
    rows = []
    for name in samplers:
        goal = settle(worlds, loss_of(loss, beta), law(name, beta))
        of_rates, curves = [], {}
        for rate in rates:
            recipe = Training(optimizer="gd", learning_rate=rate * unit, steps=steps, record=2 * steps,
                              sampler=law(name, beta), engine="eager")  # fmt: skip
            try:
                fitted = fit(worlds, loss_of(loss, beta), recipe, seed=numbers)
            except (FloatingPointError, ValueError) as error:
                if isinstance(error, ValueError) and "must return finite weights" not in str(error):
                    raise
                of_rates.append(pd.DataFrame({"seed": numbers, "rate": rate, "arrived": np.nan, "order": np.nan}))
                continue  # it diverged: the policy, or weights that are not normalised, overflowed
            policies = fitted.policies.double()
            away = _kl(policies, goal.logp).where(goal.settled, torch.nan).mean(-1).numpy()  # (S, R)
            curves[rate] = away
            there = np.isfinite(away) & (away < ARRIVED)
            first = np.where(there.any(0), fitted.steps[there.argmax(0)], np.nan)
            of_rates.append(pd.DataFrame({
                "seed": numbers, "rate": rate, "arrived": first,
                "order": _order(policies, goal.logp, fitted.steps, goal.settled),
            }))  # fmt: skip
        both = pd.concat(of_rates)
        best = both.fillna({"arrived": steps + 1}).groupby("rate")["arrived"].mean().idxmin()
        rows.append(both.assign(kind="speed", sampler=name, best=(both["rate"] == best).astype(float)))
        if best in curves:
            kept = recorded_steps(steps, 2 * steps)
            mean = {"kind": "curve", "sampler": name, "rate": best, "step": kept, "kl": curves[best].mean(1)}
            rows.append(pd.DataFrame(mean))
    return pd.concat(rows).assign(method=loss, beta=beta, scale=scale, reference=reference)


def _order(policies: Tensor, goal: Tensor, steps: np.ndarray, settled: Tensor) -> np.ndarray:
    """Return each run's order of convergence, (R,), a mean over prompts; NaN where no prompt shows one."""
    error = (policies - goal).abs().amax(-1).where(settled, torch.nan).numpy()  # (S, R, X)
    orders = np.full(error.shape[1:], np.nan)
    follows = np.diff(steps) == 1
    for at in np.ndindex(*orders.shape):
        before, after = error[:-1][(slice(None), *at)][follows], error[1:][(slice(None), *at)][follows]
        use = (before < 0.5) & (after > 1e-9) & (after < before)
        x, y = np.log(before[use]), np.log(after[use])
        if len(x) >= 2 and np.ptp(x) > 0:
            orders[at] = np.polyfit(x, y, 1)[0]
    with np.errstate(all="ignore"):
        there = np.isfinite(orders).sum(-1)
        return np.where(there, np.nansum(orders, -1) / np.maximum(there, 1), np.nan)
