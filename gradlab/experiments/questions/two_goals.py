"""Why does Balanced-DPO gain in harmlessness and not in helpfulness? Two goals on the same responses.

One property at a time: height, label noise, alignment of the reference, basin, share, conflict, lengths; then a map,
worlds like HH, and worlds that a distribution draws. Claims: two-goals-pattern, two-goals-stated, two-goals-cause.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from gradlab.experiments.contrasts import Judged, not_run
from gradlab.experiments.experiment import FIRST_SEED, Experiment
from gradlab.experiments.frame_checks import check_rows
from gradlab.experiments.methods import loss_of
from gradlab.experiments.questions import two_goals_figures
from gradlab.experiments.questions.frontier import at_levels
from gradlab.experiments.questions.two_goals_contrasts import AT, CONTRASTS, rows_of
from gradlab.experiments.questions.two_goals_worlds import KINDS, Cell, cells, drawn
from gradlab.lab.fit import fit
from gradlab.lab.training import Training
from gradlab.lab.two_goals import GOALS, TwoGoalWorld

VERSION = 2  # of the numbers: raise it by hand when a change of any source changes them
TRAINING = Training(optimizer="adam", learning_rate=0.05, steps=500, pairs=100, record=1)
SETTINGS: dict[str, Any] = {
    "methods": ["dpo", "bdpo", "bdpo at 2β"],
    "controls": ["fixed λ=0.5", AT],  # in base, alone and hh
    "recipes": {"usual": {}, "exact": {"pairs": None}, "shared": {"policy": "shared"}},  # the others: in hh and base
    "betas": [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0],  # of dpo and bdpo at equal KL
    # The world like HH; the others were added after the first results, which asked for them.
    "equal_kl": [["hh", "nothing"], ["alone", "alignment"], ["alone", "length"]],
    "training": TRAINING,
    "first_seed": FIRST_SEED,
    "seeds": 32,
    # Added after the first results, which were wider than the design asks for: further seeds of hh and alone.
    "block": 32,
    "cap": 128,
    "worlds": 120,
    "world_seeds": 4,
    "levels": 0,  # 0: all of each property's levels
}
QUICK: dict[str, Any] = {
    "recipes": {"usual": {}, "exact": {"pairs": None}},
    "betas": [0.5, 1.0, 2.0],
    "equal_kl": [["hh", "nothing"], ["alone", "alignment"]],
    "training": TRAINING.but(steps=100),
    "first_seed": 0,
    "seeds": 4,
    "cap": 4,
    "worlds": 8,
    "world_seeds": 2,
    "levels": 1,
}
_CONTROLLED = ("base", "alone", "hh")
_OTHER_RECIPES = ("base", "hh")
_WORLDS_PER_PART = 40


def parts(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one part per method, recipe and kind of cells; then the trainings at equal KL, and blocks of worlds."""
    shared = {key: settings[key] for key in ("training", "first_seed")}
    seeds, found = settings["seeds"], []
    for recipe in settings["recipes"]:
        for kind in KINDS if recipe == "usual" else _OTHER_RECIPES:
            found += _of_kind(settings, kind, recipe, settings["first_seed"], seeds)
    found += [
        {"kind": "equal KL", "method": method, "recipe": "usual", "changes": {"record": 20}, "seeds": seeds,
         "betas": settings["betas"], "cell": cell, **shared}
        for cell in settings["equal_kl"]
        for method in ("dpo", "bdpo")
    ]  # fmt: skip
    number = settings["worlds"]
    found += [
        {"kind": "drawn", "method": method, "recipe": "usual", "changes": {}, "seeds": settings["world_seeds"],
         "worlds": [first, min(first + _WORLDS_PER_PART, number)], **shared}
        for first in range(0, number, _WORLDS_PER_PART)
        for method in (*settings["methods"], AT)
    ]  # fmt: skip
    return found


def _of_kind(settings: dict[str, Any], kind: str, recipe: str, first_seed: int, seeds: int) -> list[dict[str, Any]]:
    """Return the parts of a kind of cells, one per method."""
    controls = settings["controls"] if kind in _CONTROLLED else []
    return [
        {"kind": kind, "method": method, "recipe": recipe, "changes": settings["recipes"][recipe], "seeds": seeds,
         "levels": settings["levels"], "training": settings["training"], "first_seed": first_seed}
        for method in (*settings["methods"], *controls)
    ]  # fmt: skip


def more(frame: pd.DataFrame, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return further seeds of hh and alone, until no stated primary is wider than its target, up to the cap."""
    stated = [one for one in CONTRASTS if one.role == "primary" and one.population == "stated"]
    wide = any(contrast.judged(rows_of(contrast, frame)).wide for contrast in stated)
    done = int(frame[(frame["kind"] == "hh") & (frame["recipe"] == "usual")]["seed"].nunique())
    if not wide or done >= settings["cap"]:
        return []
    first = settings["first_seed"] + done
    block = min(settings["block"], settings["cap"] - done)
    return [part for kind in ("hh", "alone") for part in _of_kind(settings, kind, "usual", first, block)]


def sample(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the parts of worlds like HH under the usual recipe."""
    return [part for part in parts(settings) if part["kind"] == "hh" and part["recipe"] == "usual"]


def run_part(
    kind: str, method: str, recipe: str, changes: dict[str, Any], training: Training, first_seed: int, seeds: int,
    levels: int = 0, betas: Sequence[float] = (), worlds: Sequence[int] = (), cell: Sequence[str] = (),
) -> pd.DataFrame:  # fmt: skip
    """Return both goals' shares, KL and what is known before training: a row per cell and seed.

    Columns: those of ``Cell.columns``, ``recipe``, ``method``, ``seed``; ``helpful`` and ``harmless``, the shares of
    the reachable reward; ``kl``, which of the kind ``equal KL`` is the level; ``balance_GOAL``, mean λ_w − ½ of bDPO
    under the reference over the goal's labels; ``conflict_GOAL``, the share of its pairs on which the other goal
    disagrees.
    """
    named = {"recipe": recipe, "method": method}
    training = training.but(**changes)
    if kind == "equal KL":
        return _at_equal_kl(method, training, first_seed, seeds, betas, cell).assign(**named)
    if kind == "drawn":
        numbers = range(*worlds)
        of_cell = [
            (drawn(number, first_seed), seed)
            for number in numbers
            for seed in range(first_seed + number * seeds, first_seed + (number + 1) * seeds)
        ]
    else:
        of_cell = [
            (cell, seed)
            for cell in cells(kind, levels=levels or None)
            for seed in range(first_seed, first_seed + seeds)
        ]
    return _trained(method, 1.0, of_cell, training).drop(columns="step").assign(**named)


def _trained(method: str, beta: float, of_cell: Sequence[tuple[Cell, int]], training: Training) -> pd.DataFrame:
    """Return a row per run and recorded step after the start."""
    worlds = [cell.world(seed) for cell, seed in of_cell]
    loss = loss_of("permuted λ", 2 * beta) if method == AT else loss_of(method, beta)
    history = fit(worlds, loss, training, seed=[seed for _, seed in of_cell]).history
    columns = pd.DataFrame([
        {**cell.columns(), "seed": seed, **_before(world)} for (cell, seed), world in zip(of_cell, worlds, strict=True)
    ])  # fmt: skip
    rows = history[history["step"] > 0].reset_index(drop=True)
    ends = rows[["step", "kl", *(f"utility_share_{goal}" for goal in GOALS)]]
    ends = ends.rename(columns={f"utility_share_{goal}": goal for goal in GOALS})
    return pd.concat([columns.loc[rows["run"]].reset_index(drop=True), ends], axis=1)


def _before(world: TwoGoalWorld) -> dict[str, float]:
    balance, conflict = world.balance(), world.conflict()
    return {
        **{f"balance_{goal}": balance[goal] for goal in GOALS},
        **{f"conflict_{goal}": conflict[goal] for goal in GOALS},
    }


def _at_equal_kl(
    method: str, training: Training, first_seed: int, seeds: int, betas: Sequence[float], cell: Sequence[str]
) -> pd.DataFrame:
    """Return both goals' shares at levels of KL in one cell, β and checkpoints pooled as in *frontier*."""
    kind, changed = cell
    (chosen,) = (one for one in cells(kind) if one.changed == changed)
    of_cell = [(chosen, seed) for seed in range(first_seed, first_seed + seeds)]
    paths = pd.concat([_trained(method, beta, of_cell, training).assign(beta=beta) for beta in betas])
    ordered = paths.sort_values(["seed", "beta", "step"])
    levels = at_levels(ordered, ["seed", "beta"], list(GOALS))
    means = levels.groupby(["seed", "kl"], as_index=False)[list(GOALS)].mean()
    return means.assign(kind="equal KL", changed=changed)


def verdict(frame: pd.DataFrame, settings: dict[str, Any]) -> list[Judged]:
    """Judge both goals' shares of the reachable reward, methods paired by seed.

    Claims two-goals-pattern and -stated: rows of the kind *hh* whose ``changed`` is "nothing"; drawn worlds are
    numbered by ``level``. Claim two-goals-cause: ``towards`` is the share of one goal minus that of the other: in
    cells, harmless minus helpful; in drawn worlds the favoured goal's minus the other's, where the favoured goal is the
    one with the larger balance, a mean over the world's seeds. At equal KL a level counts where both methods have it in
    at least half of the seeds.
    """
    apart = frame[frame["kind"] != "equal KL"]
    keys = ["kind", "changed", "level", "other", "recipe", "method", "seed"]
    check_rows(apart.fillna({"level": 0.0, "other": 0.0}), keys, [*GOALS, "kl"],
               {"kind": [*KINDS, "drawn"], "method": settings["methods"]})  # fmt: skip
    rows = list[Judged]()
    for contrast in CONTRASTS:
        given = rows_of(contrast, frame)
        rows.append(contrast.judged(given) if len(given) else not_run(contrast, "no rows of this recipe"))
    return rows


EXPERIMENT = Experiment(
    name="two-goals",
    settings=SETTINGS,
    quick=QUICK,
    parts=parts,
    run_part=run_part,
    verdict=verdict,
    figures=two_goals_figures.figures,
    captions=two_goals_figures.CAPTIONS,
    more=more,
    version=VERSION,
    sample=sample,
)
