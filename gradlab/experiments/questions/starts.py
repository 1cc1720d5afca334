"""Where the loser starts out more probable than the winner, does Balanced-DPO still spare unobserved responses?

Starts are away from the reference, or references away from the optimum. To first order, one step pushes the
log-probability of an unobserved response down in proportion to π_w − π_l, and with more weight under bDPO than under
DPO: where losers are more probable, the comparison can turn round. Claim: grid-unobserved.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gradlab import plotting
from gradlab.experiments.contrasts import Contrast, Judged, judged
from gradlab.experiments.experiment import Experiment
from gradlab.experiments.methods import history, train
from gradlab.lab.training import Training
from gradlab.lab.world import gaussian_world

TRAINING = Training(optimizer="adam", learning_rate=0.05, steps=500, pairs=100, record=10)
SETTINGS: dict[str, Any] = {
    # (kind, amount): the reference uniform and the start ∝ exp(−κu), or start and reference a Gaussian shifted by d.
    "starts": [
        ["inverted", 0.0],
        ["inverted", 0.5],
        ["inverted", 1.0],
        ["shifted", 3.0],
        ["shifted", 6.0],
        ["shifted", 12.0],
    ],
    "methods": ["dpo", "bdpo", "bdpo at 2β", "fixed λ=0.5", "permuted λ"],
    "mask_rates": [0.2, 0.4],
    "policies": ["free", "shared"],
    "training": TRAINING,
    "seeds": 10,
}
QUICK: dict[str, Any] = {
    "starts": [["inverted", 0.0], ["inverted", 1.0], ["shifted", 6.0]],
    "mask_rates": [0.4], "training": TRAINING.but(steps=100), "seeds": 2,
}  # fmt: skip


def parts(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one part per start, method, mask rate and policy."""
    shared = {key: settings[key] for key in ("training", "seeds")}
    return [
        {"kind": kind, "amount": amount, "method": method, "mask_rate": mask_rate, "policy": policy, **shared}
        for policy in settings["policies"]
        for mask_rate in settings["mask_rates"]
        for kind, amount in settings["starts"]
        for method in settings["methods"]
    ]


def run_part(
    kind: str, amount: float, method: str, mask_rate: float, policy: str, training: Training, seeds: int
) -> pd.DataFrame:
    """Return unobserved mass and reward along training from one start."""
    reference: dict[str, Any] = {"reference": "shifted", "shift": amount} if kind == "shifted" else {}
    worlds = [gaussian_world(mask_rate=mask_rate, seed=seed, **reference) for seed in range(seeds)]
    start = np.stack([world.ref_logp for world in worlds])
    if kind == "inverted":
        logits = start - amount * np.stack([world.utility for world in worlds])
        start = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    fitted = train(method, worlds, training.but(policy=policy), seeds=range(seeds), start=start)
    label = f"{kind} {'κ' if kind == 'inverted' else 'd'}={amount:g}"
    frame = history(fitted, range(seeds), start=label, method=method, mask=mask_rate, policy=policy)
    return frame[["start", "method", "mask", "policy", "seed", "step", "unobserved_mass", "utility_share", "kl"]]


def verdict(frame: pd.DataFrame, settings: dict[str, Any]) -> list[Judged]:
    """Compare bDPO with DPO, as stated and scale-matched, early and at the end, from every start."""
    last = frame["step"].max()
    early = frame.loc[frame["step"] >= last / 50, "step"].min()
    contrasts = [
        Contrast(
            claim="grid-unobserved", statement=f"less unobserved mass from every start, {words} against DPO, {when}",
            method=method, baseline="dpo", value="unobserved_mass", by=("start", "mask", "policy"), margin=0.005,
            where=f"step == {step}", lower_is_better=True, role="robustness",
        )
        for step, when in ((last, "at the end of training"), (early, f"after {early} steps"))
        for method, words in (("bdpo", "bDPO"), ("bdpo at 2β", "bDPO at 2β"))
    ]  # fmt: skip
    return judged(frame, contrasts)


CAPTIONS = {
    "starts": (
        "Mass on unobserved responses along training from six starts (mask 0.4), with free logits and with shared "
        "parameters; all panels of one kind of policy have one axis. Upper half, 'inverted κ': a uniform reference "
        "and a start ∝ exp(−κu): the larger κ, the more probable the losers. Lower half, 'shifted d': reference and "
        "start are a Gaussian d responses away from the best response, or at the edge. Mean over seeds, 95% bootstrap "
        "bands. Where losers start out more probable, both bDPOs first raise the mass, and more than DPO does."
    )
}


def figures(frame: pd.DataFrame) -> dict[str, Figure]:
    """Draw unobserved mass along training, one column per start, one row per policy."""
    rows = frame[frame["mask"] == frame["mask"].max()]
    rows = rows.assign(start=rows["start"].str.replace("d=", "$d$ = ").str.replace("κ=", "κ = "))
    methods = ("dpo", "bdpo", "bdpo at 2β", "permuted λ")
    values = {"unobserved_mass": "mass on unobserved\nresponses"}
    return {"starts": plotting.curves(rows, values, columns="start", methods=methods, split="policy")}


EXPERIMENT = Experiment(
    name="starts",
    settings=SETTINGS,
    quick=QUICK,
    parts=parts,
    run_part=run_part,
    verdict=verdict,
    figures=figures,
    captions=CAPTIONS,
)
