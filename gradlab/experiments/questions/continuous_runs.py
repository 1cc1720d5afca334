"""The trainings on a line: one part per world, policy, loss and β, in one or several coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gradlab.experiments.experiment import FIRST_SEED
from gradlab.experiments.methods import loss_of
from gradlab.lab.line import (
    Coordinate,
    LineFit,
    LineWorld,
    bump_world,
    cells,
    fit_line,
    hyperbolic,
    quantiles,
    scaled,
)
from gradlab.lab.training import Training

ROUNDING = "1.000000000000001"  # a unit that changes nothing but roundings
HOME = "y"  # the coordinate in which the reference is N(0, 1), or the mixture
BALANCED, HALF = "bdpo", "fixed λ=0.5"
FREE = ["dpo", HALF, "relative-bdpo"]  # of the unit: they see ratios to the reference alone, or their difference
TRAINING = Training(optimizer="adam", learning_rate=0.02, steps=400, pairs=256, record=12)
SETTINGS: dict[str, Any] = {
    "cases": [["normal", "gaussian"], ["normal", "energy"], ["mixture", "mixture"], ["mixture", "energy"]],
    "betas": [0.25, 0.5, 1.0, 2.0, 4.0],
    # c of c·y, sinh y, and the reference's distribution function
    "coordinates": ["0.001", "0.01", "0.1", "1", "10", "1000", "1e6", "sinh", "cdf"],
    "cells": [20, 100, 1e3, 1e4, 1e6, 1e8],
    "ends": [-5.0, 5.0],  # of the interval that is cut into cells
    "training": TRAINING,
    "first_seed": FIRST_SEED,
    "seeds": 12,  # of bDPO in every coordinate
    "free_seeds": 6,  # of the losses that should not see the coordinate, in every coordinate
    "home_seeds": 24,  # of those losses in y alone
    "distances": [1.0, 2.0, 4.0],  # between policy and preference, for Theorems 3 to 5
    "widths": [0.5, 1.0, 2.0],  # of the policy; the preference's is 1
}
QUICK: dict[str, Any] = {
    "cases": [["normal", "gaussian"], ["normal", "energy"]],
    "betas": [1.0],
    "coordinates": ["0.1", "1", "1000", "cdf"],
    "cells": [100, 1e4, 1e8],
    "training": TRAINING.but(steps=50, record=6),
    "first_seed": 0, "seeds": 3, "free_seeds": 2, "home_seeds": 4,
    "distances": [2.0], "widths": [1.0],
}  # fmt: skip

KEYS = ["kind", "reference", "policy", "method", "beta", "coordinate", "seed", "step"]
PATH = ["kl", "utility_share"]
END = ["distance", "from_half", "utility_gap", "outside", "turned", "broken", "left"]


def training_parts(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the parts with trainings: in y at every β, in every coordinate, on cells, and with other roundings."""
    every, first, training = settings["coordinates"], settings["first_seed"], settings["training"]
    on_cells = [f"cells:{number:g}" for number in settings["cells"]]

    def part(kind: str, case: Sequence[str], method: str, beta: float, seeds: str, names: list[str]) -> dict[str, Any]:
        reference, policy = case
        return {"kind": kind, "reference": reference, "policy": policy, "method": method, "beta": beta,
                "coordinates": names, "ends": settings["ends"], "training": training, "first_seed": first,
                "seeds": settings[seeds]}  # fmt: skip

    return [
        one
        for case in settings["cases"]
        for one in (
            *(part("home", case, name, beta, "home_seeds", ["1"]) for name in FREE for beta in settings["betas"]),
            *(part("units", case, BALANCED, beta, "seeds", every) for beta in settings["betas"]),
            *(part("units", case, name, 1.0, "free_seeds", every) for name in FREE),
            part("cells", case, BALANCED, 1.0, "seeds", on_cells),
            part("rounding", case, BALANCED, 1.0, "seeds", ["1", ROUNDING]),
        )
    ]


def train_part(
    kind: str, reference: str, policy: str, method: str, beta: float, coordinates: list[str], ends: list[float],
    training: Training, first_seed: int, seeds: int,
) -> pd.DataFrame:  # fmt: skip
    """Return the paths of one loss at one β, and in their last rows how far apart the coordinates' policies are.

    The columns of ``END`` are NaN before the last step.
    """
    numbers = list(range(first_seed, first_seed + seeds))
    worlds = [bump_world(seed, reference) for seed in numbers]
    chosen = [coordinate_of(name, worlds[0], ends) for name in coordinates]
    loss = loss_of(method, beta)
    fitted = fit_line(
        [world for _ in chosen for world in worlds], loss, policy, [one for one in chosen for _ in worlds], training,
        seed=numbers * len(chosen), anyway=True,
    )  # fmt: skip
    runs = pd.DataFrame({
        "coordinate": [one.name for one in chosen for _ in worlds], "seed": numbers * len(chosen),
        "at_reference": [_reference_utility(world) for world in worlds] * len(chosen),
        "best": [world.height for world in worlds] * len(chosen),
    })  # fmt: skip
    rows = fitted.history.drop(columns=["outside", "turned", "broken"]).join(runs, on="run")
    gained = (rows["utility"] - rows["at_reference"]) / (rows["best"] - rows["at_reference"])
    rows = rows.assign(utility_share=gained, kind=kind, reference=reference, policy=policy, method=method, beta=beta)
    last = rows["step"] == training.steps
    measured = _ends(fitted)
    if HOME in (names := [one.name for one in chosen]):
        measured |= _from_home(fitted, len(worlds), names.index(HOME), worlds[0])
    if kind == "cells":
        half = fit_line(worlds, loss_of(HALF, beta), policy, None, training, seed=numbers, anyway=True)
        there = half.logp.exp().repeat(len(chosen), 1)
        measured["from_half"] = distance(fitted.logp.exp(), there, worlds[0]).numpy()
    for name in END:
        rows[name] = np.nan
        if name in measured:
            rows.loc[last, name] = measured[name]
    if (kind == "units" and method in FREE) or kind == "rounding":
        rows = rows[last]
    typed = dict.fromkeys((*PATH, *END), "float32")
    return rows[[*KEYS, *PATH, *END]].astype(typed).reset_index(drop=True)


def coordinate_of(name: str, world: LineWorld, ends: Sequence[float] = (-5.0, 5.0)) -> Coordinate:
    """Return the coordinate of a world by its name: a unit c, "sinh", "cdf", or "cells:n"."""
    if name == "sinh":
        return hyperbolic()
    if name == "cdf":
        return quantiles(world.reference)
    return cells(float(name.removeprefix("cells:")), *ends) if name.startswith("cells:") else scaled(float(name))


def _reference_utility(world: LineWorld) -> float:
    """Return E[u] of the reference."""
    return float(world.interval.integral(world.ref_logp.exp() * world.utility(world.interval.nodes)))


def _ends(fitted: LineFit) -> dict[str, Any]:
    """Return the measures of the last step."""
    last = fitted.ends
    return {
        "outside": last["outside_so_far"].to_numpy(), "turned": last["turned"].to_numpy(),
        "broken": last["broken"].to_numpy(float), "left": last["utility"].isna().to_numpy(float),
    }  # fmt: skip


def _from_home(fitted: LineFit, per: int, home: int, world: LineWorld) -> dict[str, Any]:
    """Return how far each run's policy, and its E[u], is from that of the same seed in y."""
    density = fitted.logp.exp()
    at = density[home * per : (home + 1) * per].repeat(len(density) // per, 1)
    utility = torch.tensor(fitted.ends["utility"].tolist(), dtype=torch.float64)
    gap = (utility - utility[home * per : (home + 1) * per].repeat(len(density) // per)).abs()
    return {"distance": distance(density, at, world).numpy(), "utility_gap": gap.numpy()}


def distance(density: Tensor, other: Tensor, world: LineWorld) -> Tensor:
    """Return the total variation distance ½∫|π − π'|, from 0 to 1: the mass by which the policies differ."""
    return world.interval.integral((density - other).abs()) / 2
