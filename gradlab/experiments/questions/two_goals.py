"""Why does Balanced-DPO gain in harmlessness and not in helpfulness? Two goals on the same responses.

One property at a time: height, label noise, alignment of the reference, basin, share, conflict, lengths; then a map,
worlds like HH, and worlds that a distribution draws. Claims: two-goals-pattern, two-goals-stated, two-goals-cause.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from gradlab.experiments.contrasts import Contrast, Judged, Unit, not_run
from gradlab.experiments.experiment import FIRST_SEED, Experiment
from gradlab.experiments.frame_checks import check_rows
from gradlab.experiments.methods import loss_of
from gradlab.experiments.questions import two_goals_figures
from gradlab.experiments.questions.frontier import at_levels, overlap
from gradlab.experiments.questions.two_goals_worlds import KINDS, SIDES, Cell, cells, drawn
from gradlab.lab.fit import fit
from gradlab.lab.training import Training
from gradlab.lab.two_goals import GOALS, TwoGoalWorld

VERSION = 1  # of the numbers: raise it by hand when a change of any source changes them
MARGIN = 0.02  # of a share of the reachable reward: the pattern is harmless > +0.02 and |helpful| < 0.02
AT = "permuted λ at 2β"
TRAINING = Training(optimizer="adam", learning_rate=0.05, steps=500, pairs=100, record=1)
SETTINGS: dict[str, Any] = {
    "methods": ["dpo", "bdpo", "bdpo at 2β"],
    "controls": ["fixed λ=0.5", AT],  # in base, alone and hh
    "recipes": {"usual": {}, "exact": {"pairs": None}, "shared": {"policy": "shared"}},  # the others: in hh and base
    "betas": [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0],  # of dpo and bdpo at equal KL, in the world like HH
    "training": TRAINING,
    "first_seed": FIRST_SEED,
    "seeds": 32,
    "worlds": 120,
    "world_seeds": 4,
    "levels": 0,  # 0: all of each property's levels
}
QUICK: dict[str, Any] = {
    "recipes": {"usual": {}, "exact": {"pairs": None}},
    "betas": [0.5, 1.0, 2.0],
    "training": TRAINING.but(steps=100),
    "first_seed": 0,
    "seeds": 4,
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
    found = []
    for recipe, changes in settings["recipes"].items():
        for kind in KINDS if recipe == "usual" else _OTHER_RECIPES:
            controls = settings["controls"] if kind in _CONTROLLED else []
            found += [
                {"kind": kind, "method": method, "recipe": recipe, "changes": changes, "seeds": settings["seeds"],
                 "levels": settings["levels"], **shared}
                for method in (*settings["methods"], *controls)
            ]  # fmt: skip
    found += [
        {"kind": "equal KL", "method": method, "recipe": "usual", "changes": {"record": 20},
         "seeds": settings["seeds"], "betas": settings["betas"], **shared}
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


def sample(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the parts of worlds like HH under the usual recipe."""
    return [part for part in parts(settings) if part["kind"] == "hh" and part["recipe"] == "usual"]


def run_part(
    kind: str, method: str, recipe: str, changes: dict[str, Any], training: Training, first_seed: int, seeds: int,
    levels: int = 0, betas: Sequence[float] = (), worlds: Sequence[int] = (),
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
        return _at_equal_kl(method, training, first_seed, seeds, betas).assign(**named)
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


def _at_equal_kl(method: str, training: Training, first_seed: int, seeds: int, betas: Sequence[float]) -> pd.DataFrame:
    """Return both goals' shares at levels of KL in the world like HH, β and checkpoints pooled as in *frontier*."""
    of_cell = [(cells("hh")[0], seed) for seed in range(first_seed, first_seed + seeds)]
    paths = pd.concat([_trained(method, beta, of_cell, training).assign(beta=beta) for beta in betas])
    ordered = paths.sort_values(["seed", "beta", "step"])
    levels = at_levels(ordered, ["seed", "beta"], list(GOALS))
    means = levels.groupby(["seed", "kl"], as_index=False)[list(GOALS)].mean()
    return means.assign(kind="equal KL", changed="nothing")


_POINTS = Unit("points of the reachable reward", 100, 1)
_METHODS = {
    "dpo": "DPO", "bdpo": "bDPO", "bdpo at 2β": "bDPO at 2β", "fixed λ=0.5": "a constant λ = ½",
    AT: "bDPO at 2β with permuted λ",
}  # fmt: skip
_HH = "kind == 'hh' and changed == 'nothing'"
_KEYS = ["kind", "changed", "level", "other", "recipe"]


def _contrast(claim: str, goal: str, method: str, baseline: str, where: str, words: str, **changes: Any) -> Contrast:
    """Return the comparison of two methods on one goal's share of the reachable reward."""
    one, other = _METHODS[method], _METHODS[baseline]
    given: dict[str, Any] = {
        "by": ("recipe",), "margin": MARGIN, "unit": _POINTS,
        "better": f"{one} is {{size}} more {goal} than {other}", "worse": f"{one} is {{size}} less {goal} than {other}",
        "same": f"{one} is as {goal} as {other}, within {{margin}}", "where": where,
        "statement": f"{goal}: {one} against {other}, {words}", "label": f"{goal}: {words}",
        "claim": claim, "method": method, "baseline": baseline, "value": goal,
    }  # fmt: skip
    return Contrast(**{**given, **changes})


def _both(claim: str, method: str, baseline: str, where: str, label: str, **changes: Any) -> list[Contrast]:
    return [_contrast(claim, goal, method, baseline, where, label, **changes) for goal in reversed(GOALS)]


_USUAL = "recipe == 'usual'"
_DRAWN: dict[str, Any] = {"by": ("level",), "population": "worlds"}
CONTRASTS: list[Contrast] = [
    # the pattern, at matched scale
    *_both("two-goals-pattern", "bdpo at 2β", "dpo", f"{_HH} and {_USUAL}", "the world like HH", co_primaries=2),
    _contrast("two-goals-pattern", "harmless", "bdpo at 2β", AT, f"{_HH} and {_USUAL}", "permuted λ",
              role="explains away"),
    _contrast("two-goals-pattern", "harmless", "bdpo", "dpo", "kind == 'equal KL'", "DPO at equal KL", by=("kl",),
              complete=False, role="explains away"),
    *_both("two-goals-pattern", "bdpo at 2β", "dpo", f"{_HH} and recipe == 'exact'", "exact data", role="robustness"),
    *_both("two-goals-pattern", "bdpo at 2β", "dpo", f"{_HH} and recipe == 'shared'", "shared parameters",
           role="robustness"),
    *(
        one for changed in ("equal lengths", "agreeing pairs", "basin exchanged", "length exchanged", "share exchanged")
        for one in _both("two-goals-pattern", "bdpo at 2β", "dpo",
                         f"kind == 'hh' and changed == '{changed}' and {_USUAL}", changed, role="context")
    ),
    # as stated, at β = 1
    *_both("two-goals-stated", "bdpo", "dpo", f"{_HH} and {_USUAL}", "the world like HH", co_primaries=2),
    *_both("two-goals-stated", "bdpo", "fixed λ=0.5", f"{_HH} and {_USUAL}", "DPO at β/2", role="explains away"),
    *_both("two-goals-stated", "bdpo", "dpo", "kind == 'base' and recipe == 'usual'", "equal goals", role="context"),
]  # fmt: skip
# Judged on worlds, numbered by ``level``.
IN_WORLDS: list[Contrast] = [
    *_both("two-goals-pattern", "bdpo at 2β", "dpo", "", "drawn worlds", co_primaries=2,
           moderators=("balance_harmless", "balance_helpful"), **_DRAWN),
    *_both("two-goals-stated", "bdpo", "dpo", "", "drawn worlds", co_primaries=2,
           moderators=("balance_harmless", "balance_helpful"), **_DRAWN),
]  # fmt: skip


def _towards(goal: str, label: str, method: str, baseline: str, **changes: Any) -> Contrast:
    """Return the comparison of what one goal reaches more than the other."""
    one, other = _METHODS[method], _METHODS[baseline]
    given = {
        "value": "towards", "statement": f"{label}: {one} against {other}", "label": label,
        "better": f"{one} moves {{size}} from the other goal to the {goal} one, against {other}",
        "worse": f"{one} moves {{size}} from the {goal} goal to the other one, against {other}",
        "same": f"{one} moves no more than {{margin}} between the goals, against {other}",
    }  # fmt: skip
    return _contrast("two-goals-cause", goal, method, baseline, "", label, **{**given, **changes})


ALIGNED = _towards("harmless", "alignment alone", "bdpo at 2β", "dpo", by=("changed",))
FAVOURED = _towards("favoured", "drawn worlds", "bdpo at 2β", "dpo", **_DRAWN)
CAUSES: list[tuple[Contrast, str]] = [
    (ALIGNED, "alignment"),
    (_towards("harmless", "permuted λ, alignment alone", "bdpo at 2β", AT, by=("changed",), role="explains away"),
     "alignment"),
    *((_towards("harmless", f"{name} alone", "bdpo at 2β", "dpo", by=("changed",), role="context"), name)
      for name in SIDES if name != "alignment"),
]  # fmt: skip


def verdict(frame: pd.DataFrame, settings: dict[str, Any]) -> list[Judged]:
    """Judge both goals' shares of the reachable reward, methods paired by seed.

    Claims two-goals-pattern and -stated: rows of the kind *hh* whose ``changed`` is "nothing"; drawn worlds are
    numbered by ``level``. Claim two-goals-cause: ``towards`` is the share of one goal minus that of the other: of the
    kind *alone*, harmless minus helpful; in drawn worlds the favoured goal's minus the other's, where the favoured goal
    is the one with the larger balance, a mean over the world's seeds.
    """
    kinds = frame[frame["kind"] != "equal KL"]
    check_rows(kinds.fillna({"level": 0.0, "other": 0.0}), [*_KEYS, "method", "seed"], [*GOALS, "kl"],
               {"kind": [*KINDS, "drawn"], "method": settings["methods"]})  # fmt: skip
    levels = frame[frame["kind"] == "equal KL"]
    levels = overlap(levels, "bdpo", "dpo", ["kl"])
    rows = list[Judged]()
    for contrast in CONTRASTS:
        given = levels if "equal KL" in contrast.where else kinds
        there = given.query(contrast.where)
        rows.append(contrast.judged(given) if len(there) else not_run(contrast, "no rows of this recipe"))
    worlds = towards_favoured(frame)
    rows += [contrast.judged(worlds) for contrast in IN_WORLDS]
    alone = kinds[kinds["kind"] == "alone"]
    alone = alone.assign(towards=alone["harmless"] - alone["helpful"])
    rows += [contrast.judged(alone[alone["changed"] == changed]) for contrast, changed in CAUSES]
    return [*rows, FAVOURED.judged(worlds)]


def towards_favoured(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of drawn worlds: ``towards`` the favoured goal, balances as means over a world's seeds."""
    worlds = frame[frame["kind"] == "drawn"].astype({"level": int})
    balances = [f"balance_{goal}" for goal in GOALS]
    worlds[balances] = worlds.groupby("level")[balances].transform("mean").astype(float)
    sign = np.where(worlds["balance_harmless"] >= worlds["balance_helpful"], 1.0, -1.0)
    return worlds.assign(towards=sign * (worlds["harmless"] - worlds["helpful"]))


EXPERIMENT = Experiment(
    name="two-goals",
    settings=SETTINGS,
    quick=QUICK,
    parts=parts,
    run_part=run_part,
    verdict=verdict,
    figures=two_goals_figures.figures,
    captions=two_goals_figures.CAPTIONS,
    version=VERSION,
    sample=sample,
)
