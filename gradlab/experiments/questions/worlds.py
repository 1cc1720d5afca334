"""In which worlds does Balanced-DPO win? The declared grid of worlds: utilities × scales × widths × masks.

Claims: grid-reward and grid-unobserved, judged over all declared worlds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gradlab import plotting
from gradlab.experiments.contrasts import Contrast, Judged, judged
from gradlab.experiments.experiment import Experiment
from gradlab.experiments.methods import LOSSES, PERMUTED, final, train
from gradlab.lab.training import Training
from gradlab.lab.world import gaussian_world

TRAINING = Training(optimizer="adam", learning_rate=0.05, steps=500, pairs=100, record=1)
SETTINGS: dict[str, Any] = {
    "utilities": ["gaussian", "gaussian-random", "log-gaussian", "independent"],
    "scales": [1.0, 2.0, 4.0, 8.0],
    "sigmas": [1.5, 3.0, 6.0],
    "mask_rates": [0.0, 0.2, 0.4],
    "methods": {
        "free": [name for name in (*LOSSES, *PERMUTED, "ppo") if name not in ("fixed λ=0.4", "fixed λ=0.6")],
        "shared": ["dpo", "bdpo", "bdpo at 2β", "fixed λ=0.5", "permuted λ"],
    },
    "training": TRAINING,
    "seeds": 6,
}
QUICK: dict[str, Any] = {
    "utilities": ["gaussian", "independent"],
    "scales": [1.0, 8.0],
    "sigmas": [1.5, 6.0],
    "mask_rates": [0.0, 0.4],
    "methods": {"free": SETTINGS["methods"]["free"]},
    "training": TRAINING.but(steps=100),
    "seeds": 2,
}


def parts(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one part per utility, mask rate, policy and method; its scales, widths and seeds train together."""
    return [
        {
            "method": method, "utility": utility, "mask_rate": mask_rate, "policy": policy,
            # A log-Gaussian utility has no scale, and an independent utility no width.
            "scales": settings["scales"] if utility != "log-gaussian" else [None],
            "sigmas": settings["sigmas"] if utility != "independent" else [None],
            "training": settings["training"], "seeds": settings["seeds"],
        }
        for policy, methods in settings["methods"].items()
        for utility in settings["utilities"]
        for mask_rate in settings["mask_rates"]
        for method in methods
    ]  # fmt: skip


def run_part(
    method: str,
    utility: Any,
    mask_rate: float,
    policy: str,
    scales: list[float | None],
    sigmas: list[float | None],
    training: Training,
    seeds: int,
) -> pd.DataFrame:
    """Return the end of every run of one method on all worlds of one utility and mask rate."""
    cells = [(scale, sigma, seed) for scale in scales for sigma in sigmas for seed in range(seeds)]
    worlds = [
        gaussian_world(utility=utility, scale=scale or 1.0, sigma=sigma or 1.0, mask_rate=mask_rate, seed=seed)
        for scale, sigma, seed in cells
    ]
    seed_list = [seed for _, _, seed in cells]
    fitted = train(method, worlds, training.but(policy=policy), seeds=seed_list)
    frame = final(fitted, seed_list, method=method, utility_kind=utility, mask=mask_rate, policy=policy)
    run = fitted.history.query("step == step.max()")["run"].to_numpy()
    frame.insert(4, "scale", np.array([scale for scale, _, _ in cells], float)[run])
    frame.insert(5, "sigma", np.array([sigma for _, sigma, _ in cells], float)[run])
    return frame


_CELL = ("utility_kind", "scale", "sigma", "mask", "policy")
_PAIRS = (
    ("bDPO against DPO at β = 1, all declared worlds (as stated)", "bdpo", "dpo", False),
    ("bDPO at 2β (scale-matched) against DPO, all declared worlds", "bdpo at 2β", "dpo", True),
    ("bDPO against a constant λ = ½ (DPO at β/2), all declared worlds", "bdpo", "fixed λ=0.5", True),
    ("bDPO against λ permuted among the pairs, all declared worlds", "bdpo", "permuted λ", True),
)
# Only on the free policy, which has every method; added after the first results, from the same declared worlds.
_MORE = (
    ("ablation", "win-rate, bDPO against naive bDPO", "bdpo", "nbdpo", "win_rate"),
    ("ablation", "win-rate, bDPO against naive bDPO v2 (symmetric)", "bdpo", "nbdpo-symmetric", "win_rate"),
    ("ablation", "win-rate, bDPO against DPO", "bdpo", "dpo", "win_rate"),
    ("grid-reward", "bDPO against permuted |λ − ½|", "bdpo", "permuted |λ−½|", "utility_share"),
    ("ppo", "PPO on a free reward model against DPO", "ppo", "dpo", "utility_share"),
)
CONTRASTS = [
    Contrast(
        claim=claim, statement=statement, method=method, baseline=baseline, value=value, by=_CELL, margin=margin,
        where=where, lower_is_better=lower, role="robustness" if control else "primary",
    )
    for claim, value, margin, where, lower in (
        ("grid-reward", "utility_share", 0.01, "", False),
        ("grid-unobserved", "unobserved_mass", 0.005, "mask > 0", True),
    )
    for statement, method, baseline, control in _PAIRS
] + [
    Contrast(
        claim=claim, statement=f"{statement}, all declared worlds, free logits (added after the first results)",
        method=method, baseline=baseline, value=value, by=_CELL[:-1], margin=0.01, where="policy == 'free'",
        # A claim is judged over the declared worlds, so the paper's statement is a row here too.
        role="robustness" if claim == "grid-reward" or (claim == "ablation" and baseline == "dpo") else "primary",
    )
    for claim, statement, method, baseline, value in _MORE
]  # fmt: skip


def verdict(frame: pd.DataFrame, settings: dict[str, Any]) -> list[Judged]:
    """Return verdicts over every declared world, at the end of training."""
    return judged(frame, CONTRASTS)


CAPTIONS = {
    "worlds-reward": (
        "Who reaches more reward, in every declared world with free logits? Each square is a world. Rows of maps are "
        "kinds of utility; within a map, the scale R grows to the right and the width σ downwards, in one block per "
        "mask rate. Independent utilities have no width, and log-Gaussian ones no scale. The colour is the mean "
        "difference in the share of the reachable reward: teal and + where bDPO is better, brown and − where it is "
        "worse (95%, Holm-corrected), = : no difference beyond ±0.01, no mark: inconclusive. The first column is the "
        "comparison as stated; the others are its controls. Differences beyond the ends of the scale have its end "
        "colours."
    ),
    "worlds-unobserved": (
        "The same worlds, mass on unobserved responses; + and teal mean that bDPO puts less mass there, = that the "
        "difference is within ±0.005."
    ),
}


def figures(frame: pd.DataFrame) -> dict[str, Figure]:
    """Draw the verdicts over the grid of worlds as maps."""
    reward, mass = CONTRASTS[: len(_PAIRS)], CONTRASTS[len(_PAIRS) : 2 * len(_PAIRS)]
    titles = ["bDPO − DPO", "bDPO at 2β − DPO", "bDPO − (λ = ½)", "bDPO − permuted λ"]
    return {
        name: plotting.verdict_map(
            {
                title: contrast.cells(frame).query("policy == 'free'")
                for title, contrast in zip(titles, contrasts, strict=True)
            },
            label,
        )
        for name, contrasts, label in (
            ("worlds-reward", reward, "difference in share of the reachable reward"),
            ("worlds-unobserved", mass, "difference in unobserved mass (positive: less)"),
        )
    }


EXPERIMENT = Experiment(
    name="worlds",
    settings=SETTINGS,
    quick=QUICK,
    parts=parts,
    run_part=run_part,
    verdict=verdict,
    figures=figures,
    captions=CAPTIONS,
)
