"""Runs on a pretrained model at equal KL from the reference: β and checkpoints pooled, as in the lab's frontier."""

from __future__ import annotations

import numpy as np
import pandas as pd

from gradlab.experiments.questions.frontier import at_levels, overlap
from gradlab.experiments.questions.pretrained_runs import FAMILIES, REFERENCE

LEVELS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # nats per response
_PATH = ["task", "family", "seed", "method"]


def families() -> dict[str, str]:
    """Return the family of each method; a method outside of ``FAMILIES`` is one by itself."""
    return {method: family for family, methods in FAMILIES.items() for method in methods}


def at_equal_kl(looks: pd.DataFrame, values: list[str]) -> pd.DataFrame:
    """Return the values of each family and seed at the KL levels, one row per task, ``method`` (the family) and seed.

    A path is one training, from the reference (KL 0) on, in the order of its looks. Looks that set no new maximum of KL
    are dropped. Its values are interpolated linearly in √KL, in which small moves gain evenly, at each level up to its
    greatest KL, and averaged over the family's paths that reach the level. Levels that no path reaches are missing.
    """
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
