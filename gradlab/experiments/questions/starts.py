"""Where the loser starts out more probable than the winner, does Balanced-DPO still spare unobserved responses?

Starts are away from the reference, or references away from the optimum. To first order, one step pushes the
log-probability of an unobserved response down in proportion to π_w − π_l, and with more weight under bDPO than under
DPO: where losers are more probable, the comparison can turn round. Claim: grid-unobserved.

Can DPO raise unobserved mass at all, with free logits and from a uniform reference? By plain gradient descent it cannot
(a proof); by Adam it can.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gradlab import plotting
from gradlab.experiments.contrasts import Contrast, Judged, Scan, judged
from gradlab.experiments.experiment import FIRST_SEED, Experiment
from gradlab.experiments.frame_checks import check_rows, picked
from gradlab.experiments.methods import history, train
from gradlab.experiments.outcomes import MASS
from gradlab.lab.descent import recorded_steps
from gradlab.lab.training import Training
from gradlab.lab.world import gaussian_world

ROUNDING = 1e-12  # of a mass
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
    "descent": TRAINING.but(optimizer="gd", learning_rate=10.0),  # DPO with free logits from the reference
    "first_seed": FIRST_SEED,
    "seeds": 8,
}
QUICK: dict[str, Any] = {
    "starts": [["inverted", 0.0], ["inverted", 1.0], ["shifted", 6.0]],
    "mask_rates": [0.4], "training": TRAINING.but(steps=100), "first_seed": 0, "seeds": 2,
    "descent": TRAINING.but(steps=100, optimizer="gd", learning_rate=10.0),
}  # fmt: skip


def parts(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one part per start, method, mask rate and policy, then DPO from the reference by gradient descent."""
    shared = {key: settings[key] for key in ("first_seed", "seeds")}
    adam = [
        {"kind": kind, "amount": amount, "method": method, "mask_rate": mask_rate,
         "training": settings["training"].but(policy=policy), **shared}
        for policy in settings["policies"]
        for mask_rate in settings["mask_rates"]
        for kind, amount in settings["starts"]
        for method in settings["methods"]
    ]  # fmt: skip
    descent = [
        {"kind": "inverted", "amount": 0.0, "method": "dpo", "mask_rate": mask_rate,
         "training": settings["descent"], **shared}
        for mask_rate in settings["mask_rates"]
    ]  # fmt: skip
    return adam + descent


def run_part(
    kind: str, amount: float, method: str, mask_rate: float, training: Training, first_seed: int, seeds: int
) -> pd.DataFrame:
    """Return unobserved mass and reward along training from one start."""
    numbers = range(first_seed, first_seed + seeds)
    reference: dict[str, Any] = {"reference": "shifted", "shift": amount} if kind == "shifted" else {}
    worlds = [gaussian_world(mask_rate=mask_rate, seed=seed, **reference) for seed in numbers]
    start = np.stack([world.ref_logp for world in worlds])
    if kind == "inverted":
        logits = start - amount * np.stack([world.utility for world in worlds])
        start = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    fitted = train(method, worlds, training, seeds=numbers, start=start)
    keys = {
        "start": _start(kind, amount), "method": method, "mask": mask_rate, "policy": training.policy_name,
        "optimizer": training.optimizer,
    }  # fmt: skip
    frame = history(fitted, numbers, **keys)
    return frame[[*keys, "seed", "step", "unobserved_mass", "unobserved_mass_reference", "utility_share", "kl"]]


def _start(kind: str, amount: float) -> str:
    return f"{kind} {'κ' if kind == 'inverted' else 'd'}={amount:g}"


_ADAM = "optimizer == 'adam'"
_RUN = ["start", "method", "mask", "policy", "optimizer", "seed"]


def contrasts(settings: dict[str, Any]) -> list[Contrast]:
    """Return the comparisons of bDPO with DPO, as stated and scale-matched, early and at the end, from every start."""
    training = settings["training"]
    last = training.steps
    early = min(step for step in recorded_steps(last, training.record) if step >= last / 50)
    return [
        MASS.contrast(
            f"less unobserved mass from every start, {name} against DPO, {when}", method, "dpo",
            ("start", "mask", "policy"), label=f"{name} from every start{short}", role="robustness",
            where=f"step == {step} and {_ADAM}", words=f"over all starts, {when}, {{}}",
        )
        for step, when, short in ((last, "at the end of training", ""), (early, f"after {early} steps", ", early"))
        for method, name in (("bdpo", "bDPO"), ("bdpo at 2β", "bDPO at 2β"))
    ]  # fmt: skip


def scans(frame: pd.DataFrame) -> list[Scan]:
    """Return what becomes of unobserved mass under DPO with free logits and from a uniform reference, by optimiser."""
    rows, uniform = [], _start("inverted", 0)
    for optimizer, name, proof in (("gd", "plain gradient descent", "free-logits"), ("adam", "Adam", "")):
        where = (
            f"optimizer == '{optimizer}' and method == 'dpo' and policy == 'free' and start == '{uniform}' and step > 0"
        )
        slack = picked(frame, where)["below_reference"]
        said = (
            f"by {name}, DPO with free logits puts more mass on unobserved responses than a uniform reference in "
            f"{(slack < -ROUNDING).sum()} of {len(slack)} recorded rows"
        )
        rows.append(Scan(
            "grid-unobserved",
            f"with free logits, DPO by {name} never raises unobserved mass above a uniform reference's",
            "below_reference", ("mask", "step"), ROUNDING, where, role="context", label=f"DPO by {name}", proof=proof,
            holds=said, fails=said,
        ))  # fmt: skip
    return rows


def verdict(frame: pd.DataFrame, settings: dict[str, Any]) -> list[Judged]:
    """Return the answers from every start, early and late.

    Judged are all rows; ``below_reference`` is unobserved_mass_reference − unobserved_mass.
    """
    cells = {
        "start": [_start(kind, amount) for kind, amount in settings["starts"]], "method": settings["methods"],
        "mask": settings["mask_rates"], "policy": settings["policies"],
    }  # fmt: skip
    check_rows(frame, [*_RUN, "step"], ["unobserved_mass", "unobserved_mass_reference"], cells)
    rows = frame.assign(below_reference=frame["unobserved_mass_reference"] - frame["unobserved_mass"])
    return judged(rows, [*contrasts(settings), *scans(rows)])


CAPTIONS = {
    "starts": (
        "Mass on unobserved responses along training from six starts (mask 0.4), with free logits and with shared "
        "parameters; all panels of one kind of policy have one axis. Upper half, 'inverted κ': a uniform reference "
        "and a start ∝ exp(−κu): the larger κ, the more probable the losers. Lower half, 'shifted d': reference and "
        "start are a Gaussian d responses away from the best response, or at the edge. Mean over seeds, 95% bands "
        "(t). Where losers start out more probable, both bDPOs first raise the mass, and more than DPO does."
    )
}


def figures(frame: pd.DataFrame) -> dict[str, Figure]:
    """Draw unobserved mass along training, one column per start, one row per policy."""
    rows = frame[(frame["mask"] == frame["mask"].max()) & (frame["optimizer"] == "adam")]
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
