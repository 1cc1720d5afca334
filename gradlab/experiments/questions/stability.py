"""Does Balanced-DPO train more stably? Ten times the budget: does the policy settle?

Theory: bDPO's margin is bounded, so it has an interior fixed point only where preferences are weak against that bound
(for a pair, |Δu| < β|log π_ref| of the right side); elsewhere the logits drift for ever. Claim: grid-stability.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gradlab import plotting
from gradlab.experiments.contrasts import Contrast, Judged, judged
from gradlab.experiments.experiment import Experiment
from gradlab.experiments.methods import METHODS, history, train
from gradlab.lab.training import Training
from gradlab.lab.world import gaussian_world

TRAINING = Training(optimizer="adam", learning_rate=0.05, steps=5000, pairs=100, record=24)
SETTINGS: dict[str, Any] = {
    "methods": list(METHODS),
    "exact_methods": ["dpo", "bdpo", "bdpo at 2β", "fixed λ=0.5", "permuted λ"],  # also on exact data
    "mask_rates": [0.0, 0.2, 0.4],
    "training": TRAINING,
    "seeds": 5,
    # The map: where declared worlds lie against the bound, and whether their policies settle. Exact data.
    "map_methods": ["dpo", "bdpo", "nbdpo"],
    "map_scales": [1.0, 2.0, 4.0, 8.0],
    "map_sigmas": [1.5, 3.0, 6.0],
}
QUICK: dict[str, Any] = {
    "methods": ["dpo", "bdpo", "bdpo at 2β", "fixed λ=0.5", "permuted λ", "nbdpo"],
    "mask_rates": [0.0, 0.4], "training": TRAINING.but(steps=400), "seeds": 2, "map_scales": [1.0, 8.0],
}  # fmt: skip


def parts(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return parts with long runs on the picture world, and on the declared Gaussian worlds for the map."""
    training = settings["training"]
    exact = training.but(pairs=None)
    long = [
        {
            "method": method, "mask_rate": mask_rate, "training": recipe, "worlds": [[4.0, 3.0]],
            "seeds": settings["seeds"],
        }
        for recipe, methods in ((training, settings["methods"]), (exact, settings["exact_methods"]))
        for mask_rate in settings["mask_rates"]
        for method in methods
    ]  # fmt: skip
    grid = [[scale, sigma] for scale in settings["map_scales"] for sigma in settings["map_sigmas"]]
    mapped = [
        {"method": method, "mask_rate": 0.0, "training": exact, "worlds": grid, "seeds": 1}
        for method in settings["map_methods"]
    ]
    return long + mapped


def run_part(method: str, mask_rate: float, training: Training, worlds: list[list[float]], seeds: int) -> pd.DataFrame:
    """Return reward along training, and how far the policy still moves.

    ``drift`` at a recorded step is the mean total variation distance between the policy there and at the recorded step
    nearest to half as many steps: 0 for a policy that has settled. ``beyond_bound`` is the share of a world's pairs
    with |Δu| at or beyond β|log π_ref|: these have no interior fixed point under bDPO.
    """
    cells = [(scale, sigma, seed) for scale, sigma in worlds for seed in range(seeds)]
    built = [gaussian_world(scale=scale, sigma=sigma, mask_rate=mask_rate, seed=seed) for scale, sigma, seed in cells]
    seed_list = [seed for _, _, seed in cells]
    fitted = train(method, built, training, seeds=seed_list)
    prob = fitted.policies.exp()
    half = np.abs(fitted.steps[:, None] / 2 - fitted.steps[None, :]).argmin(1)
    drift = (0.5 * (prob - prob[half]).abs().sum(-1).mean(-1)).numpy()  # (S, R)
    beyond = []
    for world in built:
        gap = np.abs(world.utility[:, :, None] - world.utility[:, None, :])
        comparable = world.comparable()
        beyond.append((gap >= -world.ref_logp[:, :, None])[comparable].mean())
    frame = history(
        fitted, seed_list, method=method, mask=mask_rate,
        data=f"{training.pairs} pairs" if training.pairs else "exact",
        kind="map" if len(worlds) > 1 else "long",
    )  # fmt: skip
    run = fitted.history["run"].to_numpy()
    frame["scale"], frame["sigma"] = np.array(cells)[run, 0], np.array(cells)[run, 1]
    frame["drift"] = drift[np.searchsorted(fitted.steps, frame["step"]), run]
    frame["beyond_bound"] = np.array(beyond)[run]
    keys = ["kind", "method", "mask", "data", "scale", "sigma", "seed", "step"]
    return frame[[*keys, "utility_share", "unobserved_mass", "drift", "beyond_bound"]]


def ends(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the end of each long run, with ``lost``: the best reward on the way minus the last."""
    long = frame[frame["kind"] == "long"]
    keys = ["method", "mask", "data", "seed"]
    best = long.groupby(keys)["utility_share"].max().rename("best").reset_index()
    last = long[long["step"] == long["step"].max()].merge(best, on=keys)
    return last.assign(lost=last["best"] - last["utility_share"])


_DRIFT = {"claim": "grid-stability", "value": "drift", "by": ("mask", "data"), "margin": 0.005, "lower_is_better": True}
_LOST = {**_DRIFT, "value": "lost", "margin": 0.01}
CONTRASTS = [
    Contrast(statement=statement, method=method, baseline=baseline, role=role, **shared)
    for statement, method, baseline, role, shared in (
        ("settles better (drift over the last half), bDPO against DPO", "bdpo", "dpo", "primary", _DRIFT),
        ("settles better, bDPO at 2β against DPO", "bdpo at 2β", "dpo", "robustness", _DRIFT),
        ("settles better, bDPO against a constant λ = ½", "bdpo", "fixed λ=0.5", "robustness", _DRIFT),
        ("settles better, bDPO against λ permuted among the pairs", "bdpo", "permuted λ", "robustness", _DRIFT),
        ("loses less of its best reward by the end, bDPO against DPO", "bdpo", "dpo", "robustness", _LOST),
    )
]


def verdict(frame: pd.DataFrame, settings: dict[str, Any]) -> list[Judged]:
    """Return verdicts at ten times the budget of the other experiments."""
    return judged(ends(frame), CONTRASTS)


CAPTIONS = {
    "stability": (
        "Ten times the budget. Top: share of the reachable reward; bottom: drift, the total variation distance between "
        "the policy and that recorded nearest to half as many steps (it falls to 0 where training settles). "
        "Columns: mask rate; 100 pairs per prompt; mean over seeds with 95% bands (t)."
    ),
    "stability-map": (
        "Where bDPO cannot settle. Each mark is a declared Gaussian world (all pairs, exact labels). x axis: the share "
        "of its pairs whose preference is at or beyond β|log π_ref|, so that bDPO has no interior fixed point for "
        "them. y axis: drift at the end of ten times the budget, on a logarithmic axis."
    ),
}


def figures(frame: pd.DataFrame) -> dict[str, Figure]:
    """Draw the long curves, and the map of fixed points."""
    long = frame[(frame["kind"] == "long") & (frame["data"] != "exact") & (frame["step"] > 0)]
    mapped = frame[(frame["kind"] == "map") & (frame["step"] == frame["step"].max())]
    return {
        "stability": plotting.curves(
            long, {"utility_share": "share of the\nreachable reward", "drift": "drift"}, columns="mask",
            methods=("dpo", "bdpo", "bdpo at 2β", "nbdpo", "permuted λ"),
        ),
        "stability-map": plotting.scatter(
            mapped, "beyond_bound", "drift", labels=("share of pairs beyond bDPO's bound", "drift at the end"),
        ),
    }  # fmt: skip


EXPERIMENT = Experiment(
    name="stability",
    settings=SETTINGS,
    quick=QUICK,
    parts=parts,
    run_part=run_part,
    verdict=verdict,
    figures=figures,
    captions=CAPTIONS,
)
