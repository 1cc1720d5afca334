"""On continuous responses, does a loss depend on the unit in which a response is measured, and what is that worth?

A density has a unit; a probability has none. The same pairs are written in units from 1e-3 to 1e6, as sinh y, and as
the reference's distribution function; and on 20 to 1e8 cells. Claims: continuous-units, continuous-repair and
continuous-theory.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from gradlab import plotting
from gradlab.experiments.contrasts import Contrast, Judged, Scan, Unit, judged, not_run
from gradlab.experiments.experiment import Experiment
from gradlab.experiments.frame_checks import check_rows
from gradlab.experiments.outcomes import REWARD
from gradlab.experiments.questions.continuous_runs import (
    BALANCED,
    FREE,
    HALF,
    HOME,
    QUICK,
    SETTINGS,
    train_part,
    training_parts,
)
from gradlab.experiments.questions.continuous_theory import theory_part, theory_parts
from gradlab.experiments.questions.frontier import at_levels, overlap

RELATIVE = "relative-bdpo"
BY_ROUNDING = "rounding alone"
EXACT = 1e-10  # of a distance between policies, which is at most 1
SAME = 1e-9  # of the logarithm of a ratio of variances: its rounding
_CELL = ["case", "kl"]
_MASS = Unit("points of probability mass", 100, 1)


def parts(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the trainings, and one part for Theorems 3 to 5."""
    return [*training_parts(settings), *theory_parts(settings)]


def run_part(kind: str, **part: Any) -> pd.DataFrame:
    """Return the rows of one part: trainings, or Theorems 3 to 5 on densities."""
    return theory_part(kind, **part) if kind == "theory" else train_part(kind, **part)


def sample(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return Theorems 3 to 5, and two trainings in y of the first case and the last."""
    home = [part for part in training_parts(settings) if part["kind"] == "home" and part["method"] == RELATIVE]
    return [home[0], home[-1], *theory_parts(settings)]


def with_case(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of trainings, with a column that names policy and reference together."""
    rows = frame[frame["kind"] != "theory"]
    return rows.assign(case=rows["policy"] + " policy, " + rows["reference"] + " reference")


def with_rounding(trained: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with a method that moves in each coordinate as far as bDPO moves by rounding alone."""
    moved = trained[(trained["kind"] == "rounding") & (trained["coordinate"] != HOME)]
    usual = trained["method"].eq(BALANCED) & trained["beta"].eq(1) & trained["distance"].notna()
    rows = trained[trained["kind"].eq("units") & usual].drop(columns="distance")
    alone = rows.merge(moved[["case", "seed", "distance"]], on=["case", "seed"]).assign(method=BY_ROUNDING)
    return pd.concat([trained, alone[trained.columns]], ignore_index=True)


def units(settings: dict[str, Any]) -> list[Contrast | Scan]:
    """Return the statements on policies that were trained in other coordinates than y, at β = 1."""
    elsewhere = f"kind == 'units' and beta == 1 and step == {settings['training'].steps} and coordinate != '{HOME}'"
    both = f"{elsewhere} and seed < {settings['first_seed'] + settings['free_seeds']}"
    far = "distance"
    by = ("case", "coordinate")
    return [
        Contrast(
            "continuous-units", "bDPO trained in another coordinate, against bDPO trained in y", BALANCED, None, far,
            by, 0.01, elsewhere, _MASS, "trained in another coordinate, bDPO moves {size} from where it does in y",
            "trained in another coordinate, bDPO moves {size} less than none", label="bDPO",
        ),
        Contrast(
            "continuous-units", "bDPO moves further with the coordinate than λ = ½", BALANCED, HALF, far, by, 0.01,
            both, _MASS, "with the coordinate bDPO moves {size} further than a constant λ = ½",
            "with the coordinate bDPO moves {size} less than a constant λ = ½", role="explains away", label="λ = ½",
        ),
        Contrast(
            "continuous-units", "bDPO moves further with the coordinate than from rounding alone, in the unit "
            "1 + 1e-15 (added after the first results)", BALANCED, BY_ROUNDING, far, by, 0.01, elsewhere, _MASS,
            "with the coordinate bDPO moves {size} further than from rounding alone",
            "with the coordinate bDPO moves {size} less than from rounding alone", role="explains away",
            label="rounding alone (added after the first results)",
        ),
        *(
            Scan(
                "continuous-units", f"{words} trains the same policy in every coordinate", far, (*by, "seed"), EXACT,
                f"{elsewhere} and method == '{name}'", identity=True, role="context", label=f"{words} everywhere",
                holds=f"{words} trains the same policy in every coordinate, to {EXACT:g} of its mass",
                fails=f"{words} does not train the same policy in every coordinate", proof="unit-weights",
            )
            for name, words in zip(FREE, ("DPO", "a constant λ = ½", "relative bDPO"), strict=True)
        ),
    ]  # fmt: skip


def at_equal_kl(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the share of the reachable utility of each loss, coordinate and seed at the KL levels, β pooled.

    As in the experiment frontier: values are interpolated where a path first passes a level, and paths are averaged.
    bDPO in another coordinate than y is a method of its own, "bdpo in sinh y".
    """
    rows = with_case(frame)
    rows = rows[(rows["kind"] == "home") | ((rows["kind"] == "units") & (rows["method"] == BALANCED))]
    rows = rows[rows["utility_share"].notna()]
    rows = rows.assign(method=rows["method"].where(rows["method"] != BALANCED, "bdpo in " + rows["coordinate"]))
    keys = ["method", "case", "seed"]
    paths = at_levels(rows.sort_values([*keys, "beta", "step"]), [*keys, "beta"], ["utility_share"])
    return paths.groupby([*keys, "kl"], as_index=False, sort=False)[["utility_share"]].mean()


def rewards(levels: pd.DataFrame, coordinates: list[str]) -> list[Judged]:
    """Return the comparisons at equal KL."""
    pairs: list[tuple[str, str, str, str, str]] = [
        (RELATIVE, "dpo", "relative bDPO", "DPO", "primary"),
        (RELATIVE, HALF, "relative bDPO", "λ = ½", "explains away"),
        (HALF, "dpo", "λ = ½", "DPO", "context"),
        *((f"bdpo in {name}", "dpo", f"bDPO in {name}", "DPO", "context") for name in coordinates),
        *((RELATIVE, f"bdpo in {name}", "relative bDPO", f"bDPO in {name}", "context") for name in coordinates),
    ]
    rows = []
    for method, baseline, called, other, role in pairs:
        both = overlap(levels, method, baseline, _CELL)
        contrast = REWARD.contrast(
            f"{called} against {other} at equal KL, β and checkpoints pooled", method, baseline, tuple(_CELL),
            words="at equal KL, {}", role=role, complete=False, claim="continuous-repair",
            label=f"{called} against {other} at equal KL",
            better=f"at equal KL, {called} reaches {{size}} more than {other}",
            worse=f"at equal KL, {called} reaches {{size}} less than {other}",
        )  # fmt: skip
        rows.append(contrast.judged(both) if len(both) else not_run(contrast, "no KL level that both methods reach"))
    return rows


def theorems() -> list[Scan]:
    """Return the statements of Theorems 3 to 5 on densities."""
    by, claim = ("apart", "width", "coordinate"), "continuous-theory"
    return [
        Scan(
            claim, "Theorems 4 and 5, Var[w p] < Var[w] E[p²], are true in every coordinate", "spread", by, SAME,
            "kind == 'theory'", label="Theorems 4 and 5", proof="density-theorems", refutes=True,
            holds="Theorems 4 and 5 have one answer in every coordinate",
            fails="Theorems 4 and 5 have no answer on densities: for every policy there is a coordinate in which they "
            "are false, and in the policy's own distribution function both sides are equal",
        ),
        Scan(
            claim, "DPO's half of Theorem 3, in y: no extremum of w between the modes of p and q", "outer", by, SAME,
            f"kind == 'theory' and coordinate == '{HOME}'", role="context", label="DPO's half, in y", proof="shift-dpo",
            holds="in a coordinate in which responses are drawn uniformly, DPO's half of Theorem 3 is true",
            fails="DPO's half of Theorem 3 is false even in y",
        ),
        Scan(
            claim, "DPO's half of Theorem 3 in the coordinate p ∝ |w|, by the modes of its densities", "outer", by,
            SAME, "kind == 'theory' and coordinate == 'p ∝ |w|'", role="context", label="DPO's half, elsewhere",
            proof="density-theorems", refutes=True,
            fails="by the modes of densities, DPO's half of Theorem 3 is false in some coordinates",
        ),
        Scan(
            claim, "the balanced half of Theorem 3, in y: the extrema of w·p lie between the modes", "balanced", by,
            SAME, f"kind == 'theory' and coordinate == '{HOME}'", role="context", label="balanced half, in y",
            proof="shift-balanced", refutes=True, fails="the balanced half of Theorem 3 is false in y already",
        ),
    ]  # fmt: skip


def verdict(frame: pd.DataFrame, settings: dict[str, Any]) -> list[Judged]:
    """Compare policies that were trained in other coordinates, losses at equal KL, and Theorems 3 to 5 on densities.

    *Units*: the last rows of kind units at β = 1; ``distance`` is ½∫|π − π'| between the policies that one seed trains
    in a coordinate and in y. A cell is a policy with its reference, and a coordinate other than y. Where λ leaves
    [0, 1] it has a pole, which amplifies rounding. How far rounding alone moves a policy is its distance of kind
    rounding, from the unit 1 + 1e-15; it stands beside each coordinate. *Equal KL*: as in
    the experiment frontier, with a cell per policy with its reference, and KL level; ``utility_share`` is (E[u] −
    E_ref[u])/(max u − E_ref[u]). Rows in which the policy has left the interval have no value, and do not count.
    *Theorems*: kind theory; ``spread`` is log(Var[w] E[p²]/Var[w p]), ``outer`` and ``balanced`` are slacks in y.
    """
    trained = with_case(frame)
    cases = {"case": list(dict.fromkeys(trained["case"]))}
    ends = trained[(trained["kind"] == "units") & (trained["step"] == settings["training"].steps)]
    run = ["method", "case", "beta", "coordinate", "seed"]
    check_rows(ends, run, ["distance", "outside"], {"method": [BALANCED, *FREE], **cases})
    check_rows(trained[trained["kind"] == "home"], [*run, "step"], [], {"method": FREE, **cases})
    levels = at_equal_kl(frame)
    coordinates = list(dict.fromkeys(ends["coordinate"]))
    return [
        *judged(with_rounding(trained), units(settings)), *rewards(levels, coordinates),
        *judged(frame[(frame["kind"] == "theory") & frame["coordinate"].ne("policy's CDF")], theorems()),
    ]  # fmt: skip


CAPTIONS = {
    "continuous-units": (
        "The same pairs, written in other coordinates, β = 1. Upper row: total variation distance, from 0 to 1, "
        "between the policy that is trained in a coordinate and the one that the same seed trains in y; marks are "
        "means over seeds with 95% intervals. Distances at 1e-14 are rounding. "
        "Lower row, bDPO alone: the share of pairs whose weights leave [0, 1], a mean over training (triangles), and "
        "the share at the end with both log densities above 0, whose weights are turned round (crosses)."
    ),
    "continuous-frontier": (
        "Share of the reachable utility at equal KL from the reference, β and checkpoints pooled; means over seeds "
        "with 95% intervals. Relative bDPO, DPO and λ = ½ are the same in every coordinate; bDPO has a curve per "
        "coordinate. A curve ends where fewer than half of its seeds reach the level."
    ),
    "continuous-cells": (
        "bDPO on ever finer cells, β = 1: total variation distance from DPO at β/2 after training, against log n; "
        "both axes are logarithmic, so that the dotted line, a multiple of 1/log n, has slope −1. Means over seeds "
        "with 95% intervals."
    ),
}


def figures(frame: pd.DataFrame) -> dict[str, Figure]:
    """Draw distances by coordinate, rewards at equal KL, and the way to DPO at β/2."""
    trained = with_case(frame)
    ends = trained[(trained["kind"] == "units") & (trained["beta"] == 1) & trained["distance"].notna()]
    on_cells = trained[(trained["kind"] == "cells") & trained["from_half"].notna()]
    cells = on_cells["coordinate"].str.removesuffix(" cells").astype(float)
    return {
        "continuous-units": plotting.by_coordinate(ends, [BALANCED, *FREE], HOME),
        "continuous-frontier": plotting.at_kl_levels(at_equal_kl(frame), ["dpo", HALF, RELATIVE], "bdpo in "),
        "continuous-cells": plotting.towards_half(on_cells.assign(cells=cells)),
    }


EXPERIMENT = Experiment(
    name="continuous",
    settings=SETTINGS,
    quick=QUICK,
    parts=parts,
    run_part=run_part,
    verdict=verdict,
    figures=figures,
    captions=CAPTIONS,
    version=2,
    sample=sample,
)
