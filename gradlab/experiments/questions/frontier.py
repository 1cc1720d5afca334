"""At equal distance from the reference, does Balanced-DPO win? A sweep of β for every loss.

Reward and unobserved mass against KL. Claims: grid-reward and grid-unobserved, their controls at equal KL.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from gradlab import plotting
from gradlab.experiments.contrasts import Contrast, Judged, judged
from gradlab.experiments.experiment import Experiment
from gradlab.experiments.methods import history, train
from gradlab.lab import metrics
from gradlab.lab.training import Training
from gradlab.lab.world import gaussian_world

TRAINING = Training(optimizer="adam", learning_rate=0.05, steps=500, pairs=100, record=20)
SETTINGS: dict[str, Any] = {
    "methods": ["dpo", "bdpo", "nbdpo", "nbdpo-symmetric", "fixed λ=0.4", "fixed λ=0.6", "permuted λ"],
    "betas": [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0],
    "mask_rates": [0.0, 0.2, 0.4],
    "policies": ["free", "shared"],
    "training": TRAINING,
    "seeds": 8,
}
QUICK: dict[str, Any] = {
    "betas": [0.2, 1.0, 5.0],
    "mask_rates": [0.0, 0.4],
    "policies": ["free"],
    "training": TRAINING.but(steps=100),
    "seeds": 2,
}

# KL levels at which methods are compared, in nats; log 20 = 3.0 is the most that is possible from a uniform reference.
LEVELS = (0.25, 0.5, 1.0, 1.5, 2.0)


def parts(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one part per method, β, mask rate and policy, and parts with the ideal policy in closed form."""
    shared = {key: settings[key] for key in ("training", "seeds")}
    return [
        {"method": method, "beta": beta, "mask_rate": mask_rate, "policy": policy, **shared}
        for policy in settings["policies"]
        for mask_rate in settings["mask_rates"]
        for method in (*settings["methods"], "ideal")
        for beta in (settings["betas"] if method != "ideal" else np.geomspace(0.1, 10, 25).tolist())
    ]


def run_part(method: str, beta: float, mask_rate: float, policy: str, training: Training, seeds: int) -> pd.DataFrame:
    """Return reward, KL and unobserved mass along one method's training at one β."""
    worlds = [gaussian_world(mask_rate=mask_rate, seed=seed) for seed in range(seeds)]
    keys = {"method": method, "beta": beta, "mask": mask_rate, "policy": policy}
    if method == "ideal":
        stacked = [torch.as_tensor(np.stack([getattr(w, name) for w in worlds])) for name in ("utility", "observed")]
        ref_logp = torch.as_tensor(np.stack([world.ref_logp for world in worlds]))
        ideal = torch.as_tensor(np.stack([world.ideal_logp(beta) for world in worlds]))
        frame = pd.DataFrame(metrics.summary(ideal, stacked[0], stacked[1], ref_logp, beta)).assign(
            seed=range(seeds), step=training.steps, **keys
        )
    else:
        fitted = train(method, worlds, training.but(policy=policy), beta=beta, seeds=range(seeds))
        frame = history(fitted, range(seeds), **keys)
    return frame[
        [*keys, "seed", "step", "kl", "utility", "utility_share", "unobserved_mass", "unobserved_mass_reference"]
    ]


_RUN = ["method", "mask", "policy", "seed"]
_VALUES = ["utility_share", "unobserved_mass"]


def at_equal_kl(frame: pd.DataFrame) -> pd.DataFrame:
    """Return reward and unobserved mass of each method and seed at the KL levels, β and checkpoints pooled.

    There is one training path per β. Every path that passes a level is interpolated there between its checkpoints, and
    the paths' values are averaged, so nothing is selected by its reward. Levels that no path reaches are missing.
    """
    trained = frame[frame["method"] != "ideal"].sort_values("step")
    paths = trained.groupby([*_RUN, "beta"], sort=False)
    return _each(paths).groupby([*_RUN, "kl"], as_index=False)[_VALUES].mean()


def ends_at_equal_kl(frame: pd.DataFrame) -> pd.DataFrame:
    """Return reward and unobserved mass at the KL levels, from ends of training: one curve per method and seed."""
    ends = frame[(frame["method"] != "ideal") & (frame["step"] == frame["step"].max())]
    curves = ends.sort_values("beta", ascending=False).groupby(_RUN, sort=False)
    return _each(curves)


def _each(paths: Any) -> pd.DataFrame:
    """Return ``_at_levels`` of every group of a ``groupby``, with the group's key."""
    found = pd.concat({key: _at_levels(path) for key, path in paths}, names=list(paths.keys))
    return found.reset_index(level=-1, drop=True).reset_index()


def _at_levels(path: pd.DataFrame) -> pd.DataFrame:
    """Return one path's values where it first passes each KL level; the way back of a path that turns is ignored."""
    farthest = np.maximum.accumulate(path["kl"].to_numpy())
    rising = np.flatnonzero(np.diff(farthest, prepend=-1.0) > 0)
    reach = farthest[rising]
    levels = [level for level in LEVELS if reach[0] <= level <= reach[-1]]
    values = {name: np.interp(levels, reach, path[name].to_numpy()[rising]) for name in _VALUES}
    return pd.DataFrame({"kl": levels, **values})


def verdict(frame: pd.DataFrame, settings: dict[str, Any]) -> list[Judged]:
    """Compare bDPO with DPO, and with the other controls, at equal KL from the reference."""
    rows = list[Judged]()
    ways = (
        (at_equal_kl(frame), "β and checkpoints pooled"),
        (ends_at_equal_kl(frame), "ends of training only, as drawn (added after the first results)"),
    )
    for claim, value, margin, lower in (
        ("grid-reward", "utility_share", 0.01, False),
        ("grid-unobserved", "unobserved_mass", 0.005, True),
    ):
        for levels, how in ways:
            for baseline, words in (("dpo", "DPO"), ("permuted λ", "λ permuted among the pairs")):
                both = _overlap(levels.query("mask > 0") if lower else levels, "bdpo", baseline)
                rows += judged(both, [Contrast(
                    claim=claim, statement=f"bDPO against {words} at equal KL, {how}", method="bdpo",
                    baseline=baseline, value=value, by=("mask", "policy", "kl"), margin=margin, lower_is_better=lower,
                    role="robustness",
                    complete=False,
                )])  # fmt: skip
    return rows


def _overlap(levels: pd.DataFrame, method: str, baseline: str) -> pd.DataFrame:
    """Return the levels that both methods reach, with at least two seeds in common."""
    both = levels[levels["method"].isin((method, baseline))]
    cell = ["mask", "policy", "kl"]
    both = both[both.groupby([*cell, "seed"])["method"].transform("nunique") == 2]
    return both[both.groupby(cell)["seed"].transform("nunique") >= 2]


CAPTIONS = {
    "frontier-reward": (
        "Expected utility against KL from the reference as β falls from 10 to 0.1: means over seeds at the end of "
        "training, 100 pairs per prompt, free logits; the ring marks the paper's β = 1. At the end of training, a "
        "method is better where its curve lies above. The dotted curve is the theorem: π_ref exp(u/β) is the best "
        "possible trade, which DPO reaches for every β with all pairs and exact labels, and no policy lies above it. "
        "The table also judges early checkpoints, pooled with these ends."
    ),
    "frontier-unobserved": "The same runs: mass on unobserved responses against KL from the reference.",
}


def figures(frame: pd.DataFrame) -> dict[str, Figure]:
    """Draw both frontiers, free logits."""
    ends = frame[(frame["step"] == frame["step"].max()) & (frame["policy"] == "free")]
    return {
        "frontier-reward": plotting.frontier(ends, "utility", "expected utility (nats)"),
        "frontier-unobserved": plotting.frontier(
            ends.query("mask > 0"), "unobserved_mass", "mass on unobserved responses"
        ),
    }


EXPERIMENT = Experiment(
    name="frontier",
    settings=SETTINGS,
    quick=QUICK,
    parts=parts,
    run_part=run_part,
    verdict=verdict,
    figures=figures,
    captions=CAPTIONS,
)
