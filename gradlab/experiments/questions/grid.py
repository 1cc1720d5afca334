"""Does Balanced-DPO reach a higher reward, and put less mass on what the data do not cover, on the paper's grid?

The picture world (R = 4, σ = 3) at three mask rates, every method, free and shared parameters, finite and exact data,
and one grid of optimisers and learning rates for all. Claims: grid-reward, grid-unobserved, ablation.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from gradlab import plotting
from gradlab.experiments.contrasts import Contrast, Judged, judged
from gradlab.experiments.experiment import Experiment
from gradlab.experiments.methods import METHODS, final, history, train
from gradlab.lab.training import Training
from gradlab.lab.world import gaussian_world

TRAINING = Training(optimizer="adam", learning_rate=0.05, steps=500, pairs=100, record=10)
SETTINGS: dict[str, Any] = {
    "methods": list(METHODS),
    "exact_methods": ["dpo", "bdpo", "bdpo at 2β", "fixed λ=0.5", "permuted λ", "ppo"],  # also on exact data
    "mask_rates": [0.0, 0.2, 0.4],  # stated
    "policies": ["free", "shared"],
    "seeds": 20,
    "training": TRAINING,  # the primary training: curves, exact data and all seeds
    "other_training": [
        TRAINING.but(optimizer=optimizer, learning_rate=learning_rate, record=1)
        for optimizer, learning_rate in (("adam", 0.01), ("gd", 10.0), ("gd", 40.0))
    ],
    "other_seeds": 10,
}
QUICK: dict[str, Any] = {
    "mask_rates": [0.0, 0.4], "seeds": 3, "other_seeds": 2, "training": TRAINING.but(steps=100),
    "other_training": [TRAINING.but(steps=100, optimizer="gd", learning_rate=40.0, record=1)],
}  # fmt: skip


def parts(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one part per method, mask rate and policy; all its seeds train together."""
    training, seeds = settings["training"], settings["seeds"]
    cases = [(training, seeds), (training.but(pairs=None), seeds)]
    cases += [(other, settings["other_seeds"]) for other in settings["other_training"]]
    return [
        {"method": method, "mask_rate": mask_rate, "training": training.but(policy=policy), "seeds": seeds}
        for training, seeds in cases
        for policy in settings["policies"]
        for mask_rate in settings["mask_rates"]
        for method in (settings["methods"] if training.pairs else settings["exact_methods"])
    ]


def run_part(method: str, mask_rate: float, training: Training, seeds: int) -> pd.DataFrame:
    """Return the history of one method in one cell (its end only, where the recipe's ``record`` is 1)."""
    worlds = [gaussian_world(mask_rate=mask_rate, seed=seed) for seed in range(seeds)]
    fitted = train(method, worlds, training, seeds=range(seeds))
    keys = {
        "method": method, "mask": mask_rate, "policy": training.policy_name,
        "data": f"{training.pairs} pairs" if training.pairs else "exact",
        "training": f"{training.optimizer} {training.learning_rate:g}",
    }  # fmt: skip
    return (history if training.record > 1 else final)(fitted, range(seeds), **keys)


_CELL = ("mask", "policy")
_PRIMARY = "training == 'adam 0.05' and data != 'exact'"
_CONTROLS = {
    "bDPO at 2β (scale-matched) against DPO": ("bdpo at 2β", "dpo"),
    "bDPO against a constant λ = ½ (DPO at β/2)": ("bdpo", "fixed λ=0.5"),
    "bDPO against a constant λ = 0.4": ("bdpo", "fixed λ=0.4"),
    "bDPO against a constant λ = 0.6": ("bdpo", "fixed λ=0.6"),
    "bDPO against λ permuted among the pairs": ("bdpo", "permuted λ"),
    "bDPO against permuted |λ − ½|, direction kept (added after the first results)": ("bdpo", "permuted |λ−½|"),
}


def _contrasts(fewest: int) -> list[Contrast]:
    """Return the contrasts; every training is compared on the ``fewest`` seeds that all trainings have."""
    reward = {"claim": "grid-reward", "value": "utility_share", "margin": 0.01}
    mass = {"claim": "grid-unobserved", "value": "unobserved_mass", "margin": 0.005, "lower_is_better": True}
    found = []
    for shared, masked in ((reward, ""), (mass, " and mask > 0")):
        found.append(Contrast(
            statement="bDPO against DPO at β = 1, finite data (as stated)", method="bdpo", baseline="dpo", by=_CELL,
            where=_PRIMARY + masked, **shared,
        ))  # fmt: skip
        found += [
            Contrast(
                statement=statement + ", finite data", method=method, baseline=baseline, by=_CELL,
                where=_PRIMARY + masked, role="robustness", **shared,
            )
            for statement, (method, baseline) in _CONTROLS.items()
        ]  # fmt: skip
        found.append(Contrast(
            statement="bDPO against DPO at β = 1, exact data", method="bdpo", baseline="dpo", by=_CELL,
            where="training == 'adam 0.05' and data == 'exact'" + masked, role="robustness", **shared,
        ))  # fmt: skip
        found.append(Contrast(
            statement="bDPO against DPO at β = 1, every optimiser and learning rate", method="bdpo", baseline="dpo",
            by=(*_CELL, "training"), where=f"data != 'exact' and seed < {fewest}" + masked, role="robustness", **shared,
        ))  # fmt: skip
    found.append(Contrast(
        statement="unobserved mass nearer to the ideal policy's, bDPO against DPO", method="bdpo", baseline="dpo",
        by=_CELL, where=_PRIMARY + " and mask > 0", role="robustness", claim="grid-unobserved",
        value="unobserved_gap", margin=0.005, lower_is_better=True,
    ))  # fmt: skip
    found += [
        Contrast(
            claim="ablation", statement=f"win-rate against the reference, bDPO against {name}", method="bdpo",
            baseline=baseline, value="win_rate", by=_CELL, margin=0.01, where=_PRIMARY, role=role,
        )
        for name, baseline, role in (
            ("naive bDPO", "nbdpo", "primary"),
            ("naive bDPO v2 (symmetric)", "nbdpo-symmetric", "primary"),
            ("DPO", "dpo", "robustness"),
            ("a constant λ = ½", "fixed λ=0.5", "robustness"),
        )
    ]  # fmt: skip
    found.append(Contrast(
        claim="ablation", statement="naive bDPO against DPO, win-rate against the reference", method="nbdpo",
        baseline="dpo", value="win_rate", by=_CELL, margin=0.01, where=_PRIMARY, role="robustness",
    ))  # fmt: skip
    return found


def ends(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the end of every run, with the gap between its unobserved mass and the ideal policy's."""
    rows = frame[frame["step"] == frame["step"].max()]
    return rows.assign(unobserved_gap=(rows["unobserved_mass"] - rows["unobserved_mass_ideal"]).abs())


def verdict(frame: pd.DataFrame, settings: dict[str, Any]) -> list[Judged]:
    """Return verdicts on the contrasts above, all at the end of training."""
    rows = ends(frame)
    fewest = int(rows.groupby("training")["seed"].nunique().min())
    return judged(rows, _contrasts(fewest))


CAPTIONS = {
    "grid-reward": (
        "Share of the reachable reward at the end of training (0: the reference, 1: the best response always), 100 "
        "hard-labelled pairs per prompt, Adam at 0.05. Small dots are seeds, large dots their mean with a 95% "
        "bootstrap interval. Compare bDPO with DPO, then with the controls: bDPO at 2β is bDPO with DPO's effective "
        "β; λ = 0.5 is DPO at β/2; permuted λ gives bDPO's weights to other pairs; permuted |λ − ½| does so but still "
        "favours the same side. PPO on the true utility is no upper bound of reward: at β = 1 it comes to rest at the "
        "ideal policy π_ref exp(u/β), while DPO on finite pairs may move farther from the reference (see the figure "
        "ppo)."
    ),
    "grid-unobserved": (
        "Probability on responses that appear in no pair, at the end of training; same runs and marks. The dotted line "
        "is the reference's mass, the dashed line that of the ideal policy π_ref exp(u/β): less is not always better."
    ),
    "grid-curves": (
        "The same runs along training (free logits): mean over seeds, bands are 95% bootstrap intervals. Steps are on "
        "a logarithmic axis. Each method has a different held-out loss: compare courses, not heights, between methods."
    ),
    "ablation": (
        "Win-rate against the reference and distance from it (KL) at the end of training: seeds as small dots, means "
        "with 95% bootstrap intervals. A method that wins more by moving farther lies right and up; the frontier "
        "figure compares methods at equal KL."
    ),
}


def figures(frame: pd.DataFrame) -> dict[str, Figure]:
    """Draw the four figures of the captions above."""
    rows = ends(frame).query(_PRIMARY)
    curves = frame.query(_PRIMARY + " and policy == 'free'")
    reward = {"utility_share": "share of the reachable reward"}
    return {
        "grid-reward": plotting.ends(rows, reward, columns="mask", rows="policy"),
        "grid-unobserved": plotting.ends(
            rows.query("mask > 0"), {"unobserved_mass": "mass on unobserved responses"}, columns="mask", rows="policy",
            lines={"unobserved_mass_reference": "reference", "unobserved_mass_ideal": "ideal policy"},
        ),
        "grid-curves": plotting.curves(
            curves,
            {"utility_share": "share of the\nreachable reward", "unobserved_mass": "mass on\nunobserved responses",
             "kl": "KL to the\nreference (nats)", "held_out_loss": "held-out loss"},
            columns="mask", methods=("dpo", "bdpo", "bdpo at 2β", "nbdpo", "permuted λ", "ppo"),
        ),
        "ablation": plotting.trade(
            rows[rows["method"].isin(("dpo", "bdpo", "nbdpo", "nbdpo-symmetric", "fixed λ=0.5"))],
            "kl", "win_rate", columns="mask", rows="policy",
            labels=("KL to the reference (nats)", "win-rate against the reference"),
        ),
    }  # fmt: skip


EXPERIMENT = Experiment(
    name="grid",
    settings=SETTINGS,
    quick=QUICK,
    parts=parts,
    run_part=run_part,
    verdict=verdict,
    figures=figures,
    captions=CAPTIONS,
)
