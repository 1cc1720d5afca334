"""Runs on a pretrained model at equal KL from the reference: at declared levels, and over the KL that two share."""

from __future__ import annotations

import numpy as np
import pandas as pd

from gradlab.experiments.frame_checks import check_rows
from gradlab.experiments.questions.frontier import at_levels, overlap
from gradlab.experiments.questions.pretrained_runs import FAMILIES, HALF, LENGTH, PPO, REFERENCE, SEEDS

LEVELS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # nats per response
_PATH = ["task", "family", "seed", "method"]
_LOOK = ["task", "method", "seed", "step"]
# Trainings of a method, and those of a control with the same effective β, which weights that add up to 1 halve.
PARTNERS = {
    ("bdpo", "dpo"): {"bdpo": HALF, "bdpo-double": "dpo"},
    ("bdpo", LENGTH): {"bdpo": LENGTH, "bdpo-double": "length-dpo-double"},
    **{(name, "dpo"): {name: "dpo"} for name in PPO},
}  # fmt: skip
CONTROLS = tuple(baseline for method, baseline in PARTNERS if method == "bdpo")


def families() -> dict[str, str]:
    """Return the family of each method; a method outside of ``FAMILIES`` is one by itself."""
    return {method: family for family, methods in FAMILIES.items() for method in methods}


def at_equal_kl(looks: pd.DataFrame, values: list[str]) -> pd.DataFrame:
    """Return the values of each family and seed at the KL levels, one row per task, ``method`` (the family) and seed.

    A path is one training, from the reference (KL 0) on, in the order of its looks. Looks that set no new maximum of KL
    are dropped. Its values are interpolated linearly in √KL, in which small moves gain evenly, at each level up to its
    greatest KL, and averaged over the family's paths that reach the level. Levels that no path reaches are missing.
    """
    check_rows(looks, _LOOK, ["kl", *values])
    own = families()
    start = looks[looks["method"] == REFERENCE]
    runs = looks[looks["method"] != REFERENCE]
    paths = runs[["task", "method", "seed"]].drop_duplicates()
    begun = pd.concat([paths.merge(start.drop(columns="method"), on=["task", "seed"]), runs], ignore_index=True)
    begun = begun.assign(family=begun["method"].replace(own), kl=np.sqrt(np.maximum(begun["kl"], 0.0)))
    levels = at_levels(begun.sort_values([*_PATH, "step"]), _PATH, values, [level**0.5 for level in LEVELS])
    levels = levels.assign(kl=levels["kl"].map({level**0.5: level for level in LEVELS}))
    pooled = levels.groupby(["task", "family", "seed", "kl"], as_index=False, sort=False)[values].mean()
    return pooled.rename(columns={"family": "method"})


def both(levels: pd.DataFrame, method: str, baseline: str) -> pd.DataFrame:
    """Return the levels that both families reach in at least half of the seeds that both have, and in two."""
    return overlap(levels, method, baseline, ["task", "kl"])


def below_first_look(looks: pd.DataFrame, levels: list[float]) -> tuple[int, int]:
    """Return how many values at these levels lie before a training's first look, and how many values there are.

    A training has a value at each level up to its greatest KL, see ``at_equal_kl``.
    """
    paths = looks[looks["step"] > 0].sort_values("step").groupby(["method", "seed"])["kl"]
    first, greatest = (ends.to_numpy(float)[:, None] for ends in (paths.first(), paths.max()))
    there = greatest >= np.array(levels)
    return int((there & (first > np.array(levels))).sum()), int(there.sum())


def ends_left_out(looks: pd.DataFrame) -> tuple[int, int]:
    """Return how many trainings' last looks set no new maximum of KL, and how many trainings there are."""
    trained = looks[looks["step"] > 0].sort_values("step").groupby(["method", "seed"])["kl"]
    left_out = [not (path.iloc[-1] > path.iloc[:-1].max()) if len(path) > 1 else False for _, path in trained]
    return sum(left_out), len(left_out)


def over_shared_kl(looks: pd.DataFrame, value: str, method: str, baseline: str, power: float) -> pd.DataFrame:
    """Return two methods' values over the KL in which both were looked at, one row per task, method and seed.

    looks     of one task; a path is as in ``at_equal_kl``, but begins at its first look after the reference.
    method, baseline  two families; paths are paired by ``PARTNERS``.
    power     the value is taken to be linear in KL**power between looks: ½ for what small moves change in proportion,
              1 for what is a divergence itself.

    A pair of paths shares the KL from the larger one of their first looks to the smaller one of their greatest. The
    value is averaged over KL**power there, then over the pairs that share any. Empty where a seed has no such pair.
    """
    check_rows(looks, _LOOK, ["kl", value])
    rows = []
    partners = PARTNERS[method, baseline]
    for seed in SEEDS:
        trained = looks[(looks["seed"] == seed) & (looks["step"] > 0)].sort_values("step")
        paths = {name: _path(path, value, power) for name, path in trained.groupby("method")}
        means = [_means(paths[ours], paths[theirs]) for ours, theirs in partners.items()]
        shared = [pair for pair in means if pair is not None]
        if not shared:
            return pd.DataFrame(columns=["task", "method", "seed", value])
        for name, mean in zip((method, baseline), np.mean(shared, axis=0).tolist(), strict=True):
            rows.append({"task": trained["task"].iloc[0], "method": name, "seed": seed, value: mean})
    return pd.DataFrame(rows)


def _path(looks: pd.DataFrame, value: str, power: float) -> tuple[np.ndarray, np.ndarray]:
    """Return KL**power and the value at the looks that set a new maximum of KL."""
    kl = np.maximum(looks["kl"].to_numpy(), 0.0) ** power
    rising = np.diff(np.maximum.accumulate(kl), prepend=-1.0) > 0
    return kl[rising], looks[value].to_numpy(float)[rising]


def _means(*paths: tuple[np.ndarray, np.ndarray]) -> tuple[float, ...] | None:
    """Return the mean of each path over the range that all share; None where they share none."""
    low, high = max(float(at[0]) for at, _ in paths), min(float(at[-1]) for at, _ in paths)
    if not low < high:
        return None
    knots = np.unique(np.concatenate([[low, high], *(at[(low < at) & (at < high)] for at, _ in paths)]))
    return tuple(float(np.trapezoid(np.interp(knots, *path), knots)) / (high - low) for path in paths)
