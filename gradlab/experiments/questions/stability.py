"""Does Balanced-DPO train more stably? At ten times the budget: does its held-out loss rise, does its policy settle?

Three endpoints, each smaller where training is more stable, in each method's own held-out loss: how far it lies above
its minimum at the end, its largest rise from one recorded step to the next, and drift, the distance that the policy
still moves over the last half of training. Of about 770 recorded steps the first 188 follow one another, the later ones
lie 0.6% apart, at most 29 steps; the margin of a rise is many times what slow over-fitting adds in such a gap.

This choice came after the first results: drift alone had said that bDPO is not more stable anywhere, and the rise above
the minimum that it is everywhere. The paper's sign of trouble is a validation loss that spikes, so each method's own
loss is looked at; DPO's loss on the same held-out pairs is a common yardstick beside it.

Theory: bDPO's margin is bounded, so it has an interior fixed point only where preferences are weak against that bound
(for a pair, |Δu| < β|log π_ref| of the right side); elsewhere the logits drift for ever. Claim: grid-stability.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from gradlab import plotting
from gradlab.experiments.contrasts import Contrast, Judged, Unit, judged
from gradlab.experiments.experiment import FIRST_SEED, Experiment
from gradlab.experiments.methods import loss_of, seeds_from, train
from gradlab.experiments.outcomes import REWARD, Outcome
from gradlab.experiments.precision import Endpoint, runs_to_add
from gradlab.experiments.questions.stability_losses import held_out_losses, largest_rise, rise_at_the_end
from gradlab.lab.descent import recorded_steps
from gradlab.lab.metrics import utility_share
from gradlab.lab.training import Training
from gradlab.lab.world import gaussian_world
from gradlab.losses import DPO
from gradlab.stats.precision import Design

TRAINING = Training(optimizer="adam", learning_rate=0.05, steps=5000, pairs=100, record=1500)
SETTINGS: dict[str, Any] = {
    "mask_rates": [0.0, 0.2, 0.4],
    "policies": ["free", "shared"],
    "training": TRAINING,
    "first_seed": FIRST_SEED,
    # Methods of the primaries have this many seeds, and get blocks up to the cap where a cell is too wide.
    "primary_methods": ["dpo", "bdpo"],
    "seeds": 12,
    "block": 12,
    "cap": 120,
    "controls": ["bdpo at 2β", "fixed λ=0.5", "permuted λ"],  # the first block of seeds
    "other_methods": ["nbdpo", "nbdpo-symmetric"],
    "exact_methods": ["dpo", "bdpo", "bdpo at 2β"],  # also on exact data, which have no held-out loss
    "other_seeds": 6,
    # The map: where declared worlds lie against the bound, and whether their policies settle. Exact data, free logits.
    "map_methods": ["dpo", "bdpo", "nbdpo"],
    "map_scales": [1.0, 2.0, 4.0, 8.0],
    "map_sigmas": [1.5, 3.0, 6.0],
}
QUICK: dict[str, Any] = {
    "first_seed": 0, "seeds": 2, "block": 2, "cap": 4, "other_seeds": 2, "mask_rates": [0.0, 0.4],
    "training": TRAINING.but(steps=400, record=200), "map_scales": [1.0, 8.0],
}  # fmt: skip

SHOWN = 24  # about how many recorded steps are kept for curves
_PICTURE = [[4.0, 3.0]]  # height and width of the utility of the stated world
_CELL = ("mask", "policy")


_NATS = Unit("nats", 1, 3)
_RISE = ("{method}'s held-out loss ends {size} less above its minimum than {baseline}'s",
         "{method}'s held-out loss ends {size} more above its minimum than {baseline}'s")  # fmt: skip
_JUMP = ("the largest sudden rise of {method}'s held-out loss is {size} smaller than that of {baseline}'s",
         "the largest sudden rise of {method}'s held-out loss is {size} larger than that of {baseline}'s")  # fmt: skip


def _outcome(value: str, margin: float, unit: Unit, words: tuple[str, str]) -> Outcome:
    return Outcome("grid-stability", value, margin, unit, *words, lower_is_better=True)


# The co-primaries, by their names in labels.
ENDPOINTS = {
    "rise of the held-out loss": _outcome("rise", 0.01, _NATS, _RISE),
    "drift": _outcome("drift", 0.005, Unit("points of probability", 100, 2), (
        "over the last half of training {method}'s policy moves {size} less than {baseline}'s",
        "over the last half of training {method}'s policy moves {size} more than {baseline}'s",
    )),
    "largest sudden rise": _outcome("jump", 0.01, _NATS, _JUMP),
}  # fmt: skip
_BY_DPO = {
    "rise": _outcome("rise_by_dpo", 0.01, _NATS, _RISE),
    "largest sudden rise": _outcome("jump_by_dpo", 0.01, _NATS, _JUMP),
}
_LOST = _outcome("lost", 0.01, REWARD.unit, (
    "by the end {method} loses {size} less of its best reward on the way than {baseline}",
    "by the end {method} loses {size} more of its best reward on the way than {baseline}",
))  # fmt: skip


def parts(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return parts with long runs on the picture world, and on the declared Gaussian worlds for the map."""
    first, few = settings["seeds"], settings["other_seeds"]
    finite = settings["training"]
    exact = finite.but(pairs=None)
    chosen = [
        *((finite, method, first) for method in (*settings["primary_methods"], *settings["controls"])),
        *((finite, method, few) for method in settings["other_methods"]),
        *((exact, method, few) for method in settings["exact_methods"]),
    ]
    long = [
        _part(settings, method, mask_rate, training.but(policy=policy), _PICTURE, 0, seeds)
        for training, method, seeds in chosen
        for policy in settings["policies"]
        for mask_rate in settings["mask_rates"]
    ]
    grid = [[scale, sigma] for scale in settings["map_scales"] for sigma in settings["map_sigmas"]]
    return long + [_part(settings, method, 0.0, exact, grid, 0, 1) for method in settings["map_methods"]]


def more(frame: pd.DataFrame, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the next block of seeds of each cell in which an endpoint is not yet precise enough, for DPO and bDPO."""
    asked = runs_to_add(ends(frame).query("data != 'exact'"), [
        Endpoint(one.value, "bdpo", "dpo", _CELL, Design(
            one.margin, len(ENDPOINTS), settings["seeds"], settings["block"], settings["cap"]
        ))
        for one in ENDPOINTS.values()
    ], _CELL)  # fmt: skip
    return [
        _part(settings, row["method"], row["mask"], settings["training"].but(policy=row["policy"]), _PICTURE,
              row["seeds"], row["more"])
        for row in asked.to_dict("records")
    ]  # fmt: skip


def _part(
    settings: dict[str, Any], method: str, mask_rate: float, training: Training, worlds: list[list[float]], before: int,
    seeds: int,
) -> dict[str, Any]:  # fmt: skip
    """Return a part with so many seeds, after those ``before``."""
    return {
        "method": method, "mask_rate": mask_rate, "training": training, "worlds": worlds,
        "first_seed": settings["first_seed"] + before, "seeds": seeds,
        "yardstick": before == 0 and method in settings["primary_methods"],
    }  # fmt: skip


def run_part(
    method: str, mask_rate: float, training: Training, worlds: list[list[float]], first_seed: int, seeds: int,
    yardstick: bool,
) -> pd.DataFrame:  # fmt: skip
    """Return reward and held-out loss along training, how far the policy still moves, and the endpoints of each run.

    ``drift`` at a step is the mean total variation distance between the policy there and at the recorded step nearest
    to half as many steps: 0 for a policy that has settled. ``beyond_bound`` is the share of a world's pairs with |Δu|
    at or beyond β|log π_ref|: these have no interior fixed point under bDPO. ``rise`` and ``jump`` are those of the
    method's held-out loss over all recorded steps; with ``_by_dpo`` those of DPO's loss on the same pairs, the
    ``yardstick``. They are NaN on exact data.
    """
    cells = [(scale, sigma, seed) for scale, sigma in worlds for seed in seeds_from(first_seed, seeds)]
    built = [gaussian_world(scale=scale, sigma=sigma, mask_rate=mask_rate, seed=seed) for scale, sigma, seed in cells]
    numbers = [seed for _, _, seed in cells]
    fitted = train(method, built, training, seeds=numbers)
    steps, policies = fitted.steps, fitted.policies
    shown = np.unique(_nearest(steps, recorded_steps(training.steps, SHOWN)))
    kept = policies[shown]
    moved = (kept.exp() - policies[_nearest(steps, steps[shown] / 2)].exp()).abs()
    of_world = pd.DataFrame(cells, columns=["scale", "sigma", "seed"]).assign(
        method=method, mask=mask_rate, policy=training.policy_name,
        data=f"{training.pairs} pairs" if training.pairs else "exact", kind="map" if len(worlds) > 1 else "long",
        beyond_bound=[_beyond_bound(world.utility, world.ref_logp, world.comparable()) for world in built],
    )  # fmt: skip
    along = {
        "utility_share": utility_share(kept, *(
            torch.as_tensor(np.stack([getattr(world, name) for world in built])) for name in ("utility", "ref_logp")
        )).numpy(),
        "drift": (0.5 * moved.sum(-1).mean(-1)).numpy(),
    }  # fmt: skip
    for name, loss in (("", loss_of(method)), *([("_by_dpo", DPO())] if yardstick else [])) if training.pairs else ():
        losses = held_out_losses(loss, policies, built, numbers, training.pairs)
        of_world = of_world.assign(
            **{f"rise{name}": rise_at_the_end(losses), f"jump{name}": largest_rise(losses)}
        )  # fmt: skip
        if not name:
            along["held_out_loss"] = losses[shown]
    rows = of_world.loc[np.tile(np.arange(len(cells)), len(shown))].reset_index(drop=True)
    rows = rows.assign(step=np.repeat(steps[shown], len(cells)), **{name: part.ravel() for name, part in along.items()})
    return rows.reindex(columns=_COLUMNS)


_COLUMNS = [
    "kind", "method", "mask", "policy", "data", "scale", "sigma", "seed", "step", "utility_share", "drift",
    "held_out_loss", "rise", "jump", "rise_by_dpo", "jump_by_dpo", "beyond_bound",
]  # fmt: skip


def _nearest(steps: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the places of the recorded steps that are nearest to some steps; both sorted."""
    return np.abs(wanted[:, None] - steps[None, :]).argmin(1)


def _beyond_bound(utility: np.ndarray, ref_logp: np.ndarray, comparable: np.ndarray) -> float:
    """Return the share of the comparable pairs with |Δu| at or beyond |log π_ref| of the winner."""
    gap = np.abs(utility[:, :, None] - utility[:, None, :])
    return float((gap >= -ref_logp[:, :, None])[comparable].mean())


def ends(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the end of each long run, with ``lost``: the best reward on the way minus the last."""
    long = frame[frame["kind"] == "long"]
    keys = ["method", "mask", "policy", "data", "seed"]
    best = long.groupby(keys)["utility_share"].max().rename("best").reset_index()
    last = long[long["step"] == long["step"].max()].merge(best, on=keys)
    return last.assign(lost=last["best"] - last["utility_share"])


def contrasts(settings: dict[str, Any]) -> list[Contrast]:
    """Return the contrasts; controls are compared on the seeds that they have."""
    finite, exact = "data != 'exact'", "data == 'exact'"
    first = f"{finite} and seed < {settings['first_seed'] + settings['seeds']}"
    few = f"{finite} and seed < {settings['first_seed'] + settings['other_seeds']}"
    declared = [
        one.contrast(f"{name}, bDPO against DPO, finite data", "bdpo", "dpo", _CELL, label=name, where=finite,
                     co_primaries=len(ENDPOINTS))
        for name, one in ENDPOINTS.items()
    ]  # fmt: skip
    for control, method, baseline in (
        ("DPO at β/2", "bdpo", "fixed λ=0.5"), ("DPO at equal scale", "bdpo at 2β", "dpo"),
        ("λ permuted among pairs", "bdpo", "permuted λ"),
    ):  # fmt: skip
        said = {
            "DPO at β/2": "bDPO against a constant λ = ½, which is DPO at β/2",
            "DPO at equal scale": "bDPO at 2β, which has DPO's effective β, against DPO",
            "λ permuted among pairs": "bDPO against its λ permuted among the pairs",
        }[control]
        declared += [
            one.contrast(f"{name}, {said}", method, baseline, _CELL, label=f"{control} ({name})", where=first,
                         role="explains away")
            for name, one in ENDPOINTS.items()
        ]  # fmt: skip
    declared += [
        one.contrast(f"{name} of DPO's held-out loss, for both methods: bDPO against DPO", "bdpo", "dpo", _CELL,
                     label=f"DPO's loss as yardstick ({name})", where=first, role="robustness",
                     words="by DPO's loss for both, {}")
        for name, one in _BY_DPO.items()
    ]  # fmt: skip
    drift = ENDPOINTS["drift"]
    declared += [
        drift.contrast(f"drift, {said}, exact data", method, "dpo", _CELL, label=f"exact data{at} (drift)", where=exact,
                       role="robustness", words="on exact data, {}")
        for said, method, at in (
            ("bDPO against DPO", "bdpo", ""), ("bDPO at 2β against DPO", "bdpo at 2β", ", matched scale")
        )
    ]  # fmt: skip
    return [
        *declared,
        _LOST.contrast("reward lost by the end, bDPO against DPO", "bdpo", "dpo", _CELL, label="lost reward",
                       where=finite, role="robustness"),
        ENDPOINTS["largest sudden rise"].contrast(
            "largest sudden rise, symmetric naive bDPO against DPO", "nbdpo-symmetric", "dpo", _CELL,
            label="symmetric naive bDPO", where=few, role="context",
        ),
    ]  # fmt: skip


def verdict(frame: pd.DataFrame, settings: dict[str, Any]) -> list[Judged]:
    """Return the answers at ten times the budget of the other experiments.

    Judged are the rows of the last ``step`` with the ``kind`` "long"; ``lost`` is the largest utility_share of the run
    minus the last. ``rise_by_dpo`` and ``jump_by_dpo`` are rise and jump of DPO's loss on the same held-out pairs.
    """
    levels = {"mask": settings["mask_rates"], "policy": settings["policies"]}
    return judged(ends(frame), contrasts(settings), levels)


CAPTIONS = {
    "stability": (
        "Ten times the budget, free logits. Top: share of the reachable reward. Middle: the held-out loss, each "
        "method's own; compare courses and not heights, and look for the rise above the minimum and for jumps. Bottom: "
        "drift, the total variation distance between the policy and that at half as many steps (it falls to 0 where "
        "training settles). Columns: mask rate; 100 pairs per prompt; mean over seeds with 95% bands (t)."
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
    long = long[long["policy"] == "free"]
    mapped = frame[(frame["kind"] == "map") & (frame["step"] == frame["step"].max())]
    return {
        "stability": plotting.curves(
            long,
            {"utility_share": "share of the\nreachable reward", "held_out_loss": "held-out loss", "drift": "drift"},
            columns="mask",
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
    more=more,
)
