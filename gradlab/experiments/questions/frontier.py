"""At equal distance from the reference, does Balanced-DPO win? A sweep of β for every loss.

Reward, unobserved mass and win-rate against KL. Claims: grid-reward, grid-unobserved and ablation, their controls at
equal KL.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from gradlab import plotting
from gradlab.experiments.contrasts import Judged, not_run
from gradlab.experiments.experiment import FIRST_SEED, Experiment
from gradlab.experiments.frame_checks import check_rows
from gradlab.experiments.methods import history, train
from gradlab.experiments.outcomes import MASS, REWARD, WINS
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
    "first_seed": FIRST_SEED,
    "seeds": 12,  # of the methods that are judged at equal KL
    "judged": ["dpo", "bdpo", "nbdpo", "nbdpo-symmetric"],
    "other_seeds": 6,
}
QUICK: dict[str, Any] = {
    "betas": [0.2, 1.0, 5.0],
    "mask_rates": [0.0, 0.4],
    "policies": ["free"],
    "training": TRAINING.but(steps=100),
    "first_seed": 0,
    "seeds": 3,
    "other_seeds": 2,
}

# KL levels at which methods are compared, in nats; log 20 = 3.0 is the most that is possible from a uniform reference.
LEVELS = (0.25, 0.5, 1.0, 1.5, 2.0)


def parts(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one part per method, β, mask rate and policy, and parts with the ideal policy in closed form."""
    shared = {key: settings[key] for key in ("training", "first_seed")}
    return [
        {"method": method, "beta": beta, "mask_rate": mask_rate, "policy": policy, **shared,
         "seeds": settings["seeds" if method in (*settings["judged"], "ideal") else "other_seeds"]}
        for policy in settings["policies"]
        for mask_rate in settings["mask_rates"]
        for method in (*settings["methods"], "ideal")
        for beta in (settings["betas"] if method != "ideal" else np.geomspace(0.1, 10, 25).tolist())
    ]  # fmt: skip


def run_part(
    method: str, beta: float, mask_rate: float, policy: str, training: Training, first_seed: int, seeds: int
) -> pd.DataFrame:
    """Return reward, KL, unobserved mass and win-rate along one method's training at one β."""
    numbers = range(first_seed, first_seed + seeds)
    worlds = [gaussian_world(mask_rate=mask_rate, seed=seed) for seed in numbers]
    keys = {"method": method, "beta": beta, "mask": mask_rate, "policy": policy}
    if method == "ideal":
        stacked = [torch.as_tensor(np.stack([getattr(w, name) for w in worlds])) for name in ("utility", "observed")]
        ref_logp = torch.as_tensor(np.stack([world.ref_logp for world in worlds]))
        ideal = torch.as_tensor(np.stack([world.ideal_logp(beta) for world in worlds]))
        frame = pd.DataFrame(metrics.summary(ideal, stacked[0], stacked[1], ref_logp, beta)).assign(
            seed=numbers, step=training.steps, **keys
        )
    else:
        fitted = train(method, worlds, training.but(policy=policy), beta=beta, seeds=numbers)
        frame = history(fitted, numbers, **keys)
    return frame[[*keys, "seed", "step", "kl", "utility", *_VALUES, "unobserved_mass_reference"]]


_RUN = ["method", "mask", "policy", "seed"]
_VALUES = ["utility_share", "unobserved_mass", "win_rate"]
_CELL = ["mask", "policy", "kl"]


def at_equal_kl(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the values of each method and seed at the KL levels, β and checkpoints pooled.

    There is one training path per β. Every path that passes a level is interpolated there between its checkpoints, and
    the paths' values are averaged, so nothing is selected by its reward. Levels that no path reaches are missing.
    """
    trained = frame[frame["method"] != "ideal"].sort_values([*_RUN, "beta", "step"])
    return at_levels(trained, [*_RUN, "beta"], _VALUES).groupby([*_RUN, "kl"], as_index=False)[_VALUES].mean()


def ends_at_equal_kl(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the values at the KL levels, from ends of training: one curve per method and seed."""
    ends = frame[(frame["method"] != "ideal") & (frame["step"] == frame["step"].max())]
    return at_levels(ends.sort_values([*_RUN, "beta"], ascending=False), _RUN, _VALUES)


def at_levels(
    rows: pd.DataFrame, keys: list[str], values: list[str], among: Sequence[float] = LEVELS
) -> pd.DataFrame:  # fmt: skip
    """Return each path's values where it first passes each KL level; the way back of a path that turns is ignored.

    rows    sorted, so that the rows of a path, which have its keys in common, follow each other; with a column ``kl``.
    values  the columns that are interpolated.
    among   the levels.
    """
    begins = np.flatnonzero((rows[keys] != rows[keys].shift()).any(axis=1))
    kl, columns = rows["kl"].to_numpy(), rows[values].to_numpy()
    paths, levels, found = list[int](), list[float](), list[np.ndarray]()
    for begin, end in itertools.pairwise([*begins.tolist(), len(rows)]):
        farthest = np.maximum.accumulate(kl[begin:end])
        rising = np.flatnonzero(np.diff(farthest, prepend=-1.0) > 0)
        reach = farthest[rising]
        passed = [level for level in among if reach[0] <= level <= reach[-1]]
        found.append(np.stack([np.interp(passed, reach, column[begin + rising]) for column in columns.T], 1))
        paths += [begin] * len(passed)
        levels += passed
    keyed = rows[keys].iloc[paths].reset_index(drop=True).assign(kl=levels)
    return pd.concat([keyed, pd.DataFrame(np.concatenate(found), columns=values)], axis=1)


def verdict(frame: pd.DataFrame, settings: dict[str, Any]) -> list[Judged]:
    """Compare bDPO with DPO, permuted λ and its naive variants at equal KL from the reference.

    Judged are values at the KL levels 0.25, 0.5, 1, 1.5 and 2 nats. "β and checkpoints pooled": a path is one training
    (one method, mask, policy, seed and β) in the order of its steps. First its rows that set no new maximum of ``kl``
    are dropped. Then its values are interpolated linearly in ``kl`` at each level from the least to the greatest ``kl``
    that is left, and the values of a seed's paths at a level are averaged. "Ends of training only": the same with one
    path per method, mask, policy and seed, which runs through the last steps from the largest β to the smallest.

    A pair is a seed in which both methods have a value in a cell (mask, policy and level). A cell counts if it has at
    least two pairs, and pairs in at least half of the seeds that both methods have at any level of any cell. For
    unobserved mass only masks above 0 count.
    """
    check_rows(
        frame, [*_RUN, "beta", "step"], ["kl", *_VALUES],
        {"method": settings["methods"], "mask": settings["mask_rates"], "policy": settings["policies"],
         "beta": settings["betas"]},
    )  # fmt: skip
    pooled, at_ends = at_equal_kl(frame), ends_at_equal_kl(frame)
    declared = [(outcome, "dpo", "DPO", pooled, "", "explains away") for outcome in (REWARD, MASS)]
    declared += [
        (WINS, "nbdpo", "naive bDPO", pooled, "", "explains away"),
        (WINS, "nbdpo-symmetric", "symmetric naive bDPO", pooled, "", "explains away"),
    ]
    late = ", ends of training only, as drawn (added after the first results)"
    for outcome in (REWARD, MASS):
        declared += [
            (outcome, "dpo", "DPO", at_ends, late, "robustness"),
            (outcome, "permuted λ", "permuted λ", pooled, "", "robustness"),
            (outcome, "permuted λ", "permuted λ", at_ends, late, "robustness"),
        ]
    rows = list[Judged]()
    for outcome, baseline, name, levels, how, role in declared:
        both = overlap(levels.query("mask > 0") if outcome is MASS else levels, "bdpo", baseline, _CELL)
        contrast = outcome.contrast(
            f"bDPO against {name} at equal KL{how or ', β and checkpoints pooled'}", "bdpo", baseline, tuple(_CELL),
            label=f"{name} at equal KL" + (" (ends)" if how else ""), words="at equal KL, {}", role=role,
            complete=False,
        )  # fmt: skip
        rows.append(contrast.judged(both) if len(both) else not_run(contrast, "no KL level that both methods reach"))
    return rows


def overlap(levels: pd.DataFrame, method: str, baseline: str, cell: list[str]) -> pd.DataFrame:
    """Return the levels that both methods reach with at least half of the seeds that both have, and with two.

    cell  the columns that name a level: ``kl``, and the setting that it is reached in.
    """
    sides = [levels[levels["method"] == name] for name in (method, baseline)]
    common = set(sides[0]["seed"]) & set(sides[1]["seed"])
    both = pd.concat(sides)
    both = both[both["seed"].isin(common)]
    both = both[both.groupby([*cell, "seed"])["method"].transform("nunique") == 2]
    return both[both.groupby(cell)["seed"].transform("nunique") >= max(2, len(common) / 2)]


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
