"""Does Balanced-DPO reach a higher reward, and put less mass on what the data do not cover, on the paper's grid?

The picture world (R = 4, σ = 3) at three mask rates, every method, free and shared parameters, finite and exact data,
and one grid of optimisers and learning rates for all. Claims: grid-reward, grid-unobserved, ablation.

What the claims rest on gets seeds in blocks until each cell is precise enough, see ``precision``.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from gradlab import plotting
from gradlab.experiments.contrasts import Contrast, Judged, judged
from gradlab.experiments.experiment import FIRST_SEED, Experiment
from gradlab.experiments.frame_checks import check_rows
from gradlab.experiments.methods import METHODS, final, history, train
from gradlab.experiments.outcomes import MASS, REWARD, WINS
from gradlab.experiments.precision import Endpoint, runs_to_add
from gradlab.lab.training import Training
from gradlab.lab.world import gaussian_world
from gradlab.stats.precision import Design

TRAINING = Training(optimizer="adam", learning_rate=0.05, steps=500, pairs=100, record=10)
SETTINGS: dict[str, Any] = {
    "methods": list(METHODS),
    "first_seed": FIRST_SEED,
    # Methods of the primaries have this many seeds, and get blocks up to the cap where a cell is too wide.
    "primary_methods": ["dpo", "bdpo", "nbdpo", "nbdpo-symmetric"],
    "seeds": 24,
    "block": 24,
    "cap": 240,
    "controls": ["bdpo at 2β", "fixed λ=0.5", "permuted λ"],  # they could explain an effect away, on the same seeds
    "other_seeds": 6,  # of all other methods and trainings
    "mask_rates": [0.0, 0.2, 0.4],  # stated
    "policies": ["free", "shared"],
    "training": TRAINING,  # the stated cells; its first block keeps the curves
    "other_training": [
        TRAINING.but(optimizer=optimizer, learning_rate=learning_rate, record=1)
        for optimizer, learning_rate in (("adam", 0.01), ("gd", 10.0), ("gd", 40.0))
    ],
    "other_methods": ["dpo", "bdpo"],  # under other trainings, and on exact data
}
QUICK: dict[str, Any] = {
    "first_seed": 0, "seeds": 3, "block": 3, "cap": 6, "other_seeds": 2, "mask_rates": [0.0, 0.4],
    "training": TRAINING.but(steps=100),
    "other_training": [TRAINING.but(steps=100, optimizer="gd", learning_rate=40.0, record=1)],
}  # fmt: skip


def parts(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one part per method, mask rate and policy, with the first block of its seeds, which train together."""
    stated = settings["training"]
    others = [stated.but(pairs=None, record=1), *settings["other_training"]]
    return [
        _part(method, mask_rate, training.but(policy=policy), settings["first_seed"],
              settings["seeds"] if training is stated and method in many else settings["other_seeds"])
        for many in [(*settings["primary_methods"], *settings["controls"])]
        for training in (stated, *others)
        for policy in settings["policies"]
        for mask_rate in settings["mask_rates"]
        for method in (settings["methods"] if training is stated else settings["other_methods"])
    ]  # fmt: skip


def more(frame: pd.DataFrame, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the next block of each cell that is too wide, at the end of training: primaries and their controls."""
    training = settings["training"].but(record=1)
    asked = runs_to_add(ends(frame).query(_STATED), _endpoints(settings), _CELL, beside=settings["controls"])
    return [
        _part(row["method"], row["mask"], training.but(policy=row["policy"]), settings["first_seed"] + row["seeds"],
              row["more"])
        for row in asked.to_dict("records")
    ]  # fmt: skip


def _part(method: str, mask_rate: float, training: Training, first_seed: int, seeds: int) -> dict[str, Any]:
    return {
        "method": method, "mask_rate": mask_rate, "training": training, "first_seed": first_seed, "seeds": seeds,
    }  # fmt: skip


def run_part(method: str, mask_rate: float, training: Training, first_seed: int, seeds: int) -> pd.DataFrame:
    """Return the history of one method in one cell (its end only, where the recipe's ``record`` is 1)."""
    numbers = range(first_seed, first_seed + seeds)
    worlds = [gaussian_world(mask_rate=mask_rate, seed=seed) for seed in numbers]
    fitted = train(method, worlds, training, seeds=numbers)
    keys = {
        "method": method, "mask": mask_rate, "policy": training.policy_name, "data": _data(training),
        "training": _name(training),
    }  # fmt: skip
    return (history if training.record > 1 else final)(fitted, numbers, **keys)


def _data(training: Training) -> str:
    return f"{training.pairs} pairs" if training.pairs else "exact"


def _name(training: Training) -> str:
    return f"{training.optimizer} {training.learning_rate:g}"


_CELL = ("mask", "policy")
_STATED = "training == 'adam 0.05' and data != 'exact'"
_MASKED = " and mask > 0"


def _endpoints(settings: dict[str, Any]) -> list[Endpoint]:
    """Return the primary endpoints, with the precision that their cells must reach."""
    return [
        Endpoint(outcome.value, "bdpo", baseline, _CELL, where=where, design=Design(
            outcome.margin, co_primaries, settings["seeds"], settings["block"], settings["cap"]
        ))
        for outcome, baseline, co_primaries, where in (
            (REWARD, "dpo", 1, ""), (MASS, "dpo", 1, "mask > 0"),
            (WINS, "nbdpo", 2, ""), (WINS, "nbdpo-symmetric", 2, ""),
        )
    ]  # fmt: skip


def contrasts(settings: dict[str, Any]) -> list[Contrast]:
    """Return the contrasts, all at the end of training; controls are compared on the seeds that they have."""
    few = f"seed < {settings['first_seed'] + settings['other_seeds']}"
    declared = []
    for outcome, masked in ((REWARD, ""), (MASS, _MASKED)):
        stated = _STATED + masked
        declared += [
            outcome.contrast("bDPO against DPO at β = 1, finite data (as stated)", "bdpo", "dpo", _CELL,
                             label="against DPO", where=stated),
            outcome.contrast("bDPO against a constant λ = ½, which is DPO at β/2", "bdpo", "fixed λ=0.5", _CELL,
                             label="DPO at β/2", where=stated, role="explains away"),
            outcome.contrast("bDPO at 2β, which has DPO's effective β, against DPO", "bdpo at 2β", "dpo", _CELL,
                             label="DPO at equal scale", where=stated, role="explains away"),
            outcome.contrast("bDPO against its λ permuted among the pairs", "bdpo", "permuted λ", _CELL,
                             label="λ permuted among pairs", where=stated, role="explains away"),
            outcome.contrast(
                "bDPO against its |λ − ½| permuted, each pair's direction kept (added after the first results)", "bdpo",
                "permuted |λ−½|", _CELL, label="|λ − ½| permuted among pairs", where=f"{stated} and {few}",
                role="context",
            ),
            *(
                outcome.contrast(f"bDPO against a constant λ = {share}", "bdpo", f"fixed λ={share}", _CELL,
                                 label=f"λ = {share}", where=f"{stated} and {few}", role="robustness")
                for share in (0.4, 0.6)
            ),
            outcome.contrast(
                "bDPO against DPO at β = 1, exact data", "bdpo", "dpo", _CELL, label="exact data", role="robustness",
                where="training == 'adam 0.05' and data == 'exact'" + masked, words="on exact data, {}",
            ),
            outcome.contrast(
                "bDPO against DPO at β = 1, every optimiser and learning rate", "bdpo", "dpo", (*_CELL, "training"),
                label="every optimiser", where=f"data != 'exact' and {few}{masked}", role="robustness",
                words="over all optimisers and learning rates, {}",
            ),
        ]  # fmt: skip
    declared.append(MASS.contrast(
        "unobserved mass nearer to the ideal policy's, bDPO against DPO", "bdpo", "dpo", _CELL, value="unobserved_gap",
        label="nearer to the ideal", where=_STATED + _MASKED, role="robustness",
        better="bDPO's unobserved mass is {size} nearer to the ideal policy's than DPO's",
        worse="bDPO's unobserved mass is {size} farther from the ideal policy's than DPO's",
    ))  # fmt: skip
    declared += [
        WINS.contrast(f"win-rate against the reference, bDPO against {name}", "bdpo", baseline, _CELL,
                      label=f"against {name}", where=_STATED, co_primaries=2)
        for name, baseline in (("naive bDPO", "nbdpo"), ("symmetric naive bDPO", "nbdpo-symmetric"))
    ]  # fmt: skip
    declared.append(WINS.contrast(
        "win-rate against the reference, bDPO against a constant λ = ½ (DPO at β/2)", "bdpo", "fixed λ=0.5", _CELL,
        label="DPO at β/2", where=_STATED, role="explains away",
    ))  # fmt: skip
    declared += [
        WINS.contrast(f"win-rate against the reference, {name}", method, baseline, _CELL, label=name, where=where,
                      role="robustness")
        for name, method, baseline, where in (
            ("bDPO against DPO", "bdpo", "dpo", _STATED),
            ("naive bDPO against DPO", "nbdpo", "dpo", _STATED),
        )
    ]  # fmt: skip
    return declared


def ends(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the end of every run, with the gap between its unobserved mass and the ideal policy's."""
    rows = frame[frame["step"] == frame["step"].max()]
    return rows.assign(unobserved_gap=(rows["unobserved_mass"] - rows["unobserved_mass_ideal"]).abs())


def verdict(frame: pd.DataFrame, settings: dict[str, Any]) -> list[Judged]:
    """Return the answers at the end of training.

    Judged are the rows of the frame's last ``step``; ``unobserved_gap`` is |unobserved_mass − unobserved_mass_ideal|.
    """
    cells = {"method": settings["methods"], "mask": settings["mask_rates"], "policy": settings["policies"]}
    keys = ["method", *_CELL, "data", "training", "seed", "step"]
    check_rows(frame, keys, ["utility_share", "unobserved_mass", "unobserved_mass_ideal", "win_rate"], cells)
    trainings = [settings["training"], *settings["other_training"]]
    levels = {
        **cells, "training": list(map(_name, trainings)), "data": [_data(settings["training"]), "exact"],
    }  # fmt: skip
    return judged(ends(frame), contrasts(settings), levels)


CAPTIONS = {
    "grid-reward": (
        "Share of the reachable reward at the end of training (0: the reference, 1: the best response always), 100 "
        "hard-labelled pairs per prompt, Adam at 0.05. Small dots are seeds, large dots their mean with a 95% t "
        "interval. Methods of the primary comparisons have the more seeds, the more these vary; controls have the "
        "first block of seeds, the others few. Compare bDPO with DPO, then with the controls: bDPO at 2β is bDPO with "
        "DPO's effective β; λ = 0.5 is DPO at β/2; permuted λ gives bDPO's weights to other pairs; permuted |λ − ½| "
        "does so but still favours the same side. PPO on the true utility is no upper bound of reward: at β = 1 it "
        "comes to rest at the ideal policy π_ref exp(u/β), while DPO on finite pairs may move farther from the "
        "reference (see the figure ppo)."
    ),
    "grid-unobserved": (
        "Probability on responses that appear in no pair, at the end of training; same runs and marks. The dotted line "
        "is the reference's mass, the dashed line that of the ideal policy π_ref exp(u/β): less is not always better."
    ),
    "grid-curves": (
        "The same runs along training (free logits, the first block of seeds, PPO with fewer): mean over seeds, bands "
        "are 95% t intervals. Steps are on a logarithmic axis. Each method has a different held-out loss: compare "
        "courses, not heights, between methods."
    ),
    "ablation": (
        "Win-rate against the reference and distance from it (KL) at the end of training: seeds as small dots, means "
        "with 95% t intervals. A method that wins more by moving farther lies right and up; CLAIMS.md also compares "
        "win-rates at equal KL."
    ),
}


def figures(frame: pd.DataFrame) -> dict[str, Figure]:
    """Draw the four figures of the captions above: ends with every seed, curves with those that have one."""
    rows = ends(frame).query(_STATED)
    with_curve = frame.loc[frame["step"].between(1, frame["step"].max() - 1), "seed"]
    curves = frame[frame["seed"].isin(with_curve)].query(_STATED + " and policy == 'free'")
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
    more=more,
)
