"""Every registered loss in worlds that a declared distribution draws: runs for the claims that the atlas transports.

The distribution is that of ``worlds_drawn``; each world has its own seeds, and each loss is trained in it over a few β.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from gradlab.atlas.endpoints import endpoints
from gradlab.experiments.questions.atlas_runs import Method
from gradlab.experiments.questions.frontier import at_levels
from gradlab.experiments.questions.worlds_drawn import DrawnWorld, dose, drawn
from gradlab.lab.descent import steady
from gradlab.lab.fit import fit
from gradlab.lab.training import Training

VALUES = ["utility_share", "unobserved_mass"]
WORLD = ["world", "dose", "utility_kind", "mask", "policy", "pairs", "reference"]
SETTINGS: dict[str, Any] = {
    "worlds": 60,
    "betas": [0.1, 0.5, 1.0, 2.0],
    "training": Training(optimizer="adam", learning_rate=0.05, steps=500, record=15),
    "first_seed": 3000,
    "seeds": 2,
}
QUICK: dict[str, Any] = {
    "worlds": 3,
    "betas": [0.5, 1.0],
    "training": SETTINGS["training"].but(steps=100),
    "first_seed": 0,
}


@steady("cpu")
def in_worlds(loss: str, preset: str, hyper: Mapping[str, float], **settings: Any) -> pd.DataFrame:
    """Return a method's rows in drawn worlds: ends of training per β, whose ``kl`` is empty, then the KL levels.

    At a level β and checkpoints are pooled as in *frontier*, and ``beta`` is empty. A group of worlds in which some
    policy stops being finite has no rows.
    """
    method = Method(loss, preset, hyper)
    groups: dict[tuple[str, int], list[DrawnWorld]] = {}
    for number in range(settings["worlds"]):
        world = drawn(number, settings["first_seed"], settings["seeds"])
        groups.setdefault((world.policy, world.pairs), []).append(world)
    found = []
    for (policy, pairs), worlds in sorted(groups.items()):
        training = settings["training"].but(policy=policy, pairs=pairs)
        betas: list[float | None] = settings["betas"] if method.strength else [None]
        paths = [rows for beta in betas if (rows := _path(method, beta, worlds, training)) is not None]
        found += _ends_and_levels(pd.concat(paths), worlds) if paths else []
    return pd.concat(found, ignore_index=True).assign(loss=loss, preset=preset)


def _path(method: Method, beta: float | None, worlds: list[DrawnWorld], training: Training) -> pd.DataFrame | None:
    """Return the endpoints along the trainings at one β; None where a policy stops being finite."""
    made = [one for world in worlds for one in world.worlds()]
    seeds = [seed for world in worlds for seed in world.seeds]
    loss = method.make(beta)
    try:
        rows = endpoints(fit(made, loss, training, seed=seeds), made, training, seeds)
    except FloatingPointError:
        return None
    return rows.rename(columns={"kl_to_reference": "kl"}).assign(beta=np.nan if beta is None else beta)


def _ends_and_levels(paths: pd.DataFrame, worlds: list[DrawnWorld]) -> list[pd.DataFrame]:
    columns = pd.DataFrame([
        {**{name: value for name, value in world.columns().items() if name in WORLD},
         "dose": float(np.mean([dose(one) for one in world.worlds()])), "seed": seed}
        for world in worlds for seed in world.seeds
    ])  # fmt: skip
    ends = paths[paths["step"] == paths["step"].max()].assign(kl=np.nan)
    ordered = paths.assign(at=paths["beta"].fillna(0.0)).sort_values(["seed", "at", "step"])
    levels = at_levels(ordered, ["seed", "at"], VALUES).groupby(["seed", "kl"], as_index=False)[VALUES].mean()
    both = [ends[["seed", "beta", "kl", *VALUES]], levels.assign(beta=np.nan)]
    return [columns.merge(rows, on="seed") for rows in both]
