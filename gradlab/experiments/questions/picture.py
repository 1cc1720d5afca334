"""What do the methods learn? The picture world, every policy side by side (exact data, one seed, mask 0.2)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gradlab import plotting
from gradlab.experiments.contrasts import Judged
from gradlab.experiments.experiment import FIRST_SEED, Experiment
from gradlab.experiments.methods import METHODS, train
from gradlab.lab.training import Training
from gradlab.lab.world import gaussian_world

TRAINING = Training(optimizer="adam", learning_rate=0.05, steps=500, record=1)  # exact data
SETTINGS: dict[str, Any] = {
    "methods": list(METHODS), "policies": ["free", "shared"], "mask_rate": 0.2, "first_seed": FIRST_SEED,
    "training": TRAINING,
}  # fmt: skip
QUICK: dict[str, Any] = {"first_seed": 0, "training": TRAINING.but(steps=100)}


def parts(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one part for the world, then one per method and policy."""
    shared = {key: settings[key] for key in ("mask_rate", "first_seed", "training")}
    methods = [
        {"method": method, "policy": policy} for policy in settings["policies"] for method in settings["methods"]
    ]
    return [{**one, **shared} for one in [{"method": "world", "policy": ""}, *methods]]


def run_part(method: str, policy: str, mask_rate: float, first_seed: int, training: Training) -> pd.DataFrame:
    """Return one row per cell of a panel: ``panel``, ``policy``, ``prompt``, ``response``, ``value``."""
    world = gaussian_world(mask_rate=mask_rate, seed=first_seed)
    if method == "world":
        panels = {
            "utility": world.utility, "observed": world.observed.astype(float), "reference": np.exp(world.ref_logp),
            "ideal": np.exp(world.ideal_logp()),
        }  # fmt: skip
    else:
        fitted = train(method, [world], training.but(policy=policy), seeds=[first_seed])
        panels = {method: fitted.logp[0].exp().numpy()}
    prompt, response = np.indices(world.utility.shape).reshape(2, -1)
    return pd.concat([
        pd.DataFrame({"panel": name, "policy": policy, "prompt": prompt, "response": response, "value": values.ravel()})
        for name, values in panels.items()
    ], ignore_index=True)  # fmt: skip


def verdict(frame: pd.DataFrame, settings: dict[str, Any]) -> list[Judged]:
    """Return no verdicts: these are pictures."""
    return []


_HOW = (
    "Rows of a panel are prompts, columns responses. First come the utility, which responses the data cover "
    "(dark: never seen), the reference, and the ideal policy π_ref exp(u/β); then what each method learns from all "
    "observed pairs with exact labels (PPO on the true utility sees no pairs). All probabilities are on one "
    "logarithmic scale, on which the uniform reference, 0.05, is the middle grey: darker responses became less "
    "probable than under it, lighter ones more. What lies at or below 0.001 is all equally dark. Crosses mark "
    "unobserved responses. PPO on the true utility looks like the ideal policy, which is where it comes to rest."
)
CAPTIONS = {"picture-free": "Free logits. " + _HOW, "picture-shared": "Shared parameters. " + _HOW}


def figures(frame: pd.DataFrame) -> dict[str, Figure]:
    """Draw the heatmaps, one figure per policy."""
    world = frame[frame["policy"] == ""]
    return {
        f"picture-{policy}": plotting.heatmaps(pd.concat([world, frame[frame["policy"] == policy]]))
        for policy in frame["policy"].unique()
        if policy
    }


EXPERIMENT = Experiment(
    name="picture",
    settings=SETTINGS,
    quick=QUICK,
    parts=parts,
    run_part=run_part,
    verdict=verdict,
    figures=figures,
    captions=CAPTIONS,
)
